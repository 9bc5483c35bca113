"""A project in Label Studio as a person would set it up, through Label Studio's own API."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import httpx
from label_studio_sdk import LabelStudio

from cdal.demo import regions
from cdal.demo.process import DemoError
from cdal.demo.regions import CONTROL, IMAGE, Region

TIMEOUT_S = 120.0


class LabelStudioProject:
    """One project, and what its admin does."""

    def __init__(self, url: str, token: str, number: int) -> None:
        self.url = url
        self.number = number
        self._http = httpx.Client(timeout=TIMEOUT_S)
        self.sdk = LabelStudio(base_url=url, api_key=token, httpx_client=self._http)

    @classmethod
    def create(cls, url: str, token: str, title: str, labeling_config: str) -> LabelStudioProject:
        """Make a new project."""
        with httpx.Client(timeout=TIMEOUT_S) as http:
            sdk = LabelStudio(base_url=url, api_key=token, httpx_client=http)
            made = sdk.projects.create(title=title, label_config=labeling_config)
        return cls(url, token, int(made.id))

    def close(self) -> None:
        """Close the connections that are kept alive."""
        self._http.close()

    def allow_local_files(self, folder: Path) -> None:
        """Let tasks name the files of a folder, which must lie in the server's own root."""
        self.sdk.import_storage.local.create(
            project=self.number, path=str(folder), title="images", use_blob_urls=True
        )

    def import_images(self, addresses: Sequence[str]) -> list[int]:
        """One task an image; returns their ids in the same order."""
        made = self.sdk.projects.import_tasks(
            id=self.number, request=[{"image": a} for a in addresses], return_task_ids=True
        )
        return list(made.task_ids)

    def connect(
        self,
        backend_url: str,
        settings: Mapping[str, Any] | None = None,
        password: tuple[str, str] | None = None,
    ) -> int:
        """Connect the backend, with the project's settings as its extra params; returns its id.

        Raises:
            DemoError: Label Studio or the backend refused; the message is what a person would see.
        """
        sent: dict[str, Any] = {
            "url": backend_url,
            "project": self.number,
            "title": "CDAL",
            "extra_params": settings,
        }
        if password is not None:
            user, secret = password
            sent |= {
                "auth_method": "BASIC_AUTH",
                "basic_auth_user": user,
                "basic_auth_pass": secret,
            }
        answer = httpx.post(
            f"{self.url}/api/ml",
            json=sent,
            headers=self._headers(),
            timeout=TIMEOUT_S,
        )
        if answer.status_code != httpx.codes.CREATED:
            raise DemoError(f"Label Studio did not connect the backend: {answer.text[:1000]}")
        return int(answer.json()["id"])

    def start_training(self, backend: int) -> None:
        """Press "Start training"."""
        answer = httpx.post(
            f"{self.url}/api/ml/{backend}/train", headers=self._headers(), timeout=TIMEOUT_S
        )
        answer.raise_for_status()

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = self.sdk._client_wrapper.get_headers()
        return {"Authorization": headers["Authorization"]}


class Annotator:
    """Somebody who works through a project's label stream."""

    def __init__(self, url: str, token: str, project: int) -> None:
        self.url = url
        self.project = project
        self._headers = {"Authorization": f"Token {token}"}

    def next_task(self) -> int | None:
        """Ask for the next task, as "Label All Tasks" does; None where there is none."""
        answer = httpx.get(
            f"{self.url}/api/projects/{self.project}/next",
            headers=self._headers,
            timeout=TIMEOUT_S,
        )
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        answer.raise_for_status()
        return int(answer.json()["id"])

    def submit(self, task: int, said: str | Sequence[Region]) -> None:
        """Submit what a person says of an image: a class, or the regions of ``regions``."""
        result = regions.choice(said) if isinstance(said, str) else list(said)
        self._annotate(task, {"result": result, "lead_time": 1.0})

    def skip(self, task: int) -> None:
        """Skip a task, as a person does."""
        self._annotate(task, {"result": [], "was_cancelled": True})

    def _annotate(self, task: int, annotation: Mapping[str, Any]) -> None:
        answer = httpx.post(
            f"{self.url}/api/tasks/{task}/annotations",
            json=annotation,
            headers=self._headers,
            timeout=TIMEOUT_S,
        )
        answer.raise_for_status()


def choices_config(classes: Sequence[str]) -> str:
    """The labeling config of image classification."""
    return _config("Choices", "Choice", classes, ' choice="single" showInline="true"')


def brush_config(classes: Sequence[str]) -> str:
    """The labeling config of segmentation, with a brush."""
    return _config("BrushLabels", "Label", classes)


def rectangle_config(classes: Sequence[str]) -> str:
    """The labeling config of object detection, with boxes that cannot be turned."""
    return _config("RectangleLabels", "Label", classes, ' canRotate="false"')


LABELING_CONFIGS: Mapping[str, Callable[[Sequence[str]], str]] = {
    "classification": choices_config,
    "segmentation": brush_config,
    "detection": rectangle_config,
}
"""What makes the labeling config, by task."""


def _config(control: str, label: str, classes: Sequence[str], attributes: str = "") -> str:
    labels = "".join(f'<{label} value="{escape(name)}"/>' for name in classes)
    return (
        f'<View><Image name="{IMAGE}" value="$image"/>'
        f'<{control} name="{CONTROL}" toName="{IMAGE}"{attributes}>{labels}</{control}></View>'
    )
