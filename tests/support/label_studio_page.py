"""Label Studio's own page in a real browser, and what can be seen on it."""

from __future__ import annotations

import io
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from playwright.sync_api import Page, expect

from cdal.demo.label_studio import LabelStudioServer
from support.processes import PATIENCE

Pixels = npt.NDArray[np.int16]
Mask = npt.NDArray[np.bool_]

STEP_MS = 500
"""Between two pictures of the page, which tells nobody when it has drawn all it has."""


class LabelStudioPage:
    """A signed-in person's page."""

    def __init__(self, page: Page, label_studio: LabelStudioServer) -> None:
        self._page = page
        self._url = label_studio.url
        # Fonts and the like would be waited for, where there is no way out.
        page.route(lambda url: not self._is_local(url), lambda route: route.abort())
        page.goto(f"{self._url}/user/login", wait_until="domcontentloaded")
        page.fill("input[name=email]", label_studio.EMAIL)
        page.fill("input[name=password]", label_studio.PASSWORD)
        page.click("button[type=submit]")
        page.wait_for_url(lambda url: "/user/login" not in url, wait_until="commit")

    def open_task(self, project: int, task: int) -> None:
        """Open a task beside the list, as a click on it does."""
        address = f"{self._url}/projects/{project}/data?task={task}"
        self._page.goto(address, wait_until="commit")
        self._page.wait_for_selector(".konvajs-content canvas")
        self._image()

    def sees_in_tab(self, project: int, title: str, tasks: Collection[int]) -> None:
        """Choose a tab of the Data Manager, and wait until it shows these tasks and no other."""
        self._page.goto(f"{self._url}/projects/{project}/data", wait_until="commit")
        tab = self._page.get_by_role("tab", name=title, exact=True)
        tab.click()
        expect(tab).to_have_attribute("aria-selected", "true")
        rows = self._page.get_by_test_id("table-row")
        expect(rows).to_have_count(len(tasks), timeout=1000 * PATIENCE)
        for task in tasks:
            expect(rows.get_by_label(f"Select Task {task}", exact=True)).to_be_attached()

    def submit_next(self, project: int) -> None:
        """Label the next task of the stream by submitting what it begins with."""
        address = f"{self._url}/projects/{project}/data?labeling=1"
        self._page.goto(address, wait_until="commit")
        self._page.wait_for_selector(".konvajs-content canvas")
        self._image()
        self.submit()

    def submit(self) -> None:
        """Submit the task that is open as it is shown."""
        with self._page.expect_response(
            lambda answer: answer.request.method == "POST" and "/annotations" in answer.url
        ) as submitted:
            self._page.get_by_role("button", name="submit").first.click()
        assert submitted.value.ok

    def leave(self) -> None:
        """Open an empty page: Label Studio's own go on asking it for what is new."""
        self._page.goto("about:blank")

    def keep(self, file: Path) -> None:
        """Keep a picture of the whole page."""
        self._page.screenshot(path=file)

    def drawn(self) -> Mask:
        """Where the image looks different for the regions that are drawn on it, (h, w)."""
        shown = self._image()
        self._page.evaluate(
            "window.Htx.annotationStore.selected.regions.forEach(region => region.toggleHidden())"
        )
        # A busy machine may take longer to draw them anew than to take two equal pictures.
        different: Mask = np.abs(shown - self._image(unlike=shown)).max(2) > 2
        return different

    def chosen(self) -> list[str]:
        """The choices that are ticked, once there are any."""
        ticked = (
            "[...document.querySelectorAll('input:checked')]"
            ".map(input => input.closest('label')?.innerText.replace(/\\[.*\\]/, '').trim())"
            ".filter(text => text)"
        )
        self._page.wait_for_function(f"{ticked}.length > 0")
        found: list[str] = self._page.evaluate(ticked)
        return found

    def _image(self, unlike: Pixels | None = None) -> Pixels:
        """The image with all that is drawn on it, once it no longer changes, (h, w, 3).

        If ``unlike`` is given, it is not that picture.

        There is a prediction to draw, and on a busy machine the image may be there long before.
        """
        self._page.wait_for_function("window.Htx?.annotationStore?.selected?.results?.length > 0")
        self._page.wait_for_function(
            "[...document.images].every(image => image.complete)"
            " && [...document.images].some(image => image.width > 50)"
        )
        before = self._picture()
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self._page.wait_for_timeout(STEP_MS)
            now = self._picture()
            is_new = unlike is None or not np.array_equal(now, unlike)
            if is_new and np.array_equal(before, now):
                return now
            before = now
        raise AssertionError("Label Studio's page goes on changing, or shows what it did before.")

    def _picture(self) -> Pixels:
        clip: dict[str, Any] = self._page.evaluate(
            """() => {
                const boxes = [...document.querySelectorAll('img')]
                    .map(image => image.getBoundingClientRect());
                const box = boxes.reduce((a, b) => (a.width > b.width ? a : b));
                return {x: box.x, y: box.y, width: box.width, height: box.height};
            }"""
        )
        with Image.open(io.BytesIO(self._page.screenshot(clip=clip))) as image:
            return np.asarray(image.convert("RGB"), np.int16)

    def _is_local(self, url: str) -> bool:
        return url.startswith((self._url, "data:", "blob:"))
