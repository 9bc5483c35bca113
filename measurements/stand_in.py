"""A server that answers as Label Studio does for one project of very many tasks.

It knows what `cdal.backend.label_studio.client` requests, and makes tasks up as they are requested.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, islice
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

CREATED = datetime(2026, 1, 1)
APART_US = 100
"""Microseconds between the imports of two tasks."""

CHANGED = "2026-01-02T00:00:00.000000Z"
LAST_ID = 2**31 - 1


def created(task_id: int) -> str:
    return f"{CREATED + timedelta(microseconds=APART_US * task_id):%Y-%m-%dT%H:%M:%S.%fZ}"


def image_of(task_id: int) -> str:
    return f"https://images.example.com/large/{task_id:08}.jpg"


def class_of(task_id: int) -> str:
    """What people say of a task's image; the labeling config has the classes "cat" and "dog"."""
    return "cat" if task_id % 2 else "dog"


def _annotation(task_id: int, at: str) -> dict[str, Any]:
    choice = {"from_name": "label", "to_name": "image", "type": "choices"}
    result = [{**choice, "value": {"choices": [class_of(task_id)]}}]
    return {"id": task_id, "result": result, "was_cancelled": False, "updated_at": at}


def _first_since(time: str) -> int:
    """The first task that was imported then or later."""
    if not time:
        return 1
    since = datetime.strptime(time, "%Y-%m-%dT%H:%M:%S.%fZ") - CREATED
    return max(1, -(-since // timedelta(microseconds=APART_US)))


class StandIn:
    """The project: tasks 1 to N, some labelled, some deleted.

    Args:
        tasks: N.
        config: its labeling config.
    """

    def __init__(self, tasks: int, config: str) -> None:
        self.tasks = tasks
        self.labelled: dict[int, str] = {}
        self.deleted: set[int] = set()
        self.project: dict[str, Any] = {
            "id": 1,
            "title": "Large",
            "label_config": config,
            "model_version": "",
            "sampling": "Sequential sampling",
            "skip_queue": "REQUEUE_FOR_OTHERS",
            "created_at": created(0),
        }

    def answer(self, method: str, path: str, query: Mapping[str, list[str]], body: Any) -> Any:
        """The answer to a request, as JSON data."""
        if path.startswith("/api/tasks"):
            wanted = json.loads(query["query"][0]) if "query" in query else {}
            # Only annotations are read page by page, other tasks by their ids.
            page = int(query.get("page", ["1"])[0])
            return self._list(wanted, page, int(query["page_size"][0]))
        if path.endswith("/import/predictions"):
            return {"created": len(body)}
        if path.startswith("/api/predictions"):
            return {"id": 1, **body}
        if path.startswith("/api/users"):
            return [{"id": 1, "email": "ada@example.com"}]
        if "/model-versions" in path:
            return {}
        if path.startswith("/api/projects"):
            if method == "PATCH":
                self.project.update(body)
            return self.project
        if path.startswith("/api/dm/views"):
            if path.strip("/").endswith("views") and method == "GET":
                return []
            return {"id": 1, "data": (body or {}).get("data", {}), "project": 1}
        return []

    def _list(self, wanted: Mapping[str, Any], page: int, size: int) -> dict[str, Any]:
        first, last, since, annotated = 1, LAST_ID, "", False
        for item in wanted.get("filters", {}).get("items", ()):
            if item["filter"].endswith(":id"):
                first, last = item["value"]["min"], item["value"]["max"]
            elif item["filter"].endswith(":updated_at"):
                since = item["value"]
            else:
                annotated = True
        if wanted.get("ordering"):
            first = max(self.labelled, default=self.tasks)
        last = min(last, self.tasks)
        some = [n for n in sorted(self.labelled) if first <= n <= last]
        # Tasks are imported in the order of their ids, so the later ones are those from one id on.
        imported = max(first, _first_since(since))
        rest = range(0) if annotated else range(imported, max(imported, last + 1))
        some = [n for n in some if n not in rest and self.labelled[n] >= since]
        total = len(some) + len(rest) - sum(n in rest or n in some for n in self.deleted)
        there = (n for n in chain(some, rest) if n not in self.deleted)
        tasks = [self._task(n) for n in islice(there, (page - 1) * size, page * size)]
        return {"tasks": tasks, "total": total, "total_annotations": 0, "total_predictions": 0}

    def _task(self, task_id: int) -> dict[str, Any]:
        changed = self.labelled.get(task_id)
        return {
            "id": task_id,
            "data": {"image": image_of(task_id)},
            "total_annotations": int(changed is not None),
            "cancelled_annotations": 0,
            "updated_at": changed or created(task_id),
            "completed_at": changed,
            "annotators": [1] if changed else [],
            "avg_lead_time": 3.0 if changed else None,
            "annotations": [] if changed is None else [_annotation(task_id, changed)],
        }


@contextmanager
def served(project: StandIn) -> Iterator[str]:
    """Its address, while it is served."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            url = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            answer = project.answer(self.command, url.path, parse_qs(url.query), body)
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815 — http.server's names

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
