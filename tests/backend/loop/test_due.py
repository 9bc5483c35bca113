"""What is due: the table of rules, and the facts that it goes by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.offline import (
    add_failure,
    add_project,
    add_round,
    add_tasks,
    add_version,
    make_services,
)

from cdal.backend.loop.due import (
    RULES,
    Facts,
    Step,
    UnfinishedRound,
    decide,
    labels_missing,
    read_facts,
    rule_for,
)
from cdal.backend.loop.rounds import OpenRound
from cdal.backend.services import Services
from cdal.backend.settings import ProjectSettings
from cdal.backend.store.tables import IGNORE_SKIPPED, Project, Round, Submission, Task, now

# The table.

NEW = Facts(budget=10, min_labels=5, has_tasks=True, waiting=True)
"""A project in which nobody has labelled yet."""

EXHAUSTED = Facts(budget=10, min_labels=5, has_tasks=True, labelled=100, learnt=90, serving=True)

OPEN = replace(NEW, serving=True, waiting=True, labelled=20, learnt=20, open=OpenRound(3, 10, 20))
"""Round 3 is open; it began at 20 labels and asks for 10."""

COLD = replace(NEW, open=OpenRound(1, 10), waits_for_typical=True)
"""The first order is random, and typical images are wanted."""

MAKING = UnfinishedRound(4, "score", has_job=False)


def opened(labelled: int = 20, learnt: int = 20, **changes: Any) -> Facts:
    """A project with an open round of this kind."""
    outside = {name: changes.pop(name) for name in set(changes) & set(Facts.__slots__)}
    assert OPEN.open is not None
    current = replace(OPEN.open, **changes)
    return replace(OPEN, labelled=labelled, learnt=learnt, open=current, **outside)


CASES: list[tuple[Facts, Step | None, str | None]] = [
    # A training ended without a new model.
    (replace(NEW, without_model=True), "begin a round", "without a new model"),
    (opened(30, learnt=30, without_model=True), "begin a round", "without a new model"),
    (
        opened(30, learnt=30, training_asked=30, without_model=True),
        "begin a round",
        "without a new model",
    ),
    (opened(29, learnt=29, without_model=True), None, None),
    # The label that finished the round came after the training had begun.
    (opened(30, learnt=29, without_model=True), None, None),
    (replace(NEW, unfinished=MAKING, without_model=True), None, None),
    (replace(NEW, paused=True, without_model=True), "begin a round", "without a new model"),
    # Paused.
    (replace(NEW, paused=True), None, "the project is paused"),
    (opened(30, paused=True), None, "the project is paused"),
    (replace(NEW, paused=True, unfinished=MAKING), None, "the project is paused"),
    # A round is being made.
    (replace(NEW, unfinished=replace(MAKING, has_job=True)), None, None),
    (replace(NEW, unfinished=MAKING, round_just_failed=True), None, None),
    (replace(NEW, unfinished=MAKING), "resume the round", "round 4 goes on"),
    (opened(30, unfinished=MAKING), "resume the round", "round 4 goes on"),
    # No round is open.
    (replace(NEW, has_tasks=False, waiting=False), None, "the project has no tasks yet"),
    (NEW, "begin a round", "a round is due"),
    (replace(NEW, labelled=4), "begin a round", "a round is due"),
    (replace(NEW, labelled=5), "train", "a training is due"),
    (replace(NEW, labelled=5, learnt=5), "begin a round", "a round is due"),
    (replace(NEW, labelled=5, learnt=5, training=True), None, "a training is under way"),
    (replace(NEW, round_just_failed=True), None, "tried again in a few minutes"),
    (replace(NEW, labelled=5, round_just_failed=True), "train", "a training is due"),
    (replace(NEW, labelled=50, serving=True), "begin a round", "a round is due"),
    (EXHAUSTED, "train", "a training is due"),
    (replace(EXHAUSTED, learnt=100), None, "every image that can be used is labelled"),
    (replace(EXHAUSTED, labelled=4, learnt=0), None, "every image that can be used is labelled"),
    (
        replace(EXHAUSTED, learnt=96, label_just_came=True),
        None,
        "every image that can be used is labelled",
    ),
    (replace(EXHAUSTED, learnt=95, label_just_came=True), "train", "a training is due"),
    (replace(EXHAUSTED, learnt=96), "train", "a training is due"),
    # A round is open: its budget.
    (opened(), None, None),
    (opened(29), None, None),
    (opened(30), "train", "10 new labels, a training is due"),
    (opened(30, label_just_came=True), "train", "10 new labels, a training is due"),
    (opened(30, training=True), None, None),
    (opened(25, settled=5), "train", "5 new labels, a training is due"),
    (opened(25, settled=4), None, None),
    # A training that failed is requested again only when as many more are labelled.
    (opened(39, training_asked=30), None, None),
    (opened(39, training_asked=30, settled=9), None, None),
    (opened(40, training_asked=30), "train", "10 new labels, a training is due"),
    # None of its images is left.
    (opened(20, left=0), None, None),
    (opened(22, left=0), "train", "2 new labels, a training is due"),
    (opened(201, learnt=200, labels=200, left=0), "train", "1 new labels, a training is due"),
    (opened(201, learnt=200, labels=200, left=0, label_just_came=True), None, None),
    (opened(32, training_asked=30, left=0), None, None),
    # The setting train_every.
    (opened(22, train_every=3), None, None),
    (opened(23, train_every=3), "train", "3 new labels, a training is due"),
    (opened(23, train_every=3, min_labels=24), None, None),
    (opened(32, training_asked=30, train_every=3), None, None),
    (opened(33, training_asked=30, train_every=3), "train", "3 new labels, a training is due"),
    (opened(30, min_labels=40), "train", "10 new labels, a training is due"),
    # Labels that were changed count like new ones, but no round ends because of them.
    (opened(changed=9), None, None),
    (opened(changed=10), "train", "10 new or changed labels, a training is due"),
    (opened(25, changed=5), "train", "10 new or changed labels, a training is due"),
    (opened(changed=10, training=True), None, None),
    (opened(35, training_asked=30, changed=5), "train", "10 new or changed labels"),
    (opened(changed=3, train_every=3), "train", "3 new or changed labels"),
    (opened(30, training_asked=30, changed=1, waiting=False), "train", "1 new or changed labels"),
    (opened(100, learnt=100, labels=100, left=0, changed=4, label_just_came=True), None, None),
    (replace(EXHAUSTED, learnt=100, changed=45), "train", "a training is due"),
    (
        replace(EXHAUSTED, learnt=100, changed=4, label_just_came=True),
        None,
        "every image that can be used is labelled",
    ),
    (replace(EXHAUSTED, learnt=100, changed=1), "train", "a training is due"),
    # Labels that came during a training count for the next one.
    (opened(25, learnt=22, train_every=3), "train", "3 new labels, a training is due"),
    (opened(24, learnt=22, train_every=3), None, None),
    (opened(29, learnt=22, train_every=3, training=True), None, None),
    (opened(45, labels=40, learnt=37, train_every=8), "train", "8 new labels, a training is due"),
    # The round's last labels are learnt, however few came since the last training within it.
    (opened(30, learnt=28, training_asked=28, train_every=4), "train", "2 new labels"),
    (opened(24, learnt=22, training_asked=22, train_every=4, left=0), "train", "2 new labels"),
    (opened(24, learnt=24, training_asked=22, train_every=4, left=0), None, None),
    # Images that the open round has not ranked.
    (opened(unranked=1), "begin a round", "had not ranked"),
    (opened(unranked=1, training=True), "begin a round", "had not ranked"),
    (opened(30, unranked=1), "train", "10 new labels, a training is due"),
    (opened(unranked=1, round_just_failed=True), None, "tried again in a few minutes"),
    (opened(unranked=1, unfinished=replace(MAKING, has_job=True)), None, None),
    # The open round is in random order until typical images are found.
    (COLD, "begin a round", "typical images"),
    (replace(COLD, round_just_failed=True), None, "tried again in a few minutes"),
    (replace(COLD, unfinished=replace(MAKING, has_job=True)), None, None),
    (replace(COLD, labelled=5, learnt=5), None, None),
    (replace(COLD, labelled=5, train_every=3), "train", "5 new labels, a training is due"),
    (replace(COLD, labelled=3, training=True), None, None),
    (replace(COLD, labelled=3, serving=True), None, None),
]


@pytest.mark.parametrize(("facts", "step", "text"), CASES)
def test_what_is_due(facts: Facts, step: Step | None, text: str | None) -> None:
    decision = decide(facts)
    assert decision.step == step
    if text is None:
        assert decision.text is None
    else:
        assert decision.text is not None
        assert text in decision.text


def test_every_rule_has_a_case() -> None:
    assert {id(rule_for(facts)) for facts, _, _ in CASES} == set(map(id, RULES))


def test_a_step_says_why_it_is_taken() -> None:
    assert decide(opened(30)).why == "10 new labels in round 3"
    assert decide(replace(NEW, labelled=5)).why == "5 labels and no round to label"
    assert decide(replace(NEW, unfinished=MAKING)).why == "round 4, which had stopped here"


@pytest.mark.parametrize(
    ("facts", "missing"),
    [
        (opened(23, left=40), 7),
        (opened(29, left=40), 1),
        (opened(23, left=40, changed=2), 5),
        (opened(23, left=40, train_every=5), 2),
        (opened(learnt=20, left=40, changed=8), 2),
        (opened(23, left=4), 4),  # its images are used up before
        (replace(OPEN, open=OpenRound(3, 300, 20, left=400)), None),
        (opened(30, left=40, training=True), None),
        (opened(30, left=40, paused=True), None),
        (replace(NEW, labelled=3, open=OpenRound(1, 10, left=40)), 7),
    ],
)
def test_so_many_labels_are_missing_for_what_is_due_next(facts: Facts, missing: int | None) -> None:
    assert labels_missing(facts) == missing
    assert decide(facts).step is None


# The facts.

SETTINGS = ProjectSettings(budget=2, reserve=2, min_labels=3, train_every=7)


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(tmp_path)


@pytest.fixture
def project(services: Services) -> Project:
    return add_project(services)


@pytest.fixture
def ranked(services: Services, project: Project) -> Round:
    """Budget 2; tasks 1 to 4 are queued, 5 is ranked, and one was labelled before it began."""
    add_tasks(services, project, [1, 2, 3, 4, 5])
    add_tasks(services, project, [6], annotations=1)
    return add_round(services, project, [3, 1, 4, 2, 5], queued=4, labels=1)


def facts_of(services: Services, without_model: bool = False) -> Facts:
    with services.store.reading() as session:
        return read_facts(session, 1, SETTINGS, without_model)


def change(services: Services, task_id: int, **changes: int) -> None:
    with services.store.transaction() as session:
        for name, value in changes.items():
            setattr(session.get_one(Task, (1, task_id)), name, value)


def delete(services: Services, task_id: int) -> None:
    with services.store.transaction() as session:
        session.delete(session.get_one(Task, (1, task_id)))


@pytest.mark.usefixtures("project")
def test_of_a_new_project(services: Services) -> None:
    assert facts_of(services) == Facts(budget=2, min_labels=3, train_every=7)
    assert facts_of(services, without_model=True).without_model


def test_of_a_project_at_work(services: Services, project: Project) -> None:
    version = add_version(services, project)
    add_tasks(services, project, [1, 2, 3])
    add_tasks(services, project, [4], annotations=2)
    add_tasks(services, project, [5], skips=1)
    add_tasks(services, project, [6], image_problem="It is gone.")
    add_round(services, project, [1, 2], queued=1, number=7, budget=9, training_asked=1)
    add_round(services, project, [], state="scoring", number=8, model_version_id=version.id)
    services.jobs.ask(project.id, "train", "test")
    services.jobs.ask(project.id, "score", "test")
    with services.store.transaction() as session:
        session.get_one(Project, project.id).training_labels = 1
        session.get_one(Project, project.id).paused_at = now()
        came = {"annotators": [1], "seconds": 2.0, "labelled_at": now()}
        session.add(Submission(project_id=project.id, task_id=4, **came))
    assert facts_of(services) == Facts(
        budget=2,
        min_labels=3,
        train_every=7,
        paused=True,
        has_tasks=True,
        waiting=True,  # others are served what one has skipped
        labelled=1,
        learnt=1,
        label_just_came=True,
        serving=True,
        training=True,
        open=OpenRound(7, 9, training_asked=1, left=2),
        unfinished=UnfinishedRound(8, "score", has_job=True),
    )


def test_a_round_that_failed_just_now(services: Services, project: Project) -> None:
    add_round(services, project, [], state="queueing")
    job = services.jobs.ask(project.id, "queue", "test")
    assert not facts_of(services).round_just_failed
    add_failure(services, job, "Label Studio was away.")
    assert facts_of(services).round_just_failed
    assert facts_of(services).unfinished == UnfinishedRound(1, "queue", has_job=False)
    services.jobs.ask(project.id, "queue", "test")
    assert not facts_of(services).round_just_failed


def has_budget(services: Services) -> bool:
    facts = facts_of(services)
    return facts.open is not None and facts.open.has_budget(facts.labelled)


def is_finished(services: Services) -> bool:
    facts = facts_of(services)
    return facts.open is not None and facts.open.is_finished(facts.labelled)


@pytest.mark.usefixtures("ranked")
def test_a_round_has_its_budget_when_so_many_are_labelled(services: Services) -> None:
    change(services, 3, annotations=1)
    assert not has_budget(services)
    change(services, 1, annotations=1)
    assert has_budget(services)


def ignore_skipped(services: Services) -> None:
    """Let a skip end the task, as Label Studio's setting IGNORE_SKIPPED does."""
    with services.store.transaction() as session:
        session.get_one(Project, 1).skip_queue = IGNORE_SKIPPED


@pytest.mark.usefixtures("ranked")
def test_deleted_images_and_those_that_a_skip_ended_count_as_settled(services: Services) -> None:
    change(services, 3, skips=1)
    delete(services, 1)
    assert not has_budget(services)
    ignore_skipped(services)
    assert has_budget(services)


@pytest.mark.usefixtures("ranked")
def test_one_person_who_skips_everything_settles_nothing_for_others(services: Services) -> None:
    for task_id in range(1, 6):
        change(services, task_id, skips=1)
    assert facts_of(services).waiting is True
    assert (has_budget(services), is_finished(services)) == (False, False)


@pytest.mark.usefixtures("ranked")
def test_a_round_is_finished_when_all_but_skipped_images_are_labelled(services: Services) -> None:
    """Whoever skipped them is not served them again, and may be the only one who labels."""
    for task_id in (2, 4, 5, 1):
        change(services, task_id, skips=1)
    assert not is_finished(services)
    change(services, 3, annotations=1)
    assert is_finished(services)
    assert not has_budget(services)


@pytest.mark.usefixtures("ranked")
def test_an_image_that_one_skipped_and_another_labelled_counts_once(services: Services) -> None:
    change(services, 3, skips=1, annotations=1)
    assert not has_budget(services)


def test_a_round_is_finished_when_nothing_is_left_of_it(
    services: Services, project: Project
) -> None:
    add_tasks(services, project, [1])
    add_round(services, project, [1], queued=1, budget=50)
    assert not is_finished(services)
    change(services, 1, annotations=1)
    assert is_finished(services)
    assert not has_budget(services)


def unranked(services: Services) -> int:
    return facts_of(services).unranked


def test_images_that_were_not_ranked_count_once_the_ranking_is_used_up(
    services: Services, project: Project, ranked: Round
) -> None:
    add_tasks(services, project, [7, 8])
    add_tasks(services, project, [9], skips=1)
    add_tasks(services, project, [10], image_problem="It is gone.")
    for task_id in (3, 1, 4):  # 2 is queued, 5 is ranked
        change(services, task_id, annotations=1)
    assert unranked(services) == 0
    change(services, 5, annotations=1)  # 2 is all that is left, less than the reserve
    assert unranked(services) == 2
