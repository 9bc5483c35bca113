"""Queueing, against a fake Label Studio that fails and leaves out predictions on demand.

With the real one no call can be made to fail in the middle; what it does when all goes well is in
test_loop.py.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from support.offline import (
    FakeLabelStudio,
    add_project,
    add_round,
    add_tasks,
    add_version,
    choice,
    jobs_of,
    make_services,
    make_work,
    pick_states,
)

from cdal.backend.errors import LabelStudioError
from cdal.backend.loop import predictions, queue
from cdal.backend.loop.predictions import rank_score, result_of
from cdal.backend.services import Services
from cdal.backend.store.tables import Event, Pick, Project, Round, Task

RANKING = [13, 11, 15, 12, 14, 16]
AWAY = LabelStudioError(
    "Label Studio did not answer the request to import the predictions: it cannot be reached"
)


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(tmp_path)


@pytest.fixture
def label_studio() -> FakeLabelStudio:
    fake = FakeLabelStudio()
    fake.add_tasks(sorted(RANKING))
    return fake


@pytest.fixture
def project(services: Services) -> Project:
    # What finds typical images for the first order is tested in test_due.py and test_embed.py.
    settings = {"budget": 2, "reserve": 2, "first_round": "random"}
    project = add_project(services, extra_params=settings)
    add_tasks(services, project, sorted(RANKING))
    return project


def run(services: Services, project: Project, label_studio: FakeLabelStudio) -> str:
    return queue.run(make_work(services, project, label_studio, "queue"))


def top_up(services: Services, project: Project, label_studio: FakeLabelStudio) -> str | None:
    return queue.top_up(make_work(services, project, label_studio))


def round_of(services: Services, made: Round) -> Round:
    with services.store.reading() as session:
        return session.get_one(Round, made.id)


def project_of(services: Services) -> Project:
    with services.store.reading() as session:
        return session.get_one(Project, 1)


def warnings(services: Services) -> list[str]:
    with services.store.reading() as session:
        return list(session.scalars(select(Event.text).filter_by(level="warning")))


def label(services: Services, *task_ids: int) -> None:
    with services.store.transaction() as session:
        for task_id in task_ids:
            session.get_one(Task, (1, task_id)).annotations = 1


def open_queue(services: Services, project: Project, label_studio: FakeLabelStudio) -> Round:
    """A round whose first four images are queued."""
    made = add_round(services, project, RANKING, state="queueing")
    run(services, project, label_studio)
    label_studio.calls.clear()
    return made


def test_budget_and_reserve_are_queued_in_order(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    made = add_round(services, project, RANKING, state="queueing")
    assert run(services, project, label_studio) == '4 images queued as "CDAL round 1.1"'
    assert label_studio.stream() == [13, 11, 15, 12]
    assert label_studio.calls == ["import", "serve", "show"]  # served only when all is there
    scores = [p["score"] for p in label_studio.imports[0]]
    assert scores == sorted(set(scores))
    assert all(0 <= score <= 1 for score in scores)
    assert pick_states(services, made) == {
        13: "queued", 11: "queued", 15: "queued", 12: "queued", 14: "ranked", 16: "ranked",
    }  # fmt: skip
    assert (round_of(services, made).state, round_of(services, made).queue_version) == (
        "open",
        "CDAL round 1.1",
    )
    assert (project_of(services).queue_version, project_of(services).view_id) == (
        "CDAL round 1.1",
        7,
    )


def refresh(services: Services, project: Project, ranking: list[int], **changes: Any) -> Round:
    """A new order of round 1 that waits to be queued."""
    values = {"editions": 1, "budget": 4, "labels": 0, **changes}
    return add_round(services, project, ranking, state="queueing", **values)


def test_a_refreshed_order_is_switched_to_once_it_is_complete(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    older = open_queue(services, project, label_studio)
    label(services, 13)
    refreshed = refresh(services, project, [16, 14, 12, 15, 11])
    label_studio.failures = [AWAY]
    with pytest.raises(LabelStudioError):
        run(services, project, label_studio)
    # Nobody is left without a task: the label stream follows the order before it.
    assert label_studio.info.model_version == "CDAL round 1.1"
    assert round_of(services, older).state == "open"
    assert top_up(services, project, label_studio) is None

    run(services, project, label_studio)
    assert label_studio.info.model_version == "CDAL round 1.3"  # 1.2 broke off
    assert label_studio.stream()[:3] == [16, 14, 12]
    assert round_of(services, older).state == "closed"
    assert (round_of(services, refreshed).state, round_of(services, refreshed).number) == (
        "open",
        1,
    )
    with services.store.reading() as session:
        opened = session.scalars(select(Event.text).where(Event.text.contains("is open"))).all()
    assert opened == ["Round 1 is open: 4 images queued"]


@pytest.mark.parametrize(
    ("changes", "queued"),
    [
        ({"budget": 4}, 5),  # three more labels, and the reserve
        ({"budget": 4, "train_every": 1}, 4),  # the next order comes after one label, or two
        ({"budget": 1}, 2),  # what is labelled until the training has ended
    ],
)
def test_a_refreshed_queue_lasts_until_the_next_one(
    services: Services,
    project: Project,
    label_studio: FakeLabelStudio,
    changes: dict[str, int],
    queued: int,
) -> None:
    open_queue(services, project, label_studio)
    label(services, 13)
    refresh(services, project, [16, 14, 12, 15, 11], budget=changes["budget"])
    with services.store.transaction() as session:
        settings = {"reserve": 2, "network": "resnet18", **changes}
        session.get_one(Project, project.id).extra_params = settings
    run(services, project, label_studio)
    assert len(label_studio.stream()) == queued


def test_its_predictions_are_those_of_the_newest_model(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    old = add_version(services, project, dict.fromkeys(RANKING, "cat"))
    add_round(services, project, RANKING, state="queueing", model_version_id=old.id)
    run(services, project, label_studio)
    new = add_version(services, project, dict.fromkeys(RANKING, "dog"), number=2)
    refresh(services, project, [12, 16, 14, 15, 11, 13], model_version_id=new.id)
    run(services, project, label_studio)
    version = label_studio.info.model_version
    given = [p for chunk in label_studio.imports for p in chunk if p["model_version"] == version]
    assert all(p["result"] == choice("dog") for p in given)
    assert label_studio.stream()[0] == 12
    assert "delete" not in " ".join(label_studio.calls)


def test_labels_that_came_while_a_round_was_made_are_looked_at_again(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    """Nobody's label waits for the next one: here two of them make the next training due."""
    made = add_round(services, project, RANKING, state="queueing")
    run(services, project, label_studio)
    assert ("sync", "pending") not in jobs_of(services)
    label(services, 11, 13)
    with services.store.transaction() as session:
        session.get_one(Round, made.id).state = "queueing"
    run(services, project, label_studio)
    assert jobs_of(services)[-1] == ("sync", "pending")


def test_what_has_been_labelled_meanwhile_is_not_queued(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    add_round(services, project, RANKING, state="queueing")
    label(services, 13, 15)
    run(services, project, label_studio)
    assert label_studio.stream() == [11, 12, 14, 16]


def test_the_models_guesses_go_with_them(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    version = add_version(services, project, {13: "cat"})
    add_round(services, project, RANKING, state="queueing", model_version_id=version.id)
    run(services, project, label_studio)
    assert {p["task"]: p["result"] for p in label_studio.imports[0]} == {
        13: choice("cat"), 11: [], 15: [], 12: [],
    }  # fmt: skip


def test_a_long_queue_goes_in_several_calls(
    services: Services,
    project: Project,
    label_studio: FakeLabelStudio,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue, "CHUNK", 3)
    add_round(services, project, RANKING, state="queueing")
    run(services, project, label_studio)
    assert [len(chunk) for chunk in label_studio.imports] == [3, 1]
    assert label_studio.stream() == [13, 11, 15, 12]


def test_few_predictions_for_a_large_project_are_sent_one_by_one(
    services: Services,
    project: Project,
    label_studio: FakeLabelStudio,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An import makes Label Studio count all its tasks."""
    tasks_per_pick = len(label_studio.known) / len(RANKING)
    monkeypatch.setattr(queue, "FEW", 3)
    for most, call in ((tasks_per_pick, "import one by one"), (tasks_per_pick + 1, "import")):
        monkeypatch.setattr(queue, "TASKS_PER_PREDICTION", most)
        add_round(services, project, RANKING, state="queueing")
        label_studio.calls.clear()
        run(services, project, label_studio)
        calls = [each for each in label_studio.calls if each.startswith("import")]
        assert calls == [call] * (2 if "one" in call else 1)
        assert label_studio.stream() == [13, 11, 15, 12]


def test_long_results_go_in_more_calls(
    services: Services,
    project: Project,
    label_studio: FakeLabelStudio,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue, "CHUNK_CHARACTERS", 300)
    version = add_version(services, project, {13: "cat", 11: "dog"})
    add_round(services, project, RANKING, state="queueing", model_version_id=version.id)
    run(services, project, label_studio)
    # A prediction has 75 characters around its result, and a choice 116.
    assert [len(chunk) for chunk in label_studio.imports] == [2, 2]
    assert label_studio.stream() == [13, 11, 15, 12]


def test_an_import_that_fails_in_the_middle_is_repeated_under_a_new_version(
    services: Services,
    project: Project,
    label_studio: FakeLabelStudio,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue, "CHUNK", 3)
    made = add_round(services, project, RANKING, state="queueing")
    label_studio.failures = [None, AWAY]
    with pytest.raises(LabelStudioError):
        run(services, project, label_studio)
    # Label Studio follows what it followed before, and nothing is forgotten.
    assert label_studio.info.model_version == ""
    assert round_of(services, made).state == "queueing"
    assert project_of(services).queue_version is None

    assert run(services, project, label_studio) == '4 images queued as "CDAL round 1.2"'
    assert label_studio.stream() == [13, 11, 15, 12]  # nothing of 1.1 among them, none lost
    assert set(pick_states(services, made)) == set(RANKING)
    assert sum(state == "queued" for state in pick_states(services, made).values()) == 4


@pytest.mark.parametrize("call", ["serve", "show_queue"])
def test_a_failure_after_the_import_is_made_good(
    services: Services, project: Project, label_studio: FakeLabelStudio, call: str
) -> None:
    def away(*_: object) -> None:
        raise AWAY

    made = add_round(services, project, RANKING, state="queueing")
    setattr(label_studio, call, away)
    with pytest.raises(LabelStudioError):
        run(services, project, label_studio)
    assert round_of(services, made).state == "queueing"
    delattr(label_studio, call)
    run(services, project, label_studio)
    assert label_studio.stream() == [13, 11, 15, 12]
    assert project_of(services).queue_version == label_studio.info.model_version


def test_while_a_queue_is_written_again_the_old_edition_is_still_known(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    """`/predict` finds the round by the name of the version that Label Studio follows."""
    made = open_queue(services, project, label_studio)
    with services.store.transaction() as session:
        session.get_one(Round, made.id).state = "queueing"
    label_studio.failures = [AWAY]
    with pytest.raises(LabelStudioError):
        run(services, project, label_studio)
    assert round_of(services, made).queue_version == project_of(services).queue_version
    assert project_of(services).queue_version == label_studio.info.model_version


@pytest.mark.parametrize("one_by_one", [False, True])
def test_predictions_that_were_left_out_are_queued_without_their_result(
    services: Services,
    project: Project,
    label_studio: FakeLabelStudio,
    monkeypatch: pytest.MonkeyPatch,
    one_by_one: bool,
) -> None:
    """Label Studio silently refuses a choice that the labeling config does not have, in a call of
    several; one that comes alone it would take."""

    def mistaken(*arguments: Any) -> list[Any]:
        return [
            {**r, "value": {"choices": ["wolf"]}} if r == choice("dog")[0] else r
            for r in result_of(*arguments)
        ]

    monkeypatch.setattr(predictions, "result_of", mistaken)
    if one_by_one:
        monkeypatch.setattr(queue, "TASKS_PER_PREDICTION", 0)
    version = add_version(services, project, {13: "cat", 15: "dog"})
    add_round(services, project, RANKING, state="queueing", model_version_id=version.id)
    label_studio.refuses = lambda p: "wolf" in str(p["result"])
    run(services, project, label_studio)
    assert label_studio.stream() == [13, 11, 15, 12]
    assert [[p["task"] for p in chunk] for chunk in label_studio.imports] == [[13, 11, 12], [15]]
    (warning,) = warnings(services)
    assert warning.startswith(
        "Label Studio left out 1 predictions; they are queued without a result. Task 15: "
    )
    assert "wolf" in warning


def test_what_is_left_out_without_a_reason_is_an_error(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    made = add_round(services, project, RANKING, state="queueing")
    label_studio.refuses = lambda p: p["task"] == 11
    with pytest.raises(LabelStudioError, match=r"took 3 of 4 predictions and did not say why\."):
        run(services, project, label_studio)
    assert round_of(services, made).state == "queueing"
    assert label_studio.info.model_version == ""


def test_a_deleted_task_is_forgotten_and_the_next_attempt_succeeds(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    add_round(services, project, RANKING, state="queueing")
    del label_studio.known[11]
    with pytest.raises(LabelStudioError) as caught:
        run(services, project, label_studio)
    assert caught.value.status == 400
    with services.store.reading() as session:
        assert session.get(Task, (1, 11)) is None
        assert session.get(Task, (1, 13)) is not None
    run(services, project, label_studio)
    assert label_studio.stream() == [13, 15, 12, 14]


def test_nothing_to_queue_ends_the_round(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    made = add_round(services, project, RANKING, state="queueing")
    label(services, *RANKING)
    assert run(services, project, label_studio) == "every image that can be used is labelled"
    assert round_of(services, made).state == "closed"
    assert label_studio.calls == []


def test_without_a_round_there_is_nothing_to_do(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    assert run(services, project, label_studio) == "no round waits to be queued"


def test_a_queue_that_runs_low_is_topped_up_in_order(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    made = open_queue(services, project, label_studio)
    assert top_up(services, project, label_studio) is None  # four are left, and two are enough
    label(services, 13, 11, 15)
    assert top_up(services, project, label_studio) == "2 more images queued"
    assert label_studio.stream() == RANKING
    assert label_studio.calls == ["import"]  # the same queue version
    assert set(pick_states(services, made).values()) == {"queued"}
    scores = [p["score"] for chunk in label_studio.imports for p in chunk]
    assert scores == sorted(set(scores))
    assert scores[-1] <= 1
    assert top_up(services, project, label_studio) is None


def test_a_top_up_passes_over_what_is_labelled(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    open_queue(services, project, label_studio)
    label(services, 13, 11, 15, 14)
    top_up(services, project, label_studio)
    assert label_studio.stream() == [13, 11, 15, 12, 16]


def test_what_somebody_skipped_stays_for_others_and_is_made_up_for(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    made = add_round(services, project, RANKING, queued=3, queue_version="CDAL round 1.1")
    with services.store.transaction() as session:
        for task_id in (13, 11, 12):
            session.get_one(Task, (1, task_id)).skips = 1
    assert top_up(services, project, label_studio) == "3 more images queued"
    assert [p["task"] for p in label_studio.imports[0]] == [12, 14, 16]
    assert set(pick_states(services, made).values()) == {"queued"}


def test_a_queue_that_is_written_again_keeps_what_somebody_skipped(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    add_round(services, project, RANKING, state="queueing")
    with services.store.transaction() as session:
        session.get_one(Task, (1, 11)).skips = 1
    assert run(services, project, label_studio).startswith("5 images queued")
    assert label_studio.stream() == RANKING[:5]


@pytest.mark.parametrize("arrived", [False, True])
def test_an_interrupted_top_up_writes_the_whole_queue_again(
    services: Services, project: Project, label_studio: FakeLabelStudio, arrived: bool
) -> None:
    """After a kill that follows the marking of the picks, nobody knows if Label Studio got them."""
    made = open_queue(services, project, label_studio)
    label(services, 13, 11, 15)
    with services.store.transaction() as session:
        for pick in session.scalars(select(Pick).where(Pick.task_id.in_([14, 16]))):
            pick.state = "sending"
    if arrived:
        label_studio.import_predictions(
            [{"task": t, "score": 0.8, "model_version": "CDAL round 1.1"} for t in (14, 16)]
        )
    assert top_up(services, project, label_studio) == "the queue is written again"
    assert jobs_of(services)[-1] == ("queue", "pending")
    assert label_studio.info.model_version == "CDAL round 1.1"  # followed until the new one is

    assert run(services, project, label_studio) == '3 images queued as "CDAL round 1.2"'
    assert label_studio.stream() == [12, 14, 16]
    assert round_of(services, made).state == "open"
    assert round_of(services, made).queue_version == "CDAL round 1.2"


def test_an_interrupted_top_up_of_the_first_rank_is_noticed(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    """Rank 0 can be queued late, when its annotation is deleted after the queue was written."""
    open_queue(services, project, label_studio)
    with services.store.transaction() as session:
        session.scalars(select(Pick).filter_by(rank=0)).one().state = "sending"
    assert top_up(services, project, label_studio) == "the queue is written again"


@pytest.mark.parametrize("state", ["scoring", "selecting"])
def test_while_the_next_round_is_being_made_the_open_one_is_topped_up(
    services: Services, project: Project, label_studio: FakeLabelStudio, state: str
) -> None:
    """Scoring a large pool takes long, and nobody should be served at random meanwhile."""
    open_queue(services, project, label_studio)
    add_round(services, project, RANKING, state=state, number=2)
    label(services, 13, 11, 15)
    assert top_up(services, project, label_studio) == "2 more images queued"
    assert label_studio.stream() == RANKING
    label(services, 12, 14, 16)
    add_tasks(services, project, [20])
    assert top_up(services, project, label_studio) is None  # the next round has it
    assert {state for _, state in jobs_of(services)} == {"running"}  # no other is requested


def test_what_somebody_has_opened_is_not_predicted_twice(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    """Opening a task in the Data Manager makes Label Studio request its prediction and keep it."""
    open_queue(services, project, label_studio)
    label(services, 13, 11, 15)
    opened = {"task": 14, "result": [], "model_version": "CDAL round 1.1"}
    label_studio.imports.append([{**opened, "score": rank_score(4, 6)}])
    top_up(services, project, label_studio)
    assert Counter(label_studio.stream()).most_common(1)[0][1] == 1
    assert label_studio.stream() == RANKING
    with services.store.reading() as session:
        assert set(session.scalars(select(Pick.state))) == {"queued"}


def test_a_name_that_was_used_before_a_restore_is_not_used_again(
    services: Services, project: Project, label_studio: FakeLabelStudio
) -> None:
    made = add_round(services, project, RANKING, state="queueing")
    used = {"task": 13, "result": [], "score": 0.9, "model_version": "CDAL round 1.1"}
    label_studio.imports = [[used]]
    run(services, project, label_studio)
    assert round_of(services, made).queue_version == "CDAL round 1.2"
    assert label_studio.stream() == RANKING[:4]
