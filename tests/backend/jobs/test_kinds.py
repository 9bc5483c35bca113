"""The table of job kinds."""

from __future__ import annotations

from typing import get_args

from cdal.backend.jobs.kinds import KINDS, STEPS, JobKind
from cdal.backend.loop.rounds import MADE_BY
from cdal.backend.loop.runner import HANDLERS


def test_every_kind_is_described_and_has_something_that_does_it() -> None:
    assert set(KINDS) == set(get_args(JobKind)) == set(HANDLERS)


def test_the_steps_are_a_training_and_those_that_make_a_round() -> None:
    assert list(STEPS) == ["train", *MADE_BY.values()]


def test_no_two_kinds_are_called_the_same() -> None:
    assert len({kind.name for kind in KINDS.values()}) == len(KINDS)


def test_the_pages_offer_to_cancel_what_is_neither_looked_at_nor_done_by_the_minute() -> None:
    long = {kind for kind, known in KINDS.items() if known.is_long}
    assert long == {*STEPS, "savings", "full_training", "prune"}
