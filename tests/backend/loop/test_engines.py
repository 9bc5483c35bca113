"""What the engines share: the stages of a cluster, here in this process, give a worker's bits."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from PIL import Image
from ray.exceptions import RaySystemError, RayTaskError
from support.loopback import Loopback, reply
from support.offline import FakeLabelStudio, add_project, make_config, make_services, make_work

from cdal.backend.addresses import AllowedHosts
from cdal.backend.errors import ClusterError, SettingsError
from cdal.backend.images.inputs import InputReader
from cdal.backend.images.store import ImageSource, ImageStore
from cdal.backend.jobs.faults import fault_of
from cdal.backend.loop.engines.choice import engine_of
from cdal.backend.loop.engines.cluster import connect, in_background, our_errors
from cdal.backend.loop.engines.local import LocalEngine
from cdal.backend.loop.engines.stages import (
    Fetcher,
    Fetching,
    Onlooker,
    PackedNetwork,
    Seen,
    packed_items,
)
from cdal.mixture_kind import MixtureKind
from cdal.models import ModelError, Stopped, TaskNetwork, WeightSources, make_network
from cdal.models.feature_store import FeatureStore
from cdal.models.head import HeadNetwork

TOKEN = "the-secret-token"
NETWORKS = {
    "classification": ("mobilenet_v3_small", "timm:tf_efficientnet_lite0"),
    "segmentation": ("timm:tf_efficientnet_lite0",),
}


def png(number: int) -> bytes:
    file = BytesIO()
    Image.new("RGB", (40 + number, 30), (9 * number, 80, 200 - number)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as made:
        for number in range(1, 11):
            image = reply(png(number), Content_Type="image/png")
            made.routes[f"/data/upload/{number}.png"] = image
        yield made


def network(task: str, architecture: str) -> TaskNetwork:
    return make_network(
        task,
        architecture,
        ("cat", "dog"),
        64,
        device=torch.device("cpu"),
        pretrained="auto" if architecture.startswith("timm:") else False,
    )


def fetching(server: Loopback) -> Fetching:
    return Fetching(server.url, TOKEN, None, "public")


def seen_by(server: Loopback, model: TaskNetwork, items: Any, kind: MixtureKind | None) -> Seen:
    packed = PackedNetwork.of(model, WeightSources())
    fetched = Fetcher(fetching(server), packed)(packed_items(items))
    return Onlooker(packed, "cpu", kind)(fetched)


@pytest.mark.parametrize(
    ("task", "architecture"), [(task, name) for task, names in NETWORKS.items() for name in names]
)
def test_the_stages_give_a_workers_bits(
    server: Loopback, tmp_path: Path, task: str, architecture: str
) -> None:
    model, kind = network(task, architecture), MixtureKind("class")
    items: list[tuple[int, object]] = [(n, f"/data/upload/{n}.png") for n in range(1, 11)]
    seen = seen_by(server, model, items, kind)
    reader = InputReader(
        ImageStore(tmp_path / "images", 0, AllowedHosts()),
        FeatureStore(tmp_path / "features", 0),
        ImageSource(server.url, dict),
    )
    local = list(LocalEngine().scored(reader, model, items, kind, lambda *_: None))
    assert [findings for _, findings in seen.scored] == [findings for _, findings in local]
    for (theirs, _), (ours, _) in zip(seen.scored, local, strict=True):
        for name in ("task_ids", "probabilities", "uncertainties", "features", "mixtures"):
            assert torch.equal(getattr(theirs, name), getattr(ours, name)), name
    # The features of a head come along, to be kept; pixels do not.
    assert sum(map(len, seen.inputs)) == (10 if isinstance(model, HeadNetwork) else 0)


def test_features_from_elsewhere_are_kept(server: Loopback, tmp_path: Path) -> None:
    model = network("classification", "timm:tf_efficientnet_lite0")
    assert isinstance(model, HeadNetwork)
    items: list[tuple[int, object]] = [(n, f"/data/upload/{n}.png") for n in (1, 2)]
    seen = seen_by(server, model, items, None)
    assert seen.scored == []
    reader = InputReader(
        ImageStore(tmp_path / "images", 0, AllowedHosts()),
        FeatureStore(tmp_path / "features", 10**8),
        ImageSource(server.url, dict),
    )
    reader.keep(model, items, seen.inputs[0])
    reader.flush()
    unknown: list[tuple[int, object]] = []
    (kept,) = reader.kept(model, [*items, (3, "/data/upload/3.png")], unknown)
    assert list(kept.ids) == [1, 2]
    assert kept.sizes == [(30, 41), (30, 42)]
    assert unknown == [(3, "/data/upload/3.png")]


def test_images_are_checked_as_a_worker_checks_them(server: Loopback) -> None:
    model = network("classification", "mobilenet_v3_small")
    server.routes["/data/upload/bomb.png"] = reply(b"not an image", Content_Type="image/png")
    items = [
        (1, "/data/upload/1.png"),
        (2, "http://10.0.0.1/private.png"),
        (3, "file:///etc/passwd"),
        (4, {"no": "address"}),
        (5, "/data/upload/bomb.png"),
        (6, "/api/projects/"),
        (7, "\ud800"),
    ]
    seen = seen_by(server, model, items, MixtureKind("image"))
    assert [list(scores.task_ids) for scores, _ in seen.scored] == [[1]]
    assert [task for task, *_ in seen.problems] == [2, 3, 4, 5, 6, 7]
    # The token goes to Label Studio's files and nowhere else.
    paths = {path for path, headers in server.requests if TOKEN in (headers["Authorization"] or "")}
    assert paths == {"/data/upload/1.png", "/data/upload/bomb.png"}


def test_a_batch_without_any_image_is_scored_too(server: Loopback) -> None:
    seen = seen_by(
        server, network("classification", "mobilenet_v3_small"), [(1, 5)], MixtureKind("image")
    )
    assert seen.scored == []
    assert len(seen.problems) == 1


def test_the_token_is_not_shown(server: Loopback) -> None:
    assert TOKEN not in repr(fetching(server))
    assert TOKEN not in str([fetching(server)])


def test_the_local_engine_is_the_default(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    work = make_work(services, add_project(services), FakeLabelStudio())
    assert isinstance(engine_of(work), LocalEngine)


def test_an_address_of_rays_own_client_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="node of the cluster"):
        make_config(tmp_path, ray_address="ray://head:10001")


def test_an_address_without_a_port_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="head:6379"):
        make_config(tmp_path, ray_address="head")


def test_a_cluster_that_does_not_answer_is_named_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # taken, and nobody listens
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ClusterError, match=address) as caught:
            connect(address)
    assert fault_of(caught.value).passes


def test_ray_must_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdal.backend.config.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"label-studio-cdal\[ray\]"):
        make_config(tmp_path, engine="ray")


def test_what_our_code_raises_on_the_cluster_comes_back() -> None:
    cause = ModelError("The backbone is not on this machine.")
    with pytest.raises(ModelError, match="backbone"), our_errors():
        raise RayTaskError("Map(LookStage)", "trace", cause)


def test_a_job_waits_for_a_cluster_that_fails() -> None:
    with pytest.raises(ClusterError, match="lost") as caught, our_errors():
        raise RaySystemError("The node was lost.\nmore")
    fault = fault_of(caught.value)
    assert fault.passes
    assert "CDAL_RAY_ADDRESS" in fault.advice


def test_results_come_from_another_thread_in_order() -> None:
    assert list(in_background(iter([1, 2, 3, 4, 5]), lambda: None)) == [1, 2, 3, 4, 5]


def test_an_error_of_the_other_thread_is_raised() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise SettingsError("broken")

    results = in_background(failing(), lambda: None)
    assert next(results) == 1
    with pytest.raises(SettingsError, match="broken"):
        next(results)


def test_a_job_can_be_cancelled_while_the_cluster_computes() -> None:
    begun, closed, answer = Event(), Event(), Event()

    def waiting() -> Iterator[int]:
        try:
            begun.set()
            answer.wait(60)
            yield 1
        finally:
            closed.set()

    def check_stop() -> None:
        if begun.is_set():
            raise Stopped

    with pytest.raises(Stopped):
        list(in_background(waiting(), check_stop))
    # What the cluster still computes is given up with its next result.
    answer.set()
    assert closed.wait(60)
