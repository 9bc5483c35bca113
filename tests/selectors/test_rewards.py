"""The rewards compared with loops written directly from Eq. 3 to 5, and with results by hand."""

import math

import pytest
import torch
from support.equations import eq2, images_of

from cdal.selectors.diversity import DiversityEmbedding
from cdal.selectors.pool import Pool, PoolError
from cdal.selectors.rewards import (
    ContextualDiversityReward,
    Reward,
    SemanticReward,
    VisualReward,
    nearest,
    semantic_representation,
)
from cdal.selectors.synthetic import confused_pool


def close(actual, expected):
    return abs(actual - expected) <= max(2e-6, 1e-5 * abs(expected))


def distance(a, b):
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def eq4(features, images, selected, unit=1.0):
    """Eq. 4 over these images, with distances in this unit."""
    total = 0.0
    for i in images:
        total += min(distance(features[i], features[j]) for j in selected) / unit
    return math.exp(-total / len(images))


def mean_distance(features, selected):
    """The mean distance to the nearest selected image, as Eq. 4 has it in its exponent."""
    everything, centres = torch.arange(len(features)), torch.tensor(selected, dtype=torch.int64)
    distances, _ = nearest(features, everything, centres, 1, torch.float64)
    return float(distances.mean())


def eq5(region_counts, selected, scale, classes):
    total = 0.0
    for c in classes:
        total += math.log(max(1, sum(region_counts[i][c] for i in selected)) / scale)
    return total


def combined(pool, picks, parts, alpha, missing):
    """R by loops, each part normalised as in its class: the picks' parts and the total."""
    n, labelled = len(pool), pool.labelled.tolist()
    unlabelled = [i for i in range(n) if not labelled[i]]
    selected = picks + [i for i in range(n) if labelled[i]]
    values = {}
    if "cd" in parts:
        images = images_of(pool.mixtures, pool.present)

        def mean(rows):
            pairs = [(a, b) for a in rows for b in rows if a != b]
            return sum(eq2(images[a], images[b], missing) for a, b in pairs) / max(1, len(pairs))

        values["cd"] = mean(picks) / (mean(range(n)) or 1.0)
    if "vr" in parts:
        f = pool.features.tolist()
        centre = [sum(column) / n for column in zip(*f, strict=True)]
        unit = math.sqrt(sum(distance(x, centre) ** 2 for x in f) / n) or 1.0
        values["vr"] = eq4(f, unlabelled, selected, unit)
    if "sr" in parts:
        counts = pool.region_counts.tolist()
        totals = [sum(column) for column in zip(*counts, strict=True)]
        classes = [c for c, total in enumerate(totals) if total]
        scale = sum(totals) / n / len(classes) * len(selected)
        values["sr"] = eq5(counts, selected, scale, classes) / len(classes)
    total = sum((alpha if part == "cd" else 1 - alpha) * v for part, v in values.items())
    return {**values, "total": total}


def make_pool(mixtures, present, labelled=()):
    generator = torch.Generator().manual_seed(3)
    n, _, c = mixtures.shape
    mask = torch.zeros(n, dtype=torch.bool)
    mask[list(labelled)] = True
    return Pool(
        mixtures=(mixtures * present[..., None]).float(),
        present=present,
        labelled=mask,
        features=torch.randn(n, 5, generator=generator) * 30 + 100,
        region_counts=torch.randint(0, 50, (n, c), generator=generator) * present.any(1)[:, None],
    )


def dirichlet(n, r, c, concentration=0.3):
    torch.manual_seed(c)
    return torch.distributions.Dirichlet(torch.full((c,), concentration)).sample((n, r))


def adversarial_pools():
    everywhere = torch.ones(8, 4, dtype=torch.bool)
    one = torch.zeros(8, 4, dtype=torch.bool)
    one[:, 2] = True
    disjoint = torch.arange(8)[:, None] % 4 == torch.arange(4)
    some = torch.rand(8, 4, generator=torch.Generator().manual_seed(1)) < 0.5
    hot = torch.eye(4)[torch.randint(4, (8, 4), generator=torch.Generator().manual_seed(2))]
    alike = (0.25 + 1e-5 * torch.randn(8, 4, 4, generator=torch.Generator().manual_seed(5))).abs()
    return {
        "random": make_pool(dirichlet(8, 4, 4), some, labelled=(0, 5)),
        "one class": make_pool(dirichlet(8, 4, 4), one),
        "all classes": make_pool(dirichlet(8, 4, 4), everywhere, labelled=(7,)),
        "no class in common": make_pool(dirichlet(8, 4, 4), disjoint),
        "one-hot": make_pool(hot, everywhere),
        "uniform": make_pool(torch.full((8, 4, 4), 0.25), everywhere),
        "near-identical": make_pool(alike / alike.sum(-1, keepdim=True), everywhere, (1,)),
        "2 classes": make_pool(dirichlet(9, 2, 2), torch.ones(9, 2, dtype=torch.bool)),
        "150 classes": make_pool(dirichlet(5, 150, 150), torch.rand(5, 150) < 0.2, (0,)),
        "one mixture an image": make_pool(dirichlet(8, 1, 6), torch.ones(8, 1, dtype=torch.bool)),
    }


POOLS = adversarial_pools()


@pytest.mark.parametrize("missing", ["skip", "uniform"])
@pytest.mark.parametrize("name", POOLS)
def test_every_part_and_the_total_are_those_of_the_equations(name, missing):
    pool = POOLS[name]
    embedding = DiversityEmbedding.of(pool.mixtures, pool.present, missing)
    for picks in ([4], [2, 3], [4, 2, 3]):
        expected = combined(pool, picks, ("cd", "vr", "sr"), 0.6, missing)
        reward = Reward(pool, ("cd", "vr", "sr"), 0.6, embedding)
        actual = reward.values(torch.tensor(picks))
        assert actual.keys() == expected.keys()
        for part, value in expected.items():
            assert close(actual[part], value), (picks, part, actual[part], value)
        assert close(reward.value(torch.tensor(picks)), expected["total"])


@pytest.mark.parametrize("parts", [("cd",), ("vr",), ("sr",), ("cd", "vr"), ("vr", "sr")])
def test_any_subset_of_the_parts_is_their_weighted_sum(parts):
    pool = POOLS["random"]
    embedding = DiversityEmbedding.of(pool.mixtures, pool.present, "uniform")
    actual = Reward(pool, parts, 0.25, embedding).values(torch.tensor([1, 4, 6]))
    expected = combined(pool, [1, 4, 6], parts, 0.25, "uniform")
    assert actual.keys() == expected.keys()
    assert all(close(actual[part], expected[part]) for part in expected)


@pytest.mark.parametrize(
    "features",
    [
        pytest.param(torch.randn(40, 6), id="random"),
        pytest.param(torch.randn(40, 6) * 1e-3, id="small"),
        pytest.param(torch.randn(40, 6) * 1e-4 + 1000, id="near-identical, far from the origin"),
        pytest.param(torch.randint(2, (40, 1)).repeat(1, 6) + 1e-4 * torch.randn(40, 6), id="two"),
        pytest.param(torch.ones(40, 6), id="all alike"),
        pytest.param(torch.eye(40), id="one-hot"),
    ],
)
def test_eq_4(features, monkeypatch):
    monkeypatch.setattr("cdal.selectors.rewards._BLOCK_ELEMENTS", 100)  # several blocks of rows
    for selected in ([0], [3, 17, 39], list(range(40))):
        expected = eq4(features.tolist(), range(40), selected)
        assert close(math.exp(-mean_distance(features, selected)), expected)


def test_eq_4_by_hand():
    # The distances to the nearest of (0, 0) and (10, 0) are 0, 5, 0 and 3: mean 2.
    features = torch.tensor([[0.0, 0.0], [3.0, 4.0], [10.0, 0.0], [10.0, 3.0]])
    assert mean_distance(features, [0, 2]) == pytest.approx(2)
    assert math.exp(-mean_distance(features, [])) == 0


def test_eq_4_of_a_long_pool_is_one_of_blocks():
    # An N×N matrix of 200,000 images would take 320 GB.
    features = torch.arange(200_000.0)[:, None]
    assert mean_distance(features, [0, 199_999]) == pytest.approx(199_998 / 4)


def test_eq_5_by_hand():
    counts = torch.tensor([[8, 0, 2], [0, 0, 2], [5, 5, 5]])
    # 8, 0 (which counts as 1) and 4 regions against λ = 4: log 2 + log ¼ + log 1.
    assert semantic_representation(counts, torch.tensor([0, 1]), 4) == pytest.approx(math.log(0.5))


def test_rcd_of_random_selections_is_about_one():
    pool = confused_pool(300, seed=1)
    part = ContextualDiversityReward(DiversityEmbedding.of(pool.mixtures, pool.present))
    everything = torch.arange(300)
    assert part.value(everything) == pytest.approx(1)
    assert part.value(everything[:100]) == pytest.approx(1, rel=0.05)


def fall(part, picks, i, labelled):
    """A part's loss without pick i, with the number of pairs and the λ of all picks."""
    rest = torch.cat([picks[:i], picks[i + 1 :]])
    b, selected = len(picks), len(picks) + labelled
    if isinstance(part, ContextualDiversityReward):
        return part.value(picks) - part.value(rest) * (b - 2) / b
    if isinstance(part, SemanticReward):
        return part.value(picks) - part.value(rest) + math.log(selected / (selected - 1))
    return part.value(picks) - part.value(rest)


@pytest.mark.parametrize("labelled", [0, 30])
def test_a_credit_is_what_the_value_falls_by_without_the_pick(labelled):
    pool = confused_pool(80, labelled=labelled, seed=2)
    picks = pool.unlabelled[::7]
    parts = [
        ContextualDiversityReward(DiversityEmbedding.of(pool.mixtures, pool.present)),
        VisualReward(pool.features, pool.labelled),
        SemanticReward(pool.region_counts, pool.labelled),
    ]
    for part in parts:
        credit = part.credit(picks)
        falls = [fall(part, picks, i, labelled) for i in range(len(picks))]
        assert credit.tolist() == pytest.approx(falls, rel=1e-5, abs=2e-6)
        assert credit.max() > credit.min()
        # The estimate for learning, in float32.
        estimate = part.credit(picks, pool.unlabelled)
        assert estimate.tolist() == pytest.approx(falls, rel=1e-2)


def test_the_credit_of_the_whole_is_the_weighted_sum_of_the_credits():
    pool = confused_pool(50, labelled=5)
    embedding = DiversityEmbedding.of(pool.mixtures, pool.present)
    picks = pool.unlabelled[:6]
    whole = Reward(pool, ("cd", "vr", "sr"), 0.75, embedding).credit(picks, pool.unlabelled)
    cd = ContextualDiversityReward(embedding).credit(picks, pool.unlabelled)
    vr = VisualReward(pool.features, pool.labelled).credit(picks, pool.unlabelled)
    sr = SemanticReward(pool.region_counts, pool.labelled).credit(picks, pool.unlabelled)
    assert torch.allclose(whole, 0.75 * cd + 0.25 * (vr + sr))


def test_the_only_pick_of_an_unlabelled_pool_has_all_of_rvr():
    part = VisualReward(torch.randn(9, 3), torch.zeros(9, dtype=torch.bool))
    picks = torch.tensor([4])
    assert part.credit(picks, torch.arange(9)).item() == pytest.approx(part.value(picks), rel=1e-4)


def test_a_copy_of_a_labelled_image_represents_nothing_new():
    features = torch.tensor([[0.0], [0.0], [5.0], [6.0]])
    part = VisualReward(features, torch.tensor([True, False, False, False]))
    credit = part.credit(torch.tensor([1, 2]), torch.tensor([1, 2, 3]))
    assert credit[0] == 0
    assert credit[1] > 0


def test_a_sample_of_the_pool_estimates_rvr():
    pool = confused_pool(2000, seed=3)
    part = VisualReward(pool.features, pool.labelled)
    picks = torch.arange(20)
    assert part.value(picks, pool.unlabelled) == pytest.approx(part.value(picks), rel=1e-5)
    assert part.value(picks, pool.unlabelled[::4]) == pytest.approx(part.value(picks), rel=0.05)


def test_a_class_that_is_rare_in_the_selection_is_worth_most():
    counts = torch.tensor([[90, 0], [90, 0], [0, 10], [50, 50]])
    part = SemanticReward(counts, torch.tensor([False, False, False, False]))
    credit = part.credit(torch.tensor([0, 1, 2]), torch.arange(4))
    assert credit[2] > credit[0] == credit[1]
    assert part.value(torch.tensor([0, 2])) > part.value(torch.tensor([0, 1]))


def test_a_pool_without_regions_has_no_semantic_reward():
    part = SemanticReward(torch.zeros(3, 4, dtype=torch.int64), torch.zeros(3, dtype=torch.bool))
    assert part.value(torch.tensor([0, 1])) == 0
    assert part.credit(torch.tensor([0, 1]), torch.arange(3)).tolist() == [0, 0]


@pytest.mark.parametrize(("part", "array"), [("vr", "features"), ("sr", "region_counts")])
def test_what_a_part_needs_and_the_pool_has_not_is_named(part, array):
    full = confused_pool(10)
    pool = Pool(full.mixtures, full.present, full.labelled)
    embedding = DiversityEmbedding.of(pool.mixtures, pool.present)
    with pytest.raises(PoolError, match=f"^{array} is missing: .*{part}"):
        Reward(pool, ("cd", part), 0.75, embedding)


def test_rewards_as_published_are_those_of_equations_3_to_5():
    pool = confused_pool(12, 4, seed=3, labelled=2)
    picks = torch.tensor(pool.unlabelled[:3].tolist())
    embedding = DiversityEmbedding.of(pool.mixtures, pool.present, "skip")
    reward = Reward(pool, {"cd", "vr", "sr"}, 0.75, embedding, scale=7.0, sums="raw")
    values = reward.values(picks)
    images = images_of(pool.mixtures, pool.present)
    assert close(values["cd"], sum(eq2(images[i], images[j]) for i in picks for j in picks))
    features = pool.features.double().tolist()
    unlabelled = pool.unlabelled.tolist()
    assert close(values["vr"], eq4(features, unlabelled, picks.tolist()))
    present = [c for c in range(4) if pool.region_counts[:, c].sum() > 0]
    assert close(values["sr"], eq5(pool.region_counts.tolist(), picks.tolist(), 7.0, present))


def test_lambda_shifts_the_reward_of_a_budget_and_nothing_else():
    pool = confused_pool(12, 4, seed=3, labelled=2)
    embedding = DiversityEmbedding.of(pool.mixtures, pool.present, "skip")
    rewards = [Reward(pool, {"sr"}, 0.0, embedding, scale=scale) for scale in (1.0, 10.0)]
    picks = [pool.unlabelled[:3], pool.unlabelled[3:6]]
    low, high = ([reward.value(rows) for rows in picks] for reward in rewards)
    assert low[0] - high[0] == pytest.approx(math.log(10))
    assert low[0] - low[1] == pytest.approx(high[0] - high[1])
    assert torch.equal(*(reward.credit(picks[0]) for reward in rewards))
