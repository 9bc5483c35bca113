from __future__ import annotations

import pytest
import torch

from cdal.benchmark import stopwatch
from cdal.benchmark.stopwatch import Stopwatch


def test_what_is_in_no_part_is_other(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 50.0

        def perf_counter(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(stopwatch, "time", clock)
    watch = Stopwatch(torch.device("cpu"))
    clock.now += 1
    for seconds in (2, 3):
        with watch.part("train"):
            clock.now += seconds
    with watch.part("score"):
        clock.now += 4
    clock.now += 0.5
    assert watch.seconds("train", "evaluate") == {"train": 5, "evaluate": 0, "other": 1.5}
