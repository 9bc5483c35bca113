from __future__ import annotations

import json
import math
import threading
import time
from typing import Any

import pytest
import torch
from support.colours import Colours, small_network

from cdal.models import (
    ClassificationNetwork,
    FitProgress,
    FitReport,
    Metrics,
    ModelError,
    Recipe,
    Stopped,
    fit,
)
from cdal.models.training import batch_order

QUICK = Recipe(epochs=3, batch_size=8)


def train(network: ClassificationNetwork, **settings: Any) -> FitReport:
    return fit(network, Colours([0, 1, 2] * 8), Colours([0, 1, 2] * 2, seed=1), Recipe(**settings))


def test_learns(trained: tuple[ClassificationNetwork, FitReport]) -> None:
    network, report = trained
    assert report.metrics is not None
    assert report.metrics.main >= 0.9
    assert report.losses[-1] < report.losses[0]
    assert network.evaluate(Colours([0, 1, 2] * 4, seed=2)).main >= 0.9


def test_the_report() -> None:
    report = train(small_network(), epochs=3, batch_size=8)
    assert (report.images, report.held_out_images) == (24, 6)
    assert report.plan.epochs == len(report.losses) == len(report.held_out) == 3
    assert report.plan.steps == 9
    assert report.seconds > 0
    assert json.loads(json.dumps(report.to_dict()))["plan"]["batch_size"] == 8


def test_metrics_are_those_of_the_trained_network() -> None:
    network, held_out = small_network(), Colours([0, 1, 2] * 2, seed=1)
    report = fit(network, Colours([0, 1, 2] * 8), held_out, QUICK)
    assert report.metrics == network.evaluate(held_out)


def test_the_same_seed_gives_the_same_network() -> None:
    before = torch.get_rng_state()
    threads = torch.get_num_threads()
    networks = [small_network() for _ in range(3)]
    reports = [train(n, epochs=2, seed=seed) for n, seed in zip(networks, (4, 4, 5), strict=True)]
    states = [network.module.state_dict() for network in networks]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert reports[0].losses == reports[1].losses
    assert reports[0].losses != reports[2].losses
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


class Scripted:
    """Returns given metrics, and records the weights at each measurement."""

    def __init__(self, network: ClassificationNetwork, values: list[float]) -> None:
        self._network = network
        self._values = iter(values)
        self.heads: list[torch.Tensor] = []

    def __call__(self, *_: object) -> Metrics:
        self.heads.append(self._network.module.head.weight.detach().clone())
        return Metrics("accuracy", {"accuracy": next(self._values)}, {}, (), 1)


def test_keeps_the_last_epoch_even_if_an_earlier_one_measured_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = small_network()
    scripted = Scripted(network, [0.1, 0.9, 0.3, 0.2])
    monkeypatch.setattr(network, "evaluate", scripted)
    report = train(network, epochs=4)
    assert report.held_out == (0.1, 0.9, 0.3, 0.2)
    assert report.metrics is not None
    assert report.metrics.main == 0.2
    assert torch.equal(network.module.head.weight, scripted.heads[-1])


@pytest.mark.parametrize("held_out", [None, Colours([])])
def test_without_held_out_images_nothing_is_measured(held_out: Colours | None) -> None:
    report = fit(small_network(), Colours([0, 1, 2] * 4), held_out, QUICK)
    assert len(report.losses) == 3
    assert report.metrics is None
    assert report.held_out == ()


@pytest.mark.parametrize("count", [1, 2, 9])
def test_any_number_of_images_trains(count: int) -> None:
    report = fit(small_network(), Colours([0] * count), None, QUICK)
    assert report.images == count


def test_a_batch_may_be_one_image() -> None:
    report = train(small_network(), epochs=1, batch_size=1)
    assert report.plan.batch_size == 1
    assert math.isfinite(report.losses[-1])


def test_no_images() -> None:
    with pytest.raises(ModelError, match="no labelled images to learn from"):
        fit(small_network(), Colours([]), None, QUICK)


def test_an_unknown_class() -> None:
    with pytest.raises(ModelError, match="class index 3"):
        fit(small_network(), Colours([0, 3]), None, QUICK)


def test_a_loss_that_is_not_finite() -> None:
    network = small_network()
    with torch.no_grad():
        network.module.head.weight.fill_(float("inf"))
    with pytest.raises(ModelError, match="in epoch 1"):
        fit(network, Colours([0, 1]), None, QUICK)


def test_stops_at_the_next_step() -> None:
    network = small_network()
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls > 24 + 6 + 2  # the images are read, two steps are taken

    with pytest.raises(Stopped):
        fit(network, Colours([0, 1, 2] * 8), Colours([0, 1, 2] * 2), QUICK, stop=stop)
    assert calls == 33
    assert not network.module.training


@pytest.mark.slow
def test_trains_in_a_thread_while_another_network_predicts() -> None:
    trained, serving = small_network(), small_network(seed=1)
    batch = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    wanted = serving.predict(batch).probabilities
    thread = threading.Thread(target=train, args=(trained,), kwargs={"epochs": 6})
    thread.start()
    while thread.is_alive():
        assert torch.equal(serving.predict(batch).probabilities, wanted)
    thread.join()


def test_reports_progress_after_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)  # on a slow machine there are more reports
    reports: list[FitProgress] = []
    fit(small_network(), Colours([0, 1, 2] * 4), Colours([0]), QUICK, progress=reports.append)
    ends = [p for p in reports if p.metric is not None or p.loss is not None]
    assert [p.epoch for p in ends] == [1, 2, 3]
    assert ends[-1].share == pytest.approx(1.0)
    shares = [p.share for p in reports]
    assert shares == sorted(shares)
    assert all(p.epochs == 3 for p in reports)


def test_reports_progress_every_second_while_images_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    reports: list[FitProgress] = []
    fit(small_network(), Colours([0, 1]), None, Recipe(epochs=1), progress=reports.append)
    assert [p.epoch for p in reports[:2]] == [0, 0]
    assert [p.share for p in reports[:2]] == pytest.approx([0.05, 0.1])


def test_batches_have_nearly_equal_sizes() -> None:
    order = batch_order(33, 2, torch.Generator().manual_seed(0))
    assert [len(indices) for indices in order] == [17, 16]
    assert sorted(torch.cat(order).tolist()) == list(range(33))


@pytest.mark.parametrize(
    ("images", "batch_size", "sizes"), [(3, 2, [3]), (5, 2, [3, 2]), (3, 1, [1, 1, 1])]
)
def test_no_batch_has_one_image_unless_requested(
    images: int, batch_size: int, sizes: list[int]
) -> None:
    plan = Recipe(batch_size=batch_size).plan(
        images, torch.device("cpu"), 32, False, ClassificationNetwork.defaults
    )
    order = batch_order(images, plan.steps_per_epoch, torch.Generator().manual_seed(0))
    assert [len(indices) for indices in order] == sizes


def test_prepared_images_are_not_prepared_again() -> None:
    network = small_network()
    images = network.read(Colours([0, 1, 2]), lambda: False)
    assert network.read(images, lambda: False) is images


def test_a_single_image_is_used_twice() -> None:
    assert [indices.tolist() for indices in batch_order(1, 1, torch.Generator())] == [[0, 0]]
