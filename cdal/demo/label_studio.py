"""A Label Studio server of one's own, for the demo and the tests: SQLite, this machine only."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import httpx

from cdal.demo.process import DemoError, ServerProcess

START_SECONDS = 300.0


class LabelStudioServer(ServerProcess):
    """Label Studio in a folder of its own; a second start goes on with the same data.

    Args:
        folder: for its database, uploads and log.
        port: to listen on, on the loopback address.
        token: the first user's legacy token, 40 hexadecimal digits.
        images: a folder whose images tasks may name as `/data/local-files/?d=PATH`.
    """

    EMAIL = "admin@example.com"
    PASSWORD = "label-studio-demo"  # noqa: S105 — of a server that this machine alone can reach

    def __init__(self, folder: Path, port: int, token: str, images: Path) -> None:
        self.url = f"http://localhost:{port}"
        self.token = token
        self.images = images
        super().__init__(
            name="Label Studio",
            command=[
                str(Path(sys.executable).with_name("label-studio")),
                "start",
                "--no-browser",
                "--internal-host",
                "127.0.0.1",
                "--port",
                str(port),
                "--username",
                self.EMAIL,
                "--password",
                self.PASSWORD,
                "--user-token",
                token,
            ],
            environment={
                "LABEL_STUDIO_BASE_DATA_DIR": str(folder / "data"),
                "LABEL_STUDIO_HOST": self.url,
                # The three that bite: see the README's troubleshooting.
                "ML_BLOCK_LOCAL_IP": "false",
                "SSRF_PROTECTION_ENABLED": "false",
                "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
                "LOCAL_FILES_SERVING_ENABLED": "true",
                "LOCAL_FILES_DOCUMENT_ROOT": str(images),
                "COLLECT_ANALYTICS": "False",
                "LATEST_VERSION_CHECK": "False",
                "SENTRY_DSN": "",
                "FRONTEND_SENTRY_DSN": "",
                "PYTHONUNBUFFERED": "1",
            },
            log=folder / "label-studio.log",
        )

    def sign_up(self, email: str, password: str) -> str:
        """Make another user, as a person would in the browser; returns the user's token."""
        with httpx.Client(base_url=self.url, follow_redirects=True, timeout=30.0) as browser:
            page = browser.get("/user/signup/")
            found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
            if found is None:
                raise DemoError("Label Studio's sign-up page has no form.")
            browser.post(
                "/user/signup/",
                data={
                    "csrfmiddlewaretoken": found[1],
                    "email": email,
                    "password": password,
                    "allow_newsletters": "false",
                },
                headers={"Referer": f"{self.url}/user/signup/"},
            )
            answer = browser.get("/api/current-user/token")
            if answer.status_code != httpx.codes.OK:
                raise DemoError(f"Label Studio did not sign {email} up.")
            token: str = answer.json()["token"]
            return token
