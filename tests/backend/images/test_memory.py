"""The limit on the memory of all decoded images together."""

from __future__ import annotations

from contextlib import ExitStack
from threading import Event, Thread

import pytest

from cdal.backend.images.memory import Memory

PATIENCE_S = 60.0


def holding(memory: Memory, wanted: int | None) -> tuple[Event, Event]:
    """A thread that takes this much; one event says when it has, the other lets it end."""
    has, release = Event(), Event()

    def hold() -> None:
        with memory.taking(wanted):
            has.set()
            release.wait(PATIENCE_S)

    Thread(target=hold, daemon=True).start()
    return has, release


def test_what_fits_proceeds_and_the_rest_waits_for_room() -> None:
    memory = Memory(100)
    with memory.taking(60), memory.taking(40):
        has, release = holding(memory, 1)
        assert not has.wait(0.05)
    assert has.wait(PATIENCE_S)
    release.set()


def test_what_exceeds_the_limit_proceeds_alone() -> None:
    memory = Memory(100)
    for wanted in (1000, None):
        with ExitStack() as others:
            others.enter_context(memory.taking(1))
            has, release = holding(memory, wanted)
            assert not has.wait(0.05)
        assert has.wait(PATIENCE_S)
        small, small_release = holding(memory, 1)
        assert not small.wait(0.05)
        release.set()
        assert small.wait(PATIENCE_S)
        small_release.set()


def test_small_ones_do_not_overtake_a_large_one_for_ever() -> None:
    memory = Memory(100)
    with ExitStack() as others:
        others.enter_context(memory.taking(60))
        large, large_release = holding(memory, 100)
        while not memory._turn.locked():  # until it waits
            pass
        small, small_release = holding(memory, 1)
        assert not small.wait(0.05)
    assert large.wait(PATIENCE_S)
    large_release.set()
    assert small.wait(PATIENCE_S)
    small_release.set()


def test_room_is_given_back_after_an_error() -> None:
    memory = Memory(100)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), memory.taking(100):
            raise ZeroDivisionError
    with memory.taking(100):
        pass
