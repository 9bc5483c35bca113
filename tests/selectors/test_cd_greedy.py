import numpy as np
import pytest
from support.equations import eq2, images_of
from support.pools import full_pool, vector_pool

from cdal.selectors import aggregate_contextual_diversity
from cdal.selectors.cd_greedy import CDGreedy
from cdal.selectors.mixtures import ClassMixtures


@pytest.mark.parametrize("missing", ["skip", "uniform"])
def test_each_pick_adds_most_to_eq3(missing):
    pool = full_pool(labelled=[0, 5])
    images = images_of(pool.mixtures.numpy(), pool.present.numpy())
    d = np.array([[eq2(a, b, missing) for b in images] for a in images])
    left = [i for i in range(40) if i not in (0, 5)]
    against = [0, 5]
    for pick in CDGreedy(missing=missing).select(pool, 12).picks:
        gains = {i: sum(d[i][j] for j in against) for i in left}
        assert pick.index == max(gains, key=gains.__getitem__)
        assert pick.score == pytest.approx(gains[pick.index], rel=1e-5)
        against = [] if against == [0, 5] else against
        against.append(pick.index)
        left.remove(pick.index)


def test_scores_after_the_first_sum_to_half_of_eq3():
    pool = full_pool()
    selection = CDGreedy().select(pool, 10)
    rows = selection.indices
    picked = ClassMixtures(pool.mixtures[rows], pool.present[rows], pool.region_counts[rows])
    assert selection.picks[0].score == 0
    total = sum(pick.score for pick in selection.picks)
    assert aggregate_contextual_diversity(picked) == pytest.approx(2 * total, rel=1e-5)


def test_the_classes_shares_are_those_of_the_gain():
    # Only class 1 differs in the logarithm's argument twice as much: both parts by hand.
    pool = vector_pool([[0.5, 0.5], [0.8, 0.2]], labelled=[0])
    (pick,) = CDGreedy().select(pool, 1).picks
    a, b = 0.5 * 0.3 * np.log(0.8 / 0.5), 0.5 * 0.3 * np.log(0.5 / 0.2)
    assert pick.score == pytest.approx(a + b)
    assert pick.reason["classes"] == {
        "1": pytest.approx(b / (a + b)),
        "0": pytest.approx(a / (a + b)),
    }


def test_ties_go_to_the_lowest_index():
    pool = vector_pool([[0.5, 0.5], [0.6, 0.4], [0.9, 0.1], [0.9, 0.1], [0.9, 0.1]], labelled=[0])
    assert CDGreedy().select(pool, 2).indices == [2, 1]
    copies = vector_pool([[0.5, 0.5]] * 4, labelled=[2])
    assert CDGreedy().select(copies, 3).indices == [0, 1, 3]
