"""A Label Studio server for the demo and the tests: on SQLite, reachable from this machine only."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import httpx

from cdal.demo.migrated import copy_migrated
from cdal.demo.process import NO_TLS, DemoError, ServerProcess

START_SECONDS = 900.0
"""How long a start may take; with the migrations it needs a minute of CPU time."""


class LabelStudioServer(ServerProcess):
    """Label Studio in a folder of its own; a second start goes on with the same data.

    Args:
        folder: for its database, uploads and log.
        port: the port to listen on, on the loopback address.
        token: the first user's legacy token, 40 hexadecimal digits.
        images: a folder whose images tasks may name as `/data/local-files/?d=PATH`.
    """

    EMAIL = "admin@example.com"
    PASSWORD = "label-studio-demo"  # noqa: S105 — only this machine can reach the server

    def __init__(self, folder: Path, port: int, token: str, images: Path) -> None:
        self.url = f"http://localhost:{port}"
        self.token = token
        self.images = images
        self._data_folder = folder / "data"
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
                "LABEL_STUDIO_BASE_DATA_DIR": str(self._data_folder),
                "LABEL_STUDIO_HOST": self.url,
                # The three that matter: see the README's troubleshooting.
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

    def start(self) -> None:
        """Start it; a new one begins with a copy of a migrated database.

        Raises:
            DemoError: it is not installed.
        """
        if not Path(self.command[0]).exists():
            raise DemoError(
                "Label Studio is not installed beside cdal: pip install 'label-studio-cdal[demo]'"
            )
        self.log.parent.mkdir(parents=True, exist_ok=True)
        copy_migrated(self._data_folder, self.command[:1], self.environment, self.log)
        super().start()

    def sign_up(self, email: str, password: str) -> str:
        """Create another user, as a person would in the browser; returns the user's token."""
        with httpx.Client(
            base_url=self.url, follow_redirects=True, timeout=120.0, verify=NO_TLS
        ) as browser:
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
