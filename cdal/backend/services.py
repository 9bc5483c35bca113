"""What every part of a process shares: configuration, store, jobs and images."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from cdal.backend.address import AllowedHosts
from cdal.backend.cache import DiskCache
from cdal.backend.config import ServerConfig
from cdal.backend.images import ImageSource, ImageStore
from cdal.backend.jobs import Jobs
from cdal.backend.label_studio.client import LabelStudioClient
from cdal.backend.label_studio.error import LabelStudioError
from cdal.backend.logs import never_show
from cdal.backend.messages import open_messages
from cdal.backend.networks import LoadedNetworks
from cdal.backend.spacing import Spacing
from cdal.backend.store import Store
from cdal.backend.tables import Project

THUMBNAIL_CACHE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Services:
    """Opened once a process."""

    config: ServerConfig
    store: Store
    jobs: Jobs
    images: ImageStore
    networks: LoadedNetworks
    thumbnails: DiskCache
    # Of what Label Studio's events ask for, which others may send: at once, unless too often.
    looks: Spacing = field(default_factory=lambda: Spacing(120, 0.5))
    trainings: Spacing = field(default_factory=lambda: Spacing(3, 60.0))
    strangers: Spacing = field(default_factory=lambda: Spacing(1, 10.0))

    @classmethod
    def open(cls, config: ServerConfig) -> Services:
        store = Store(config.store_url)
        return cls(
            config=config,
            store=store,
            jobs=Jobs(store, open_messages(config)),
            images=ImageStore(
                config.images_folder,
                config.image_cache_mb * 2**20,
                AllowedHosts.parse(config.image_hosts),
            ),
            networks=LoadedNetworks(config.device),
            thumbnails=DiskCache(config.data_folder / "thumbnails", THUMBNAIL_CACHE_BYTES),
        )

    def client(self, project: Project) -> LabelStudioClient:
        """A client for a project, signed in by the token that `/setup` found to work.

        Raises:
            LabelStudioError: there is no token at all.
        """
        # A project has a token of its own only where the server's may not read it.
        key = self.config.label_studio_api_key
        token = project.access_token or (key.get_secret_value() if key is not None else None)
        never_show(token, project.webhook_secret)
        if not token:
            raise LabelStudioError("There is no Label Studio token; set LABEL_STUDIO_API_KEY.")
        return _client(project.url, token, project.label_studio_id)

    def image_source(self, project: Project) -> ImageSource:
        """Where a project's images are read from."""
        return ImageSource(project.url, self.client(project).authorization)


@lru_cache(maxsize=64)
def _client(url: str, token: str, project: int) -> LabelStudioClient:
    return LabelStudioClient(url, token, project)
