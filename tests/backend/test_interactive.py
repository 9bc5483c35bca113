"""An interactive backend, as for Segment Anything, beside this one in a project."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.processes import PATIENCE
from support.scenario import Scenario

from cdal.backend.annotations import read_annotations
from cdal.backend.project_config import ProjectConfig

DOCS = Path(__file__).parents[2] / "docs" / "segment-anything.md"
DRAWN = {
    "id": "drawn",
    "from_name": "label",
    "to_name": "image",
    "type": "choices",
    "value": {"choices": ["cat"]},
}


class StandIn(BaseHTTPRequestHandler):
    """Answers as label-studio-ml's server does, and predicts only what somebody draws."""

    contexts: list[Any]

    def do_GET(self) -> None:
        self.answer({"status": "UP", "model_class": "SegmentAnything"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/setup":
            self.answer({"model_version": "sam"})
        elif self.path == "/predict":
            context = (body.get("params") or {}).get("context")
            type(self).contexts.append(context)
            found = [{"result": [DRAWN], "model_version": "sam", "score": 0.9}]
            self.answer({"results": found if context else []})
        else:
            self.answer({"status": "ok"})

    def answer(self, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stand_in() -> Iterator[str]:
    StandIn.contexts = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.slow
@pytest.mark.label_studio
def test_it_answers_clicks_and_this_one_keeps_the_order(
    make_scenario: Callable[..., Scenario], stand_in: str
) -> None:
    scenario = make_scenario(12, budget=6)
    scenario.wait_for_round(1)
    sdk = scenario.project.sdk
    order = scenario.queue()
    made = sdk.ml.create(
        url=stand_in, project=scenario.number, title="Segment Anything", is_interactive=True
    )
    click = {"result": [{"type": "keypointlabels", "value": {"x": 10, "y": 20}}]}
    assert made.id is not None
    answer = httpx.post(
        f"{scenario.label_studio.url}/api/ml/{made.id}/interactive-annotating",
        json={"task": order[0], "context": click},
        headers={"Authorization": f"Token {scenario.label_studio.token}"},
        timeout=PATIENCE,
    ).json()
    assert answer["data"]["result"] == [DRAWN]
    assert click in StandIn.contexts
    scenario.settle()
    assert scenario.label_stream(2) == order[:2]
    assert scenario.settle()["problem"] is None
    version = sdk.projects.get(id=scenario.number).model_version
    assert version is not None
    assert version.startswith("CDAL")


def test_the_labeling_config_of_the_docs_is_served() -> None:
    text = DOCS.read_text().split("```xml\n")[1].split("```")[0]
    config = ProjectConfig.parse(text, {"control": "mask"})
    assert (config.control.tag, config.control.labels) == ("BrushLabels", ("cat", "dog"))
    # What a click leaves behind is another control's, and teaches nothing.
    click = {
        "from_name": "click",
        "to_name": "image",
        "type": "keypointlabels",
        "original_width": 10,
        "original_height": 10,
        "value": {"x": 10, "y": 20, "width": 1, "keypointlabels": ["cat"]},
    }
    reading = read_annotations(config.control, [{"result": [click]}], config.settings)
    assert reading.left_out == ()
    assert reading.truth is None or not reading.truth.classes
