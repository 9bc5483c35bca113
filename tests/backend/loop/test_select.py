from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import select
from support.offline import (
    FakeLabelStudio,
    add_round,
    add_tasks,
    add_version,
    make_services,
    make_work,
)
from support.pooled import add_scores, pooled_project

from cdal.backend.loop import select as selecting
from cdal.backend.loop.opinions import with_opinions
from cdal.backend.loop.policy import policy_file, select_by_policy
from cdal.backend.loop.select import candidates_of, parts_of
from cdal.backend.services import Services
from cdal.backend.store.tables import Pick, Round, Task
from cdal.selectors import Pool, PoolError
from cdal.selectors.synthetic import confused_pool


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(tmp_path)


@pytest.mark.parametrize(
    ("ranked", "wanted", "parts"),
    [
        (1000, 100, [10, 10, 20, 40, 20, 900]),
        (100, 100, [10, 10, 20, 40, 20]),
        (25, 100, [10, 10, 5]),
        (30, 10, [10, 20]),
        (3, 10, [3]),
        (0, 10, []),
    ],
)
def test_each_part_of_a_typical_order_is_as_long_as_all_before_it(
    ranked: int, wanted: int, parts: list[int]
) -> None:
    assert parts_of(ranked, wanted) == parts


@pytest.mark.parametrize(
    ("selector", "options", "reason"),
    [
        ("random", {}, set()),
        ("entropy", {}, {"classes"}),
        ("margin", {}, {"classes"}),
        ("least-confidence", {}, {"classes"}),
        ("core-set", {}, {"nearest"}),
        ("cd-greedy", {"missing": "skip"}, {"classes"}),
        ("cdal-cs", {}, {"nearest", "classes"}),
        ("cdal-rl", {"epochs": 2}, {"nearest", "classes"}),
        ("typiclust", {"neighbours": 2}, {"cluster", "covered"}),
        ("prob-cover", {"delta": 0.5}, {"covers", "cover"}),
    ],
)
def test_every_selector_ranks_the_whole_pool(
    services: Services, selector: str, options: dict[str, Any], reason: set[str]
) -> None:
    project, made = pooled_project(services)
    with services.store.transaction() as session:
        begun = session.get_one(Round, made.id)
        begun.state, begun.selector = "selecting", selector
    client = FakeLabelStudio()
    client.add_tasks(range(1, 7))
    client.label(1)
    chosen = {"selector": selector, "selector_options": options, "budget": 2, "reserve": 1}
    work = make_work(services, project, client, "select", **chosen)
    # Two for the queue and one for its reserve; the others are ranked behind.
    assert selecting.run(work) == f"5 images ranked by {selector}"
    with services.store.reading() as session:
        picks = session.scalars(select(Pick).filter_by(round_id=made.id).order_by(Pick.rank)).all()
    assert sorted(pick.task_id for pick in picks) == [2, 3, 4, 5, 6]
    assert [set(pick.reason) - {"near_duplicate_of"} for pick in picks] == [reason] * 5


@pytest.mark.parametrize("state", ["open", "queueing", "closed"])
def test_what_somebody_put_first_stays_first_in_a_new_order_until_it_is_labelled(
    services: Services, state: str
) -> None:
    """Also if a training ends before the queue is written again: the order before is given up."""
    project, served = pooled_project(services)
    add_tasks(services, project, [7], image_problem="damaged")
    with services.store.transaction() as session:
        session.get_one(Round, served.id).state = state
        picks = list(session.scalars(select(Pick).filter_by(round_id=served.id)))
        session.add_all(Pick(round_id=served.id, rank=10 + n, task_id=n, score=0) for n in (1, 7))
        for pick in [*picks[-2:], *session.new]:
            pick.reason = {"chosen_by": "ann"}
        session.add(Task(project_id=project.id, task_id=9, image="9.png"))
        session.add(
            Pick(round_id=served.id, rank=20, task_id=9, score=0, reason={"chosen_by": "ben"})
        )
    made = add_round(
        services,
        project,
        [],
        number=2,
        state="selecting",
        selector="cdal-cs",
        model_version_id=served.model_version_id,
    )
    client = FakeLabelStudio()
    client.add_tasks([*range(1, 8), 9])
    client.label(1)
    selecting.run(make_work(services, project, client, "select"))
    with services.store.reading() as session:
        ranking = session.scalars(
            select(Pick).filter_by(round_id=made.id).order_by(Pick.rank)
        ).all()
    # 5 and 2 were the last of the order; 9 came after the model had seen the pool.
    assert [pick.task_id for pick in ranking[:3]] == [5, 2, 9]
    assert sorted(pick.task_id for pick in ranking[3:]) == [3, 4, 6]
    assert [pick.reason.get("chosen_by") for pick in ranking] == ["ann", "ann", "ben"] + [None] * 3
    assert "nearest" in ranking[0].reason


@pytest.mark.parametrize(
    "selector", ["cdal-cs", "cd-greedy", "cdal-rl", "core-set", "typiclust", "prob-cover"]
)
def test_what_a_second_model_tells_apart_counts(services: Services, selector: str) -> None:
    """To the first model all images are the same, to the second one task 5 is like no other."""
    project, made = pooled_project(services)
    same = dict.fromkeys(range(1, 7), (0.5, 0.5))
    add_scores(services, project, same, number=2)
    add_scores(services, project, same | {5: (0.01, 0.99)}, number=3)
    first, second = (add_version(services, project, number=number) for number in (2, 3))
    with services.store.transaction() as session:
        begun = session.get_one(Round, made.id)
        begun.state, begun.selector = "selecting", selector
        begun.model_version_id, begun.beside = first.id, [second.id]
    client = FakeLabelStudio()
    client.add_tasks(range(1, 7))
    client.label(1)
    options = {"delta": 0.1} if selector == "prob-cover" else {}
    options = {"epochs": 2} if selector == "cdal-rl" else options
    chosen = {"selector": selector, "selector_options": options, "budget": 2, "reserve": 1}
    work = make_work(services, project, client, "select", **chosen)
    selecting.run(work)
    with services.store.reading() as session:
        picks = session.scalars(select(Pick).filter_by(round_id=made.id).order_by(Pick.rank)).all()
        pool = candidates_of(work, session, session.get_one(Round, made.id), ["bald"]).pool
    assert picks[0].task_id == 5
    assert pool.features is not None
    assert pool.features.norm(dim=1).tolist() == pytest.approx([2**0.5] * 6)
    with pytest.raises(PoolError, match=r'"bald".* several'):
        with_opinions(work, made, pool, "bald")


def order_of(services: Services, selector: str = "cdal-cs") -> list[int]:
    """The tasks as the select job ranks them for a new round."""
    project, made = pooled_project(services)
    with services.store.transaction() as session:
        begun = session.get_one(Round, made.id)
        begun.state, begun.selector = "selecting", selector
    client = FakeLabelStudio()
    client.add_tasks(range(1, 7))
    client.label(1)
    selecting.run(make_work(services, project, client, "select", selector=selector))
    with services.store.reading() as session:
        picks = select(Pick.task_id).filter_by(round_id=made.id).order_by(Pick.rank)
        return list(session.scalars(picks))


def test_a_pool_that_the_gpu_has_no_room_for_is_ranked_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = order_of(make_services(tmp_path / "cpu"))

    def full(_pool: Pool, device: torch.device) -> Pool:
        assert device.type == "cuda"
        raise torch.OutOfMemoryError

    monkeypatch.setattr(selecting, "choose_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(Pool, "to", full)
    assert order_of(make_services(tmp_path / "full")) == expected
    assert "ranked on the CPU" in caplog.text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("selector", ["cdal-cs", "core-set", "cd-greedy", "entropy"])
def test_the_gpu_ranks_as_the_cpu_does(tmp_path: Path, selector: str) -> None:
    orders = [
        order_of(make_services(tmp_path / device, device=device), selector)
        for device in ("cpu", "cuda")
    ]
    assert orders[0] == orders[1]


@pytest.mark.parametrize(("policy", "trained"), [("each", [2, 2, 2, 2]), ("once", [2, 0, 2, 2])])
def test_a_policy_is_trained_for_each_order_or_once(
    services: Services, policy: str, trained: list[int]
) -> None:
    """In the third order a file is damaged, and in the fourth other options are chosen."""
    project, _ = pooled_project(services)
    full = confused_pool(30, labelled=3)
    epochs = []
    for turn in range(4):
        options = {"epochs": 2, "episodes": 1, "cells": 8 if turn == 3 else 4}
        work = make_work(services, project, FakeLabelStudio(), "select", policy=policy)
        if turn == 2:
            policy_file(work, full, options).parent.mkdir(exist_ok=True)
            policy_file(work, full, options).write_bytes(b"no policy")
        told: list[float] = []
        selection = select_by_policy(work, full, options, 5, turn, told.append)
        assert len(set(selection.indices)) == 5
        assert told == sorted(told)
        epochs.append(selection.report["trained_epochs"])
    assert epochs == trained
    kept = list(services.config.project_folder(project.id).glob("policies/*.safetensors"))
    assert kept == ([policy_file(work, full, options)] if policy == "once" else kept)


@pytest.mark.parametrize(
    "setting",
    [
        {"region": "image"},
        {"classes": ["car"]},
        {"mixture_weights": "uniform"},
        {"box_confidence": 0.5},
        {"box_background": "keep"},
    ],
    ids=str,
)
def test_a_kept_policy_is_for_one_kind_of_mixtures(
    services: Services, setting: dict[str, object]
) -> None:
    project, _ = pooled_project(services)
    full = confused_pool(5)
    work = make_work(services, project, FakeLabelStudio(), "select", policy="once")
    before = policy_file(work, full, {})
    assert policy_file(work, full, {}) == before
    work.settings = work.settings.model_copy(update=setting)
    assert policy_file(work, full, {}) != before
