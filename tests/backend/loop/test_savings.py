"""Labels drawn at random: which labels count, and where they are in the queue."""

from __future__ import annotations

import io
import shutil
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sqlalchemy import select
from support.offline import (
    FakeLabelStudio,
    add_project,
    add_round,
    add_tasks,
    add_version,
    make_services,
    make_work,
    write_network,
)
from support.pooled import pooled_project

from cdal.backend.loop import savings
from cdal.backend.loop import select as selecting
from cdal.backend.loop.context import Context
from cdal.backend.loop.split import position
from cdal.backend.loop.version_images import VersionImages
from cdal.backend.services import Services
from cdal.backend.store.tables import (
    ModelVersion,
    Pick,
    Project,
    Round,
    Savings,
    Submission,
    Task,
    now,
)
from cdal.models import load_network
from cdal.selectors import Pick as Picked
from cdal.selectors import Pool


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(tmp_path)


def picked(*rows: int) -> list[Picked]:
    return [Picked(row, 0.0, {"nearest": 7}) for row in rows]


@pytest.mark.parametrize(
    ("share", "order"),
    [
        (0.5, [1, 11, 2, 12, 3, 13, 4, 5, 6]),
        (0.25, [1, 2, 3, 11, 4, 5, 6, 12, 13]),
        (0.34, [1, 2, 11, 3, 4, 12, 5, 6, 13]),
    ],
)
def test_random_draws_have_their_share_of_any_front(share: float, order: list[int]) -> None:
    found = selecting.mixed(picked(1, 2, 3, 4, 5, 6), picked(11, 12, 13), share)
    assert [pick.index for pick in found] == order
    assert [pick.reason for pick in found if pick.index > 10] == [{"random": True}] * 3
    assert found[0].reason == {"nearest": 7}


def test_the_share_is_kept_over_the_orders_of_a_round() -> None:
    """With a share of 0.2 each fifth image is drawn, wherever the order was refreshed."""
    queued: list[bool] = []
    for served in (3, 4, 9, 1, 8):  # images of each order until the next one comes
        order = selecting.mixed(picked(*range(50)), picked(*range(50, 70)), 0.2, queued)
        queued += ["random" in pick.reason for pick in order[:served]]
    assert [place for place, random in enumerate(queued, 1) if random] == [5, 10, 15, 20, 25]


def candidates(task_ids: Sequence[int], labelled: Sequence[int] = ()) -> selecting.Candidates:
    count = len(task_ids)
    pool = Pool(
        mixtures=torch.zeros(count, 1, 1),
        present=torch.zeros(count, 1, dtype=torch.bool),
        labelled=torch.tensor([task in labelled for task in task_ids]),
    )
    return selecting.Candidates(pool, list(task_ids))


def drawn(
    task_ids: Sequence[int], count: int, seed: int, labelled: Sequence[int] = ()
) -> list[int]:
    found = candidates(task_ids, labelled)
    return [found.task_ids[pick.index] for pick in selecting.draw(found, count, seed)]


def test_a_draw_goes_on_where_the_last_one_was_left() -> None:
    first = drawn(range(1, 101), 10, seed=3)
    # Two were labelled, and so was another image; the others are still the next.
    assert drawn(range(1, 101), 8, 3, labelled=[first[0], first[4]])[:8] == [
        *first[1:4], *first[5:],
    ]  # fmt: skip
    assert drawn(range(1, 101), 10, seed=4) != first
    # Whatever else is imported, the order among these stays.
    both = drawn(range(1, 201), 200, seed=3)
    assert [task for task in both if task <= 100][:10] == first


def test_every_image_is_as_likely_to_be_drawn_as_any_other() -> None:
    """Also if half of the pool was labelled."""
    times = Counter[int]()
    for seed in range(2000):
        times.update(drawn(range(1, 21), 3, seed, labelled=range(1, 11)))
    assert set(times) == set(range(11, 21))
    # 600 are expected of each, with a standard deviation of 20.
    assert all(abs(count - 600) < 5 * 20.5 for count in times.values())


def test_a_round_draws_its_share_from_the_whole_pool(services: Services) -> None:
    project, made = pooled_project(services)
    with services.store.transaction() as session:
        session.get_one(Round, made.id).state = "selecting"
    client = FakeLabelStudio()
    client.add_tasks(range(1, 7))
    client.label(1)
    work = make_work(services, project, client, "select", random_share=0.4, budget=2)
    selecting.run(work)
    with services.store.reading() as session:
        picks = session.scalars(select(Pick).filter_by(round_id=made.id).order_by(Pick.rank)).all()
    # All that the pool has, each once: no selector picks what was drawn.
    assert sorted(pick.task_id for pick in picks) == [2, 3, 4, 5, 6]
    # However small the pool, the selector has the rest.
    assert [bool(pick.reason.get("random")) for pick in picks] == [False, False, True, False, True]


def test_a_selector_chosen_while_a_round_is_made_leaves_the_round_its_own(
    services: Services,
) -> None:
    project, made = pooled_project(services)
    with services.store.transaction() as session:
        session.get_one(Round, made.id).state = "selecting"
    client = FakeLabelStudio()
    client.add_tasks(range(1, 7))
    chosen = {"selector": "cdal-rl", "selector_options": {"episodes": 2}}
    work = make_work(services, project, client, "select", **chosen)
    assert selecting.run(work) == "6 images ranked by cdal-cs"


def test_what_counts_as_drawn_at_random(services: Services) -> None:
    project = add_project(services)
    add_tasks(services, project, range(1, 9), annotations=1)
    first = add_round(services, project, [1, 2, 3], queued=2, state="closed", selector="random")
    second = add_round(services, project, [4, 5, 6, 7], queued=4, number=2, selector="cdal-cs")
    began = now() - timedelta(hours=2)
    with services.store.transaction() as session:
        one, two = session.get_one(Round, first.id), session.get_one(Round, second.id)
        one.created_at, one.closed_at = began, began + timedelta(hours=1)
        two.created_at = began + timedelta(hours=1)
        session.get_one(Pick, (second.id, 0)).reason = {"random": True}
        session.get_one(Pick, (second.id, 1)).reason = {"random": True, "chosen_by": "ann"}
        at = {1: 10, 2: 90, 3: 10, 4: 70, 5: 70, 6: 70}
        session.add_all(
            Submission(
                project_id=project.id,
                task_id=task,
                labelled_at=began + timedelta(minutes=minutes),
                annotators=[1],
                seconds=1.0,
            )
            for task, minutes in at.items()
        )
    work = make_work(services, project, FakeLabelStudio(), "savings")
    # 2 was labelled after its round, when a selector may have picked it; 3 was never queued;
    # 5 was put first by a person; 6 was picked by the selector.
    assert savings.record_random_labels(work) == {1, 4}
    with services.store.transaction() as session:
        for pick in session.scalars(select(Pick)):
            session.delete(pick)
    assert savings.record_random_labels(work) == {1, 4}


Region = dict[str, Any]

DRAWN = range(1, 61)

CLASSES = [{"type": "choices", "value": {"choices": [label]}} for label in ("dog", "cat")]

TRAINING: dict[str, dict[str, Any]] = {
    "Choices": {"network": "mobilenet_v3_small", "epochs": 8},
    "RectangleLabels": {"network": "ssdlite320_mobilenet_v3_large", "epochs": 8},
}


def results(services: Services) -> list[dict[str, object]]:
    with services.store.reading() as session:
        return [row.result for row in session.scalars(select(Savings))]


def test_too_few_random_labels_say_nothing(services: Services) -> None:
    project = add_project(services)
    work = make_work(services, project, FakeLabelStudio(), "savings", random_share=0.2)
    assert savings.run(work) == (
        "not known yet: of images drawn at random, there are 0 of at least 10 labels"
    )
    assert results(services) == [
        {"known": False, "why": "of images drawn at random, there are 0 of at least 10 labels"}
    ]


def test_few_held_out_images_say_nothing(services: Services) -> None:
    """A project with forty labels, a tenth of which is held out."""
    project = add_project(services)
    client = FakeLabelStudio()
    tasks = list(range(1, 41))
    client.add_tasks(tasks)
    add_round(services, project, tasks, queued=40)
    with services.store.transaction() as session:
        for task in tasks:
            image = address(task)
            session.add(Task(project_id=project.id, task_id=task, image=image, annotations=1))
            label = "cat" if task % 2 else "dog"
            region = {"from_name": "label", "to_name": "image", "type": "choices"}
            result = [{**region, "value": {"choices": [label]}}]
            client.given[task] = [{"result": result, "updated_at": "2026-01-01T00:00:00Z"}]
            session.add(
                Submission(
                    project_id=project.id,
                    task_id=task,
                    labelled_at=now(),
                    annotators=[1],
                    seconds=1.0,
                )
            )
    work = make_work(services, project, client, "savings", held_out=0.1, **TRAINING["Choices"])
    few = held(tasks, 0.1)
    assert savings.run(work) == (
        f"not known yet: {few} of at least 10 held-out images that were drawn at random are "
        "labelled"
    )
    assert few < 10


def coloured(task_id: int) -> bytes:
    """An image file of one colour, a shade of blue or of red, another one for each task."""
    shade = 255 - task_id
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (0, 0, shade) if task_id % 2 else (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


def address(task_id: int) -> str:
    """The image within the task's data."""
    return f"data:image/png;base64,{b64encode(coloured(task_id)).decode()}"


def held(tasks: Iterable[int], share: float) -> int:
    """How many of these tasks' images are held out."""
    hashes = [sha256(coloured(task)).digest()[:16] for task in tasks]
    return sum(position(content) < share for content in hashes)


def learns_from(services: Services, number: int, *images: bytes) -> None:
    """Record what a version has learnt from: these images, or none."""
    with services.store.transaction() as session:
        version = session.scalars(select(ModelVersion).filter_by(number=number)).one()
        session.merge(VersionImages(frozenset(images)).row(version.id))


def drawn_at_random(
    services: Services, control: str, regions: Sequence[Region], **settings: Any
) -> Context:
    """Sixty images drawn at random, of two colours; two versions that have not learnt anything.

    Args:
        services: of the backend.
        control: what the images are labelled with, as in a labeling config.
        regions: what is labelled in a blue and in a red image.
        settings: of the project, other than those in `TRAINING`.
    """
    config = (
        f'<View><Image name="image" value="$image"/><{control} name="label" toName="image">'
        f'<Label value="cat"/><Label value="dog"/></{control}></View>'
    ).replace("Label value", "Choice value" if control == "Choices" else "Label value")
    project = add_project(services, labeling_config=config)
    client = FakeLabelStudio()
    client.add_tasks(DRAWN)
    add_round(services, project, DRAWN, queued=60)
    for number in (1, 2):
        add_version(services, project, number=number)
        task = "classification" if control == "Choices" else "detection"
        write_network(services, project, number, task)
        learns_from(services, number)
    with services.store.transaction() as session:
        session.scalars(select(ModelVersion).filter_by(number=2)).one().labels = 40
        for task_id in DRAWN:
            red = task_id % 2 == 0
            session.add(
                Task(project_id=project.id, task_id=task_id, image=address(task_id), annotations=1)
            )
            region = {"from_name": "label", "to_name": "image", **regions[red]}
            client.given[task_id] = [{"result": [region], "updated_at": "2026-01-01T00:00:00Z"}]
            session.add(
                Submission(
                    project_id=project.id,
                    task_id=task_id,
                    labelled_at=now(),
                    annotators=[1],
                    seconds=1.0,
                )
            )
    given = {**TRAINING[control], "held_out": 0.3, "image_size": 32, **settings}
    return make_work(services, project, client, "savings", **given)


@pytest.mark.slow
def test_the_whole_of_it_on_real_networks(services: Services) -> None:
    work = drawn_at_random(services, "Choices", CLASSES)
    savings.run(work)
    (found,) = results(services)
    measured = held(DRAWN, 0.3)
    assert (found["known"], found["images"], found["metric"]) == (True, measured, "accuracy")
    assert found["random"]["labels"] == 60
    assert [point["labels"] for point in found["curve"]] == [4, 40]
    assert found["low"] <= found["saved"] <= found["high"]
    assert found["saved"] == 60 - found["needed"]
    # The next one goes on from this one.
    folder = services.config.project_folder(work.project.id) / "savings"
    assert (folder / "weights.safetensors").exists()
    savings.run(work)
    assert len(results(services)) == 2


@pytest.mark.slow
def test_what_a_version_has_learnt_from_measures_nothing(services: Services) -> None:
    """The share to hold out was raised since, for example."""
    work = drawn_at_random(services, "Choices", CLASSES)
    everything = [sha256(coloured(task)).digest()[:16] for task in DRAWN]
    learnt = sorted(everything, key=position)[9:]
    learns_from(services, 1, *learnt)
    assert savings.run(work).startswith("not known yet: 9 of at least 10 held-out images")


@pytest.mark.slow
def test_detectors_are_measured_by_their_average_precision(services: Services) -> None:
    place = {"x": 25, "y": 25, "width": 50, "height": 50, "rotation": 0}
    work = drawn_at_random(
        services,
        "RectangleLabels",
        [
            {
                "type": "rectanglelabels",
                "original_width": 32,
                "original_height": 32,
                "value": {**place, "rectanglelabels": [label]},
            }
            for label in ("dog", "cat")
        ],
    )
    savings.run(work)
    (found,) = results(services)
    assert (found["known"], found["metric"]) == (True, "map_50")
    assert found["random"]["value"] > max(point["value"] for point in found["curve"])
    assert found["at_most"]
    assert found["saved"] == 20


def relabelled(work: Context, *labels: str) -> Context:
    """The next job, after somebody changed the labels in the config."""
    choices = "".join(f'<Choice value="{label}"/>' for label in labels)
    with work.services.store.transaction() as session:
        session.get_one(Project, work.project.id).labeling_config = (
            '<View><Image name="image" value="$image"/><Choices name="label" toName="image">'
            f"{choices}</Choices></View>"
        )
    return make_work(work.services, work.project, work.client, "savings")  # type: ignore[arg-type]


@pytest.mark.slow
def test_labels_in_another_order_are_the_same_labels(services: Services) -> None:
    work = drawn_at_random(services, "Choices", CLASSES)
    savings.run(work)
    again = relabelled(work, "dog", "cat")
    savings.run(again)
    before, after = results(services)
    assert after["curve"] == before["curve"]
    folder = services.config.project_folder(work.project.id) / "savings"
    assert load_network(folder, torch.device("cpu")).classes == ("dog", "cat")


@pytest.mark.slow
def test_a_label_that_was_added_waits_for_versions_that_know_it(services: Services) -> None:
    work = drawn_at_random(services, "Choices", CLASSES, epochs=1)
    savings.run(work)
    again = relabelled(work, "owl", "cat", "dog")
    assert savings.run(again) == (
        "not known yet: two model versions that kept the held-out images apart are needed"
    )


@pytest.mark.slow
def test_versions_of_another_task_are_left_out(services: Services) -> None:
    work = drawn_at_random(services, "Choices", CLASSES, epochs=1)
    shutil.rmtree(services.config.version_folder(work.project.id, 1))
    write_network(services, work.project, 1, "detection")  # with the same labels
    assert savings.run(work) == (
        "not known yet: two model versions that kept the held-out images apart are needed"
    )
