"""The services that a process shares: configuration, store, jobs, images and networks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

from cdal.backend.addresses import AllowedHosts, server_address
from cdal.backend.config import ServerConfig
from cdal.backend.errors import CALL_AGAIN, GRANT_ACCESS, LabelStudioError
from cdal.backend.images.cache import DiskCache
from cdal.backend.images.inputs import InputReader
from cdal.backend.images.store import ImageSource, ImageStore
from cdal.backend.jobs.gathering import Gathering
from cdal.backend.jobs.manager import GivenUp, Jobs
from cdal.backend.jobs.messages import open_messages
from cdal.backend.jobs.rate_limit import Spacing
from cdal.backend.label_studio.client import LabelStudioClient
from cdal.backend.label_studio.clients import Clients
from cdal.backend.label_studio.remembered import Memory, Remembered
from cdal.backend.loaded_networks import LoadedNetworks
from cdal.backend.logs import never_show
from cdal.backend.store.database import Store
from cdal.backend.store.tables import Project
from cdal.models import WeightSources
from cdal.models.feature_store import FeatureStore

THUMBNAIL_CACHE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Services:
    """The services; opened once per process."""

    config: ServerConfig
    store: Store
    jobs: Jobs
    images: ImageStore
    features: FeatureStore
    networks: LoadedNetworks
    thumbnails: DiskCache
    clients: Clients = field(default_factory=Clients)
    memory: Memory = field(default_factory=Memory)
    gathering: Gathering = field(default_factory=Gathering)
    # Limits on what Label Studio's events cause, since anybody may send them.
    looks: Spacing = field(default_factory=lambda: Spacing(120, 0.5))
    trainings: Spacing = field(default_factory=lambda: Spacing(3, 60.0))
    strangers: Spacing = field(default_factory=lambda: Spacing(1, 10.0))

    @classmethod
    def open(cls, config: ServerConfig, on_given_up: GivenUp) -> Services:
        """Open everything; `on_given_up` is the loop's hook for jobs that are given up."""
        store = Store(config.store_url)
        return cls(
            config=config,
            store=store,
            jobs=Jobs(store, partial(open_messages, config), on_given_up, config.worker_threads),
            images=ImageStore(
                config.images_folder,
                config.image_cache_mb * 2**20,
                AllowedHosts.parse(config.image_hosts),
            ),
            features=FeatureStore(config.features_folder, config.features_mb * 2**20),
            networks=LoadedNetworks(config.device, replace(_sources(config), downloads=False)),
            thumbnails=DiskCache(config.data_folder / "thumbnails", THUMBNAIL_CACHE_BYTES),
        )

    def close(self) -> None:
        """Close the databases."""
        self.jobs.close()
        self.store.close()

    @property
    def weight_sources(self) -> WeightSources:
        """Where published weights may come from."""
        return _sources(self.config)

    def client(self, project: Project) -> LabelStudioClient:
        """A client for a project, signed in by the token that `/setup` found to work.

        Raises:
            LabelStudioError: there is no token at all.
        """
        token = self.token(project)
        never_show(token, project.webhook_secret)
        if token is None:
            raise _no_token(project.url, self.config.label_studio_url)
        return self.clients.get(project.url, token, project.label_studio_id)

    def token(self, project: Project) -> str | None:
        """The token for a project's Label Studio, if there is one."""
        # A project has its own token only if the server's token cannot read it.
        key, home = self.config.label_studio_api_key, self.config.label_studio_url
        is_home = home is not None and server_address(project.url) == server_address(home)
        if project.access_token or key is None or not is_home:
            return project.access_token or None
        return key.get_secret_value()

    def remembered(self, project: Project) -> Remembered:
        """What this process remembers of a project in Label Studio."""
        return self.memory.of(project.url, project.label_studio_id)

    def image_source(self, project: Project) -> ImageSource:
        """The source of a project's images."""
        return ImageSource(project.url, self.client(project).authorization, project.public_url)

    def input_reader(self, project: Project) -> InputReader:
        """Reads a project's images for networks."""
        return InputReader(self.images, self.features, self.image_source(project))


def _no_token(url: str, home: str | None) -> LabelStudioError:
    if home is None or server_address(url) == server_address(home):
        return LabelStudioError(
            f"There is no token for Label Studio at {url}; set LABEL_STUDIO_URL and "
            "LABEL_STUDIO_API_KEY.",
            advice=GRANT_ACCESS,
        )
    return LabelStudioError(
        f"The project is connected to Label Studio at {url}, but LABEL_STUDIO_URL is now {home}.",
        advice=CALL_AGAIN,
    )


def _sources(config: ServerConfig) -> WeightSources:
    return WeightSources(config.weights_folder, config.downloads, config.downloads_folder)
