"""What a second run of the demo needs to go on where the first stopped."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from cdal.demo.process import DemoError, free_port

ANEW = '"make clean" removes it, and then this command starts anew.'


@dataclass(slots=True)
class State:
    """Of one demo, kept in its folder.

    Attributes:
        token: of Label Studio's first user.
        label_studio_port: where Label Studio listens.
        backend_port: where the backend does.
        source: the path of the images, or "drawn".
        task: what they are labelled for.
        project: its number in Label Studio, once it is there.
        connected: whether the backend is connected to it.
    """

    token: str
    label_studio_port: int
    backend_port: int
    source: str
    task: str
    project: int | None = None
    connected: bool = False

    @classmethod
    def fresh(cls, source: str, task: str) -> State:
        """The state of a demo that is yet to be set up."""
        return cls(secrets.token_hex(20), free_port(), free_port(), source, task)

    @classmethod
    def load(cls, folder: Path, source: str, task: str | None) -> State | None:
        """The state of an earlier run; None where there was none.

        Raises:
            DemoError: it was on other images, or for another task than is asked for now.
        """
        file = folder / "state.json"
        if not file.exists():
            return None
        try:
            state = cls(**json.loads(file.read_text()))
        except TypeError:
            raise DemoError(f"{folder} holds a demo of another version; {ANEW}") from None
        if state.source != source:
            raise DemoError(f"{folder} holds a demo on other images ({state.source}); {ANEW}")
        if task not in (None, state.task):
            raise DemoError(f"{folder} holds a demo of {state.task}, not of {task}; {ANEW}")
        return state

    def save(self, folder: Path) -> None:
        """Keep it for the next run; it holds a token, so others may not read it."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / "state.json").write_text(json.dumps(asdict(self)))
