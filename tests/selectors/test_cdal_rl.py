import dataclasses
import json
import statistics

import pytest
import torch
from safetensors.torch import load_file, save_file

from cdal.selectors import metric, policy, reinforce
from cdal.selectors.cd_greedy import CDGreedy
from cdal.selectors.cdal_cs import CDALCS
from cdal.selectors.cdal_rl import CDALRL
from cdal.selectors.diversity import DiversityEmbedding
from cdal.selectors.policy import PolicyFileError
from cdal.selectors.pool import Pool, PoolError
from cdal.selectors.synthetic import confused_pool


def quick(**options):
    return CDALRL(**({"epochs": 2, "episodes": 2, "cells": 8} | options))


class Scale:
    """Aggregate CD of selections of a pool: 0 is the mean random selection, 100 is cd-greedy."""

    def __init__(self, pool, budget, seed):
        self.embedding = DiversityEmbedding.of(pool.mixtures, pool.present)
        generator = torch.Generator().manual_seed(seed)
        self.random = [
            self.embedding.aggregate(torch.randperm(len(pool), generator=generator)[:budget])
            for _ in range(300)
        ]
        self.zero = statistics.mean(self.random)
        greedy = CDGreedy().select(pool, budget, seed).indices
        self.hundred = self.embedding.aggregate(torch.tensor(greedy))

    def of(self, selection):
        return self.at(self.embedding.aggregate(torch.tensor(selection.indices)))

    def at(self, aggregate):
        return 100 * (aggregate - self.zero) / (self.hundred - self.zero)


def test_it_learns_to_cover_the_pool_better_than_cdal_cs_and_random_images():
    """CDAL-CS is what the policy picks before it has learnt anything."""
    full = confused_pool(300, labelled=20)
    pool = Pool(full.mixtures, full.present, full.labelled)
    report = CDALRL(rewards="coverage", cells=16).select(pool, 30).report["reward"]
    gained = {name: parts["coverage"] for name, parts in report.items()}
    assert gained["cdal-rl"] > gained["random"]
    assert gained["cdal-rl"] > 1.05 * gained["cdal-cs"]


def test_it_starts_with_the_picks_of_cdal_cs_and_learns_to_earn_more():
    pool = confused_pool(300, labelled=20)
    greedy = CDALCS().select(pool, 30)
    start = CDALRL(cells=16, epochs=1).select(pool, 30)
    assert start.indices == greedy.indices
    report = CDALRL(cells=16, epochs=60).select(pool, 30).report["reward"]
    spread = {name: parts["spread"] for name, parts in report.items()}
    assert spread["cdal-rl"] > 1.01 * spread["cdal-cs"] > spread["random"]


@pytest.mark.parametrize("rewards", ["spread", "coverage", "cd", "spread+vr+sr"])
def test_it_never_earns_less_than_cdal_cs(rewards):
    """Not even with a policy that has learnt the contrary."""
    for seed in range(3):
        pool = confused_pool(60, labelled=6, seed=seed)
        report = quick(rewards=rewards).select(pool, 8, seed).report["reward"]
        assert report["cdal-rl"]["total"] >= report["cdal-cs"]["total"] - 1e-6


def test_a_kept_policy_that_earns_less_gives_way_to_the_start(tmp_path):
    weights = tmp_path / "policy.safetensors"
    pool = confused_pool(60, labelled=6)
    quick(weights=weights).select(pool, 8)
    state = load_file(weights)
    state["head.weight"] = 1e4 * torch.randn(1, 16, generator=torch.Generator().manual_seed(0))
    save_file(state, weights)
    selection = quick(weights=weights).select(pool, 8)
    assert selection.indices == CDALCS().select(pool, 8).indices
    assert selection.report["trained_epochs"] == 0


def test_training_ends_when_it_has_stopped_learning():
    """One image to pick of one: there is nothing to learn."""
    pool = confused_pool(4, labelled=3)
    assert CDALRL(cells=4, epochs=1000).select(pool, 1).report["trained_epochs"] < 100


class CancelledError(Exception):
    pass


def cancel_at(call, told):
    """A progress that raises at its call of this number, and keeps the shares before it."""

    def progress(share):
        if len(told) == call:
            raise CancelledError
        told.append(share)

    return progress


@pytest.mark.parametrize("options", [{}, {"rewards": "coverage+vr"}, {"policy": "paper"}], ids=str)
def test_it_can_be_cancelled_all_the_way(options):
    pool = confused_pool(30, labelled=6)
    told = []
    quick(**options).select(pool, 5, progress=told.append)
    for call in range(0, len(told), len(told) // 4):
        before = []
        with pytest.raises(CancelledError):
            quick(**options).select(pool, 5, progress=cancel_at(call, before))
        assert before == told[:call]


def test_no_step_of_preparing_or_reporting_grows_with_the_pool(monkeypatch):
    """Twice the images are looked at in twice as many blocks, each of which can be cancelled."""
    monkeypatch.setitem(metric._CHUNK_BYTES, "cpu", 2**14)
    monkeypatch.setitem(metric._BLOCK_BYTES, "cpu", 2**14)
    monkeypatch.setattr(policy, "_CHUNK_IMAGES", 64)
    monkeypatch.setattr(reinforce, "_IMAGES", 64)
    before, after = [], []
    for images in (400, 800):
        told = []
        quick(window=16).select(confused_pool(images, labelled=40), 10, progress=told.append)
        before.append(told.count(0.0))  # until the first epoch has ended
        after.append(sum(0.95 <= share < 1 for share in told))
    assert before[1] > 1.7 * before[0]
    assert after[1] > 1.7 * after[0]


def test_a_subset_of_the_classes_counts_in_the_reward_alone(tmp_path):
    """What other classes look like changes nothing in the reward, but what the policy reads."""
    pool = confused_pool(60, labelled=6)
    other = pool.mixtures.clone()
    other[:, 1:] = torch.where(pool.present[:, 1:, None], other[:, 1:].roll(1, 2), 0)
    changed = dataclasses.replace(pool, mixtures=other)
    picks = torch.arange(10, 20)
    values, read = [], []
    for number, each in enumerate((pool, changed)):
        weights = tmp_path / f"{number}.safetensors"
        selector = quick(rewards="cd", classes=(0,), weights=weights)
        selector.select(each, 9)
        rewarded = each.of_classes((0,))
        embedding = DiversityEmbedding.of(rewarded.mixtures, rewarded.present)
        values.append(selector._reward(rewarded, embedding).value(picks))
        read.append(load_file(weights)["shift"])
    assert values[0] == values[1]
    assert not torch.equal(*read)
    whole = quick(rewards="cd").select(pool, 9).report["reward"]["random"]["cd"]
    part = quick(rewards="cd", classes=(0,)).select(pool, 9).report["reward"]["random"]["cd"]
    assert part != whole


def test_the_papers_settings_run_and_stay_below():
    """They exist for reproduction, and stay far below greedy."""
    pool = confused_pool(400, seed=0)
    scale = Scale(pool, 40, 0)
    selection = CDALRL(policy="paper", rewards="cd", epochs=5).select(pool, 40, 0)
    assert len(set(selection.indices)) == 40
    assert scale.of(selection) < 50


@pytest.mark.parametrize("policy", ["plackett-luce", "paper"])
@pytest.mark.parametrize(("budget", "picked"), [(0, 0), (1, 1), (7, 7), (30, 30), (31, 30)])
def test_picks_are_distinct_unlabelled_and_as_many_as_there_can_be(policy, budget, picked):
    pool = confused_pool(40, labelled=10)
    indices = quick(policy=policy).select(pool, budget).indices
    assert len(set(indices)) == len(indices) == picked
    assert not pool.labelled[indices].any()


@pytest.mark.parametrize("policy", ["plackett-luce", "paper"])
def test_a_seed_fixes_the_picks_and_leaves_the_global_generator_alone(policy):
    pool = confused_pool(100, labelled=6)
    selector = quick(policy=policy, rewards="coverage", epochs=20)  # others may stay at the start
    first = selector.select(pool, 20, seed=4)
    state = torch.random.get_rng_state()
    torch.rand(5)
    assert selector.select(pool, 20, seed=4) == first
    torch.random.set_rng_state(state)
    selector.select(pool, 20, seed=4)
    assert torch.equal(state, torch.random.get_rng_state())
    assert selector.select(pool, 20, seed=5).picks != first.picks


def test_an_empty_pool_has_no_picks():
    pool = confused_pool(5)
    empty = pool.take(torch.arange(0))
    assert quick().select(empty, 3).picks == ()


@pytest.mark.parametrize("rewards", ["cd", "vr", "sr", "spread", "coverage+vr", "sr + vr + cd"])
def test_any_subset_of_the_rewards(rewards):
    pool = confused_pool(40, labelled=4)
    report = quick(rewards=rewards).select(pool, 6).report
    parts = {part.strip() for part in rewards.split("+")}
    assert report["reward"]["cdal-rl"].keys() == parts | {"total"}


def test_the_rewards_are_those_that_the_pool_allows_unless_named():
    full = confused_pool(30)
    bare = Pool(full.mixtures, full.present, full.labelled)

    def parts(pool, **options):
        return set(quick(**options).select(pool, 3).report["reward"]["cdal-rl"]) - {"total"}

    assert parts(full) == parts(bare) == {"spread"}
    for papers in ({"rewards": "paper"}, {"policy": "paper"}):
        assert parts(full, **papers) == {"cd", "vr"}
        assert parts(bare, **papers) == {"cd"}
    with pytest.raises(PoolError, match="features"):
        quick(rewards="cd+vr").select(bare, 3)
    with pytest.raises(PoolError, match="region_counts"):
        quick(rewards="sr").select(bare, 3)


def test_the_report_sets_the_reward_beside_what_it_has_to_beat():
    pool = confused_pool(60, labelled=6)
    selection = quick(epochs=3, episodes=4, rewards="paper").select(pool, 8, seed=1)
    report = json.loads(json.dumps(selection.report))
    assert report["trained_epochs"] == 3
    totals = {name: parts["total"] for name, parts in report["reward"].items()}
    assert totals.keys() == {"cdal-rl", "cdal-cs", "cd-greedy", "random"}
    assert report["reward"]["cd-greedy"]["cd"] > report["reward"]["random"]["cd"]


def test_each_reason_names_the_nearest_labelled_or_earlier_image():
    pool = confused_pool(50, labelled=5)
    picks = quick().select(pool, 10).picks
    embedding = DiversityEmbedding.of(pool.mixtures, pool.present)
    earlier = pool.labelled.nonzero()[:, 0].tolist()
    for pick in picks:
        to = embedding.distances(torch.tensor([pick.index]), torch.tensor(earlier))[0]
        assert pick.reason["nearest"] == earlier[int(to.argmin())]
        assert 0 < sum(pick.reason["classes"].values()) <= 1 + 1e-6
        earlier.append(pick.index)
    scores = [pick.score for pick in picks]
    assert scores == sorted(scores, reverse=True)


def test_the_first_pick_where_nothing_is_labelled_has_no_nearest_image():
    first, second = quick().select(confused_pool(20), 2).picks
    assert first.reason == {"nearest": None, "classes": {}}
    assert second.reason["nearest"] == first.index


def test_one_mixture_an_image_is_a_pool_too():
    full = confused_pool(30)
    pool = Pool(
        mixtures=full.probabilities[:, None],
        present=torch.ones(30, 1, dtype=torch.bool),
        labelled=full.labelled,
    )
    assert len(quick().select(pool, 5).picks) == 5


def test_a_policy_is_trained_once_and_then_read(tmp_path):
    weights = tmp_path / "policy.safetensors"
    pool = confused_pool(60, labelled=6)
    told = []
    first = quick(weights=weights).select(pool, 9, progress=told.append)
    written = weights.read_bytes()
    trained = {0.425, 0.85}  # after each of two epochs
    assert trained < set(told)
    assert told == sorted(told)
    told.clear()
    again = quick(weights=weights).select(pool, 9, progress=told.append)
    assert not trained & set(told)
    assert told[-1] == 1
    assert again.picks == first.picks
    assert again.report["trained_epochs"] == 0
    # A pool of another size, in a later round.
    assert len(quick(weights=weights).select(confused_pool(90, seed=2), 9).picks) == 9
    assert weights.read_bytes() == written


def test_a_policy_for_other_classes_is_refused(tmp_path):
    weights = tmp_path / "policy.safetensors"
    quick(weights=weights).select(confused_pool(20, classes=6), 3)
    with pytest.raises(PolicyFileError, match=r"policy\.safetensors does not fit"):
        quick(weights=weights).select(confused_pool(20, classes=7), 3)
    with pytest.raises(PolicyFileError, match=r"policy\.safetensors does not fit"):
        quick(weights=weights, cells=9).select(confused_pool(20, classes=6), 3)


@pytest.mark.parametrize(
    ("classes", "cells", "expected"), [(99, None, 64), (100, None, 256), (100, 8, 8)]
)
def test_there_are_more_cells_for_a_hundred_classes(tmp_path, classes, cells, expected):
    from safetensors import safe_open

    weights = tmp_path / "policy.safetensors"
    pool = Pool(
        mixtures=torch.softmax(torch.randn(12, 1, classes), -1),
        present=torch.ones(12, 1, dtype=torch.bool),
        labelled=torch.zeros(12, dtype=torch.bool),
    )
    quick(cells=cells, epochs=1, episodes=1, weights=weights).select(pool, 2)
    with safe_open(weights, "pt") as file:
        assert file.get_tensor("head.weight").shape == (1, 2 * expected)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"policy": "ppo"}, "policy must be one of plackett-luce, paper, not 'ppo'"),
        ({"rewards": "cd+xx"}, "rewards .* 'xx'"),
        ({"rewards": ""}, "rewards"),
        ({"alpha": 1.5}, "alpha must be from 0 to 1, not 1.5"),
        ({"alpha": float("nan")}, "alpha"),
        ({"cells": 0}, "cells must be at least 1, not 0"),
        ({"epochs": 0}, "epochs"),
        ({"episodes": -1}, "episodes"),
        ({"window": 0}, "window"),
    ],
)
def test_impossible_options_are_refused_by_name(options, named):
    with pytest.raises(ValueError, match=named):
        CDALRL(**options)
