"""Sync: read what changed in Label Studio, and begin what is due."""

from __future__ import annotations

from sqlalchemy.orm import Session

from cdal.backend.jobs.gathering import POLL
from cdal.backend.loop import prune, recheck, second_look
from cdal.backend.loop.changes import is_reading_all, read_changes
from cdal.backend.loop.connection import is_connected
from cdal.backend.loop.context import Context
from cdal.backend.loop.due import Decision, Facts, decide, labels_missing, read_facts
from cdal.backend.loop.queue import top_up
from cdal.backend.loop.rounds import begin_round, open_round
from cdal.backend.store.queries import count_labelled, forget_changes
from cdal.backend.store.tables import Project, now


def run(work: Context) -> str:
    """Read the changes, begin the training and the round that are due, and top up the queue."""
    begun = now()
    read = read_changes(work)
    if not is_connected(work):
        return "Label Studio lists no ML backend for the project"
    if is_reading_all(work):
        return _with_a_part(work, read)
    with work.services.store.transaction() as session:
        _forget_deleted_labels(work, session)
        decisions = _do_what_is_due(work, session)
        session.get_one(Project, work.project.id).looked_at = begun
        if work.job.asked_by == POLL:
            recheck.request_if_due(work, session)
            prune.request_if_due(work, session)
    if read:
        second_look.show(work)
    topped_up = top_up(work)
    if topped_up is not None:
        decisions.append(topped_up)
    return f"{read} tasks read; {', '.join(decisions) or 'nothing to do'}"


def _with_a_part(work: Context, read: int) -> str:
    """Let people label what is known of a large project, and go on reading it."""
    begun = ""
    with work.services.store.transaction() as session:
        facts = read_facts(session, work.project.id, work.settings)
        if (
            facts.open is None
            and facts.unfinished is None
            and facts.waiting
            and not (facts.paused or facts.round_just_failed)
        ):
            begin_round(session, work.services.jobs, work.project.id)
            begun = "; a round is due with these"
        work.request(session, "sync", "more tasks to read")
    top_up(work)
    return f"{read} tasks read, more are to come{begun}"


def _forget_deleted_labels(work: Context, session: Session) -> None:
    """Count from fewer labels when some were deleted: new ones must not have to replace them."""
    labelled = count_labelled(session, work.project.id)
    project = session.get_one(Project, work.project.id)
    project.training_labels = min(project.training_labels, labelled)
    current = open_round(session, project)
    if current is not None:
        current.labels = min(current.labels, labelled)
        if current.training_asked is not None:
            current.training_asked = min(current.training_asked, labelled)


def _do_what_is_due(work: Context, session: Session) -> list[str]:
    """Begin what is due, and say what that is, or else why nothing is."""
    texts: list[str] = []
    project = session.get_one(Project, work.project.id)
    project.labels_missing = 1
    for _ in range(2):  # at most a training, and a round for people to label meanwhile
        facts = read_facts(session, work.project.id, work.settings)
        decision = decide(facts)
        if decision.text is not None and (decision.step is not None or not texts):
            texts.append(decision.text)
        if decision.step is None:
            project.labels_missing = labels_missing(facts)
            break
        _take_step(work, session, decision, facts)
    return texts


def _take_step(work: Context, session: Session, decision: Decision, facts: Facts) -> None:
    project = session.get_one(Project, work.project.id)
    if decision.step == "begin a round":
        begin_round(session, work.services.jobs, project.id)
    elif decision.step == "resume the round" and facts.unfinished is not None:
        work.request(session, facts.unfinished.next_job, decision.why)
    elif decision.step == "train":
        # Noted before the training begins: one that fails is not requested again and again.
        current = open_round(session, project)
        if current is None:
            project.training_labels = facts.labelled
        else:
            current.training_asked = facts.labelled
        forget_changes(session, project.id)
        work.request(session, "train", decision.why)
