"""An admin's browser on the backend's pages, with its network requests and axe's findings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from cdal.demo.backend import BackendServer
from support.processes import PATIENCE

PATIENCE_MS = 1000 * PATIENCE
expect.set_options(timeout=PATIENCE_MS)
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}


class Admin:
    """Somebody who looks after a project, numbered as the backend numbers it."""

    def __init__(self, page: Page, backend: BackendServer, number: int) -> None:
        self.page = page
        self.address = f"{backend.url}/projects/{number}"
        self._home = backend.url
        self.elsewhere: list[str] = []
        self.faults: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", lambda request: self._watch(request.url))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda said: said.type == "error" and self.faults.append(said.text))

    def _watch(self, url: str) -> None:
        if not url.startswith((f"{self._home}/", "data:")):
            self.elsewhere.append(url)

    def open(self, path: str = "") -> None:
        answer = self.page.goto(f"{self.address}{path}")
        assert answer is not None
        assert answer.ok, answer.status

    def sees(self, text: str, where: str = "main") -> None:
        """Wait until a text appears on the page without reloading it."""
        expect(self.page.locator(where)).to_contain_text(text)

    def press(self, name: str, sure: str | None = None) -> None:
        """Press a button, and confirm if it asks."""
        role = "button" if sure is None else "link"
        self.page.get_by_role(role, name=name, exact=True).first.click()
        if sure is not None:
            self.page.get_by_role("button", name=sure, exact=True).click()

    def findings(self) -> list[str]:
        """The violations that axe rates serious or worse."""
        violations = Axe().run(self.page).response["violations"]
        return [
            f"{one['id']}: {one['nodes'][0]['html'][:200]}"
            for one in violations
            if one["impact"] in ("serious", "critical")
        ]

    def overflow(self) -> int:
        """How many pixels the page is wider than the window."""
        return int(
            self.page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
        )


@contextmanager
def admin(
    chromium: Browser,
    backend: BackendServer,
    number: int,
    window: dict[str, int],
    scheme: str = "light",
) -> Iterator[Admin]:
    context = chromium.new_context(viewport=window, color_scheme=scheme)
    try:
        yield Admin(context.new_page(), backend, number)
    finally:
        context.close()
