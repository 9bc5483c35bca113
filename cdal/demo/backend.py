"""A backend server for the demo and the tests, and its status."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from cdal.demo.process import NO_TLS, DemoError, ServerProcess

START_SECONDS = 600.0
"""How long a start may take; it needs half a minute of CPU time."""


class BackendServer(ServerProcess):
    """`cdal serve` with its own data folder; a later start continues with the same data."""

    def __init__(
        self,
        folder: Path,
        port: int,
        label_studio_url: str,
        token: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.url = f"http://localhost:{port}"
        self.data_folder = folder / "data"
        self._numbers: dict[int, int] = {}
        """The backend's number of each project: the status of one costs less than that of all."""
        given = environment or {}
        user, password = given.get("BASIC_AUTH_USER"), given.get("BASIC_AUTH_PASS")
        self.password = (user, password) if user and password else None
        super().__init__(
            name="The backend",
            command=[sys.executable, "-m", "cdal", "serve"],
            environment={
                "PORT": str(port),
                "CDAL_HOST": "127.0.0.1",
                "MODEL_DIR": str(self.data_folder),
                "LABEL_STUDIO_URL": label_studio_url,
                "LABEL_STUDIO_API_KEY": token,
                "PYTHONUNBUFFERED": "1",
                **given,
            },
            log=folder / "backend.log",
        )

    def status(self, label_studio_id: int) -> dict[str, Any] | None:
        """The backend's status of a project; None before the project is connected."""
        number = self._numbers.get(label_studio_id)
        if number is not None:
            one: dict[str, Any] = self.get(f"/api/v1/projects/{number}")
            return one
        projects = self.get("/api/v1/projects")["projects"]
        self._numbers |= {p["label_studio_id"]: p["id"] for p in projects}
        return next((p for p in projects if p["label_studio_id"] == label_studio_id), None)

    def queue(self, label_studio_id: int) -> list[dict[str, Any]]:
        """The images of the open round, by rank."""
        status = self.status(label_studio_id)
        if status is None:
            return []
        picks: list[dict[str, Any]] = self.get(f"/api/v1/projects/{status['id']}/queue")["picks"]
        return picks

    def get(self, path: str) -> Any:
        """Request a path of the API, and return the JSON answer."""
        answer = httpx.get(f"{self.url}{path}", timeout=120.0, auth=self.password, verify=NO_TLS)
        answer.raise_for_status()
        return answer.json()

    def wait_for(
        self,
        label_studio_id: int,
        what: str,
        reached: Callable[[dict[str, Any]], bool],
        seconds: float,
        watch: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> dict[str, Any]:
        """Wait until a project's status meets a condition, and return that status.

        Raises:
            DemoError: a job failed and none of its kind has succeeded since, the backend stopped,
                or the time ran out.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check_alive()
            status = self.status(label_studio_id)
            if status is not None:
                if reached(status):
                    return status
                failed = _failed(status["jobs"])
                if failed is not None:
                    raise DemoError(f'The job "{failed["kind"]}" failed: {failed["error"]}')
                watch(status)
            time.sleep(0.2)
        raise DemoError(f"Timed out after {seconds:.0f} s waiting for: {what}. See {self.log}.")


def _failed(jobs: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The newest job that failed and that no later one of its kind made good.

    Args:
        jobs: the newest first.
    """
    made_good: set[str] = set()
    for job in jobs:
        if job["state"] == "failed" and job["kind"] not in made_good:
            return job
        if job["state"] == "done":
            made_good.add(job["kind"])
    return None


def round_is_open(number: int) -> Callable[[dict[str, Any]], bool]:
    """A condition for ``wait_for``: this round, or a later one, is open."""
    return lambda status: any(
        r["number"] >= number and r["state"] == "open" for r in status["rounds"]
    )
