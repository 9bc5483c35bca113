"""The state of the demo, from which a later run continues."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from cdal.demo.process import DemoError, free_port

CLEAN = 'Run "make clean" to remove it, and then this command again.'


@dataclass(slots=True)
class State:
    """The state of a demo, saved in its folder.

    Attributes:
        token: the token of Label Studio's first user.
        label_studio_port: the port of Label Studio.
        backend_port: the port of the backend.
        source: the path of the images, or "drawn".
        task: the task that they are labelled for.
        project: the id of the project in Label Studio; None before it is created.
        connected: whether the backend is connected to the project.
        budget: the project's images per round; None: as many as suit the number of images.
        selector: of the project; None: the default.
    """

    token: str
    label_studio_port: int
    backend_port: int
    source: str
    task: str
    project: int | None = None
    connected: bool = False
    budget: int | None = None
    selector: str | None = None

    @classmethod
    def fresh(
        cls, source: str, task: str, budget: int | None = None, selector: str | None = None
    ) -> State:
        """The state of a new demo."""
        return cls(
            secrets.token_hex(20),
            free_port(),
            free_port(),
            source,
            task,
            budget=budget,
            selector=selector,
        )

    @classmethod
    def load(
        cls,
        folder: Path,
        source: str,
        task: str | None,
        budget: int | None = None,
        selector: str | None = None,
    ) -> State | None:
        """The state of an earlier run; None if there was none.

        Args:
            folder: the demo's folder.
            source: the path of the images, or "drawn".
            task: as given now; None: as in the earlier run.
            budget: likewise.
            selector: likewise.

        Raises:
            DemoError: the earlier run had another version, or something else than is given now.
        """
        file = folder / "state.json"
        if not file.exists():
            return None
        try:
            state = cls(**json.loads(file.read_text()))
        except (TypeError, ValueError):
            raise DemoError(
                f"{folder} contains a demo of another version, or a damaged one. {CLEAN}"
            ) from None
        if state.source != source:
            raise DemoError(f"{folder} contains a demo with other images ({state.source}). {CLEAN}")
        if task not in (None, state.task):
            raise DemoError(f"{folder} contains a demo for {state.task}, not {task}. {CLEAN}")
        given = {"budget": (budget, state.budget), "selector": (selector, state.selector)}
        for name, (now, before) in given.items():
            if now not in (None, before):
                was = "the default" if before is None else before
                raise DemoError(
                    f"{folder} contains a demo whose {name} is {was}, not {now}. Change it on the "
                    f"backend's settings page, or start over. {CLEAN}"
                )
        return state

    def save(self, folder: Path) -> None:
        """Save it for the next run, in a folder that only this user can read, as it has a token."""
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        (folder / "state.json").write_text(json.dumps(asdict(self)))
