"""What the backend's calls cost Label Studio in a large project: processor and elapsed time.

    python measurements/label_studio_costs.py --tasks 100000

Starts Label Studio, with its default SQLite, in a temporary folder. Predictions are imported in one
call and one by one, and labels submitted with no webhook, with the one that Label Studio makes when
a backend is connected, and with the same after the backend has told it to send no content. Nobody
listens at the webhook's address.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from servers import label_studio_started
from shared import print_header, print_row, processor_of

from cdal.backend.label_studio.client import LabelStudioClient
from cdal.backend.label_studio.data import stamp
from cdal.backend.store.tables import now
from cdal.demo.annotator import Annotator, choice
from cdal.demo.label_studio import LabelStudioServer
from cdal.demo.project import LabelStudioProject, choices_config

IMPORT = 5000
NOBODY = "http://127.0.0.1:9/webhook"


class Costs:
    """The table of what calls cost a Label Studio."""

    def __init__(self, server: LabelStudioServer) -> None:
        assert server.pid is not None
        self._process = server.pid
        print_header(("call", "processor", "elapsed"))

    def of(self, name: str, call: Callable[[], object], calls: int = 1, repeats: int = 1) -> None:
        """Print what one of ``calls`` calls that ``call`` makes costs on average."""
        used, began = processor_of(self._process), time.monotonic()
        for _ in range(repeats):
            call()
        each = 1000 / (calls * repeats)
        processor = each * (processor_of(self._process) - used)
        elapsed = each * (time.monotonic() - began)
        print_row([name, f"{processor:,.0f} ms", f"{elapsed:,.0f} ms"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=100_000)
    tasks = parser.parse_args().tasks
    with tempfile.TemporaryDirectory() as folder, label_studio_started(Path(folder)) as server:
        measure(server, tasks)


def measure(server: LabelStudioServer, tasks: int) -> None:
    project = LabelStudioProject.create(
        server.url, server.token, "Large", choices_config(["cat", "dog"])
    )
    ids: list[int] = []
    for first in range(0, tasks, IMPORT):
        names = range(first, min(tasks, first + IMPORT))
        ids += project.import_images([f"/data/upload/{n}.png" for n in names])
    client = LabelStudioClient(server.url, server.token, project.number)
    annotator = Annotator(server.url, server.token, project.number)
    costs = Costs(server)
    importing(costs, client, ids)
    client.serve("queue")
    submitting(costs, project, annotator, ids)
    annotator.next_task()
    costs.of("the next task, by uncertainty", annotator.next_task, repeats=5)
    costs.of("set the queue", lambda: client.serve("queue"), repeats=5)
    costs.of("read the project", client.read_project, repeats=5)
    costs.of("read the tasks that changed, none", lambda: list(client.tasks(stamp(now()))), 1, 5)
    costs.of("count the tasks", client.count, repeats=5)
    costs.of("count the labelled ones", lambda: client.count(labelled=True), repeats=5)


def importing(costs: Costs, client: LabelStudioClient, ids: list[int]) -> None:
    def predictions(version: str, count: int) -> list[dict[str, object]]:
        result = choice("cat")
        return [
            {"task": task, "result": result, "score": 0.5, "model_version": version}
            for task in ids[:count]
        ]

    for count in (1, 100, 1000):
        together = predictions("queue", count)
        costs.of(
            f"import {count:,} predictions together",
            lambda together=together: client.import_predictions(together),  # type: ignore[misc]
        )
    alone = predictions("alone", 100)
    costs.of("import one prediction", lambda: client.import_predictions(alone, True), 100)


def submitting(
    costs: Costs, project: LabelStudioProject, annotator: Annotator, ids: list[int]
) -> None:
    for task in ids[-40:-20]:  # what the first ones cost is not asked
        annotator.submit(task, "cat")
    for number, webhook in enumerate(("no webhook", "one with content", "one without content")):
        if number:
            made = project.sdk.webhooks.create(
                project=project.number, url=NOBODY, send_payload=number == 1
            )
        rest = iter(ids[len(ids) // 2 + 10 * number :])
        costs.of(
            f"submit a label, {webhook}",
            lambda rest=rest: annotator.submit(next(rest), "cat"),  # type: ignore[misc]
            repeats=10,
        )
        if number:
            project.sdk.webhooks.delete(id=made.id or 0)


if __name__ == "__main__":
    main()
