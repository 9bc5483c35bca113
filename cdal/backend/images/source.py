"""Where images come from: which addresses task data may contain, and how they are reached."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote

from urllib3.connection import port_by_scheme
from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from cdal.backend.errors import ImageError

# The storages whose files Label Studio resolves (io_storages: s3, gcs, azure_blob). Local-file
# storage writes /data/local-files/ addresses; Redis storage holds tasks, not files.
_STORAGES = ("s3://", "gs://", "azure-blob://")
# Paths at which Label Studio serves images. Its token is sent to no other path, so that a task
# cannot make the backend call Label Studio's API with the rights of the token's owner.
_OWN_PATH = re.compile(
    r"/data/upload/.+"
    r"|/data/local-files/?"
    r"|/storage-data/uploaded/?"
    r"|/(tasks|projects)/[0-9]+/(resolve|presign)/?"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_MAX_LENGTH = 16_384
_MOST_DECODINGS = 5


@dataclass(frozen=True, slots=True)
class ImageSource:
    """How to reach a project's images.

    Attributes:
        url: Label Studio's address, such as ``http://localhost:8080`` or
            ``https://example.com/label-studio``.
        authorization: Gives the headers for a request to Label Studio; called for each one, and
            their values go nowhere else.
        public_url: The address that Label Studio writes into task data as its own, if it differs:
            the one that browsers use. Images are fetched from `url` all the same.
    """

    url: str
    authorization: Callable[[], Mapping[str, str]]
    public_url: str | None = None

    def locate(self, task_id: int, value: object) -> Url:
        """The address of the image in a task's data.

        Raises:
            ImageError: the value may not be fetched; the reason says why.
        """
        if not isinstance(value, str):
            raise ImageError(f"The task's image is a {type(value).__name__}, not an address.")
        value = value.strip(" ")
        if not value:
            raise ImageError("The task names no image.")
        if len(value) > _MAX_LENGTH:
            raise ImageError("The image's address is too long.")
        if _CONTROL.search(value):
            raise ImageError("The image's address contains control characters.")
        if value.startswith(_STORAGES):
            file = urlsafe_b64encode(value.encode()).decode()
            return parse_address(f"{self.url.rstrip('/')}/tasks/{task_id}/resolve/?fileuri={file}")
        if value.startswith("/"):
            return self._own_address(value)
        address = parse_address(value)
        return self._within(address) or address

    def owns(self, address: Url) -> bool:
        """Whether Label Studio itself serves an image there, so that its token may be sent."""
        home = parse_url(self.url)
        base = (home.path or "").rstrip("/")
        path = address.path or ""
        if _origin(address) != _origin(home) or not path.startswith(base):
            return False
        # Label Studio itself keeps local files within its roots and writes no such segments.
        if _climbs(path) or any(map(_climbs, parse_qs(address.query or "").get("d", ()))):
            return False
        return _OWN_PATH.fullmatch(path.removeprefix(base)) is not None

    def _own_address(self, value: str) -> Url:
        home, public = parse_url(self.url), parse_url(self.public_url or "")
        base, public_base = (home.path or "").rstrip("/"), (public.path or "").rstrip("/")
        # If Label Studio runs under a path, it writes that path into the addresses of uploads. A
        # proxy may cut it off, so that the backend reaches Label Studio without it.
        below = [
            value.removeprefix(path) for path in (base, public_base) if _lies_below(value, path)
        ]
        for rest in (*below, value):
            address = parse_address(f"{home.scheme}://{home.netloc}{base}{rest}")
            if self.owns(address):
                return address
        raise ImageError("The image's address is not a path at which Label Studio serves files.")

    def _within(self, address: Url) -> Url | None:
        """Where to fetch an image that Label Studio serves at its public address."""
        public = parse_url(self.public_url or "")
        path = address.path or ""
        base = (public.path or "").rstrip("/")
        if _site(address) != _site(public) or not path.startswith(f"{base}/"):
            return None
        query = "" if address.query is None else f"?{address.query}"
        moved = parse_address(f"{self.url.rstrip('/')}{path.removeprefix(base)}{query}")
        return moved if self.owns(moved) else None


def parse_address(text: str) -> Url:
    """Parse an absolute http(s) address with the parser of the client that will connect to it.

    Raises:
        ImageError: it is something else, or contains a user name, or a backslash, after which
            browsers and clients disagree about the host.
    """
    before_query = re.split(r"[?#]", text, maxsplit=1)[0]
    scheme, separator, rest = before_query.partition("://")
    if not separator or scheme.lower() not in port_by_scheme:
        raise ImageError(
            "The image's address cannot be fetched: it must be an upload, a local file "
            "that Label Studio serves, an http(s) address, or a file of a connected cloud storage."
        )
    if "\\" in before_query:
        raise ImageError("The image's address contains a backslash.")
    if "@" in rest.partition("/")[0]:
        raise ImageError("The image's address contains a user name or password.")
    try:
        address = parse_url(text)
        # The resolver would encode it, too, but cannot report a label that is too long.
        (address.host or "").rstrip(".").encode("idna")
    except (LocationParseError, UnicodeError):
        address = Url()
    if not address.host or address.auth or address.port == 0:
        raise ImageError("The image's address names no valid host.")
    return address


def _climbs(path: str) -> bool:
    """Whether a path has a dot segment, however often it is decoded.

    A proxy in front of Label Studio may decode it, treat a backslash as a slash, or cut off what
    follows a semicolon.
    """
    for _ in range(_MOST_DECODINGS):
        segments = re.split(r"[/\\]", path)
        if not {".", ".."}.isdisjoint(segment.partition(";")[0] for segment in segments):
            return True
        encoded, path = path, unquote(path)
        if path == encoded:
            return False
    return True


def _lies_below(path: str, base: str) -> bool:
    return base != "" and path.startswith(f"{base}/")


def _site(address: Url) -> tuple[str, int | None]:
    """Host and port; http and https are one, since a proxy may redirect from one to the other."""
    port = None if address.port in (80, 443) else address.port
    return (address.host or "").rstrip("."), port


def _origin(address: Url) -> tuple[str | None, str, int | None]:
    port = address.port or port_by_scheme.get(address.scheme or "")
    return address.scheme, (address.host or "").rstrip("."), port
