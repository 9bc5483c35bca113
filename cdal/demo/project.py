"""A project in Label Studio, set up through its API as a person does in the browser."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import httpx
from label_studio_sdk import LabelStudio

from cdal.datasets import Example, ImageSet
from cdal.demo.process import NO_TLS, DemoError
from cdal.models.predictions import IGNORED

TIMEOUT_S = 120.0

CONTROL = "label"
"""The name of the tag to label with, whatever the task."""

IMAGE = "image"
"""The name of the image tag, and of the field of a task's data that holds the image."""

MAX_UNLABELLED_SHARE = 0.2
"""Below this share of pixels without a class, they are ignored; from it on, background."""

INSPECTED_MASKS = 20
"""How many masks are read to estimate that share."""

MIN_LABELS = 10
"""The backend's default for the number of labels that a training needs."""


class LabelStudioProject:
    """A project, with the actions of its administrator."""

    def __init__(self, url: str, token: str, number: int) -> None:
        self.url = url
        self.number = number
        self._http = httpx.Client(timeout=TIMEOUT_S, verify=NO_TLS)
        self.sdk = LabelStudio(base_url=url, api_key=token, httpx_client=self._http)

    @classmethod
    def create(cls, url: str, token: str, title: str, labeling_config: str) -> LabelStudioProject:
        """Create a project."""
        with httpx.Client(timeout=TIMEOUT_S, verify=NO_TLS) as http:
            sdk = LabelStudio(base_url=url, api_key=token, httpx_client=http)
            made = sdk.projects.create(title=title, label_config=labeling_config)
        return cls(url, token, int(made.id))

    def close(self) -> None:
        """Close open connections."""
        self._http.close()

    def allow_local_files(self, folder: Path) -> None:
        """Let tasks refer to files in a folder, which must be inside the server's root folder."""
        self.sdk.import_storage.local.create(
            project=self.number, path=str(folder), title="images", use_blob_urls=True
        )

    def import_images(self, addresses: Sequence[str]) -> list[int]:
        """Create one task per image; returns their ids in the same order."""
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
        """Connect the backend, with the project's settings as extra params; returns its id.

        Raises:
            DemoError: Label Studio or the backend refused; the message is what users see.
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
        answer = self._http.post(f"{self.url}/api/ml", json=sent, headers=self._headers())
        if answer.status_code != httpx.codes.CREATED:
            raise DemoError(f"Label Studio did not connect the backend: {answer.text[:1000]}")
        return int(answer.json()["id"])

    def start_training(self, backend: int) -> None:
        """Press "Start training"."""
        answer = self._http.post(f"{self.url}/api/ml/{backend}/train", headers=self._headers())
        answer.raise_for_status()

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = self.sdk._client_wrapper.get_headers()
        return {"Authorization": headers["Authorization"]}


def choices_config(classes: Sequence[str]) -> str:
    """The labeling config for classification."""
    return _config("Choices", "Choice", classes, ' choice="single" showInline="true"')


def several_choices_config(classes: Sequence[str]) -> str:
    """The labeling config for multi-label classification."""
    return _config("Choices", "Choice", classes, ' choice="multiple" showInline="true"')


def brush_config(classes: Sequence[str]) -> str:
    """The labeling config for segmentation with a brush."""
    return _config("BrushLabels", "Label", classes)


def rectangle_config(classes: Sequence[str]) -> str:
    """The labeling config for detection, with rectangles that cannot be rotated."""
    return _config("RectangleLabels", "Label", classes, ' canRotate="false"')


LABELING_CONFIGS: Mapping[str, Callable[[Sequence[str]], str]] = {
    "classification": choices_config,
    "segmentation": brush_config,
    "detection": rectangle_config,
    "multilabel": several_choices_config,
}
"""The functions that create the labeling config of each task."""


def _config(control: str, label: str, classes: Sequence[str], attributes: str = "") -> str:
    labels = "".join(f'<{label} value="{escape(name)}"/>' for name in classes)
    return (
        f'<View><Image name="{IMAGE}" value="$image"/>'
        f'<{control} name="{CONTROL}" toName="{IMAGE}"{attributes}>{labels}</{control}></View>'
    )


def project_settings(
    images: ImageSet, to_label: Sequence[Example], budget: int | None, selector: str | None = None
) -> dict[str, Any]:
    """The demo's project settings, which suit the images.

    Args:
        images: the set of images.
        to_label: the examples in the project.
        budget: images per round; None: a fifteenth of ``to_label``, but at least 10 and at most
            100.
        selector: of the project; with "random" the first round is random, too. None: the default.
    """
    settings: dict[str, Any] = {"budget": budget or max(10, min(100, len(to_label) // 15))}
    if settings["budget"] < MIN_LABELS:
        settings["min_labels"] = max(2, settings["budget"])  # so that every round trains
    if selector is not None:
        settings["selector"] = selector
    if selector == "random":
        settings["first_round"] = "random"
    if images.task == "segmentation" and _unlabelled_share(to_label) < MAX_UNLABELLED_SHARE:
        settings["unlabelled"] = "ignore"
    return settings


def _unlabelled_share(examples: Sequence[Example]) -> float:
    """The share of pixels without a class in some masks.

    If it is small, every pixel was meant to have a class, and the others were left out. If it is
    large, the pixels without a class are background.
    """
    masks = [example.target() for example in examples[:INSPECTED_MASKS]]
    unlabelled = sum(int((mask == IGNORED).sum()) for mask in masks)
    return unlabelled / max(1, sum(mask.numel() for mask in masks))
