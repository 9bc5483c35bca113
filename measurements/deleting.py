"""How long Label Studio takes to delete predictions, and how its annotators are affected.

    python measurements/deleting.py

Starts Label Studio, with its default SQLite, in a temporary folder.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path

import httpx
from servers import label_studio_started

from cdal.backend.label_studio.client import LabelStudioClient
from cdal.demo.annotator import Annotator
from cdal.demo.label_studio import LabelStudioServer
from cdal.demo.project import LabelStudioProject, choices_config

TASKS = 5000
SIZES = (100, 1000, 5000)


class Stream(threading.Thread):
    """An annotator who requests the next task repeatedly."""

    def __init__(self, annotator: Annotator) -> None:
        super().__init__(daemon=True)
        self._annotator = annotator
        self.seconds: list[float] = []
        self.errors = 0

    def run(self) -> None:
        while True:
            began = time.monotonic()
            try:
                self._annotator.next_task()
                self.seconds.append(time.monotonic() - began)
            except httpx.HTTPError:
                self.errors += 1
            time.sleep(0.1)


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    with tempfile.TemporaryDirectory() as folder, label_studio_started(Path(folder)) as server:
        measure(server)


def measure(server: LabelStudioServer) -> None:
    project = LabelStudioProject.create(
        server.url, server.token, "deleting", choices_config(["cat", "dog"])
    )
    tasks = project.import_images([f"/data/upload/{number}.png" for number in range(TASKS)])
    client = LabelStudioClient(server.url, server.token, project.number)
    for size in (*SIZES, 101):
        predictions = [
            {"task": task, "result": [], "score": 0.5, "model_version": f"v{size}"}
            for task in tasks[:size]
        ]
        client.import_predictions(predictions)
    client.serve("v101")
    stream = Stream(Annotator(server.url, server.token, project.number))
    stream.start()
    time.sleep(10)
    print(f"next task, undisturbed: median {statistics.median(stream.seconds):.2f} s")
    for size in SIZES:
        stream.errors = 0
        stream.seconds.clear()
        began = time.monotonic()
        client.delete_predictions(f"v{size}")
        seconds = time.monotonic() - began
        print(
            f"deleting {size} predictions: {seconds:.1f} s, {1000 * seconds / size:.0f} ms each; "
            f"an annotator was served {len(stream.seconds)} tasks meanwhile, "
            f"and saw {stream.errors} errors",
            flush=True,
        )
        time.sleep(2)


if __name__ == "__main__":
    main()
