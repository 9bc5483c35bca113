"""The server's settings: environment variables, read once at the start."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from cdal.backend.addresses import AllowedHosts
from cdal.backend.errors import SettingsError
from cdal.backend.text import is_token
from cdal.text import one_line

# How an address may begin, with the library that it needs and the extra that installs it.
DATABASES = {
    "postgresql://": ("psycopg", "postgresql"),
    "postgresql+psycopg://": ("psycopg", "postgresql"),
    "sqlite:///": ("sqlite3", ""),
}
REDIS = dict.fromkeys(("redis://", "rediss://", "unix://"), ("redis", "redis"))


OWN_THREADS = 4
"""Threads of a web process that only Label Studio's short calls get, see web/places.py."""


class ServerConfig(BaseSettings):
    """What an operator sets. Variables of other ML backends keep their names.

    Where a setting has two names, the first one counts if both are set.
    """

    model_config = SettingsConfigDict(
        env_prefix="CDAL_",
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,  # it may be a secret
    )

    label_studio_url: str | None = Field(
        None,
        validation_alias=AliasChoices("LABEL_STUDIO_URL", "LABEL_STUDIO_HOST"),
        description="Label Studio's address; by default the one that it sends at set-up.",
    )
    label_studio_api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("LABEL_STUDIO_API_KEY", "LABEL_STUDIO_ACCESS_TOKEN"),
        description="Personal access token or legacy token of a user who may read and change the "
        "projects; by default the token that Label Studio sends at set-up.",
    )
    basic_auth_user: str | None = Field(
        None, validation_alias="BASIC_AUTH_USER", description="User name that callers must send."
    )
    basic_auth_pass: SecretStr | None = Field(
        None, validation_alias="BASIC_AUTH_PASS", description="Password that callers must send."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", validation_alias="LOG_LEVEL", description="Least severe messages that are logged."
    )
    log_format: Literal["text", "json"] = Field(
        "text",
        description="Lines for people, or JSON lines with project, round and job for programs.",
    )
    data_folder: Path = Field(
        Path("cdal-data"),
        validation_alias="MODEL_DIR",
        description="Folder for database, jobs, weights, scores and cached images.",
    )
    host: str | None = Field(
        None,
        description="Address to listen on; by default `127.0.0.1`, which only this machine "
        "reaches, and with a password `0.0.0.0`, which every network reaches.",
    )
    port: int = Field(
        9090, ge=0, le=65535, validation_alias="PORT", description="Port to listen on."
    )
    allowed_hosts: str | None = Field(
        None,
        description="Comma-separated names by which browsers may call the backend, besides this "
        "machine's names, IP addresses and the names by which Label Studio calls it; `*` allows "
        "any name. By default, any with a password, and none without.",
    )
    threads: int = Field(
        8,
        ge=1,
        validation_alias=AliasChoices("CDAL_THREADS", "THREADS"),
        description="Calls of `/predict` that are answered at the same time. There are as many "
        "threads for pages and the API, and some for Label Studio's short calls.",
    )
    worker_threads: int = Field(
        11,
        ge=6,
        description="Jobs that run at the same time: one training, up to three that score or "
        "select, one for the pages, one in the background, one for upkeep, and the short ones that "
        "notice new labels and refill the queues; one of those is left for other Label Studios. "
        "With fewer than 11, fewer projects are scored at the same time.",
    )
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Workers that `cdal serve` starts, each with its own GPU as far as there are "
        "several. More than one needs PostgreSQL.",
    )
    compute_threads: int | None = Field(
        None,
        ge=1,
        description="CPU threads of torch in each worker; by default all workers together have one "
        "per core. Heads for masks and boxes learn with one thread fewer.",
    )
    database_url: SecretStr | None = Field(
        None,
        description="Address of the database, such as `postgresql://user:password@host/name`; "
        "by default SQLite in the data folder.",
    )
    redis_url: SecretStr | None = Field(
        None,
        description="Address of the Redis database that carries jobs to the worker, such as "
        "`redis://host:6379/0`; by default a file in the data folder.",
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    engine: Literal["local", "ray"] = Field(
        "local",
        description="Where pools are scored and networks are trained in full: in the workers "
        '("local"), or on a Ray cluster; see [scaling](scaling.md).',
    )
    ray_address: str = Field(
        "auto",
        description='The Ray cluster, as `host:port`; the worker runs on one of its nodes. "auto" '
        "is the cluster that this machine belongs to.",
    )
    weights_folder: Path | None = Field(
        None,
        description="Folder with pretrained weights, which come before those found elsewhere: "
        "torchvision's files under their own names, timm's as `NAME.safetensors`; and with your "
        "own weights for the setting `weights`.",
    )
    downloads: bool = Field(
        True,
        description="Whether published weights that are not on this machine are downloaded, from "
        "huggingface.co (or `HF_ENDPOINT`) and download.pytorch.org, into the data folder.",
    )
    image_hosts: str = Field(
        "public",
        description="Comma-separated hosts from which images may be fetched, besides Label Studio; "
        '"public" allows every public address.',
    )
    image_cache_mb: int = Field(2048, ge=0, description="Disk space for cached images in MB.")
    features_mb: int = Field(
        4096,
        ge=0,
        description="Disk space in MB for the features of images that pretrained backbones have "
        "seen; the oldest go first, and are computed again where they are needed.",
    )

    keep_versions: int = Field(
        5,
        ge=2,
        description="Model versions per project whose weights are kept, besides the serving one; "
        "only these can be rolled back to.",
    )
    keep_days: int = Field(
        90,
        ge=1,
        description="Days for which events, jobs, comparisons for closed rounds and, in Label "
        "Studio, their predictions are kept.",
    )

    @classmethod
    def variables(cls) -> dict[str, list[str]]:
        """The environment variables that each setting is read from, the first first."""
        return {name: _variables(name, field) for name, field in cls.model_fields.items()}

    @model_validator(mode="after")
    def _check_pairs(self) -> ServerConfig:
        # Half a login would protect nothing, and a key without an address would be sent to
        # whatever server the next caller of `/setup` names.
        if (self.basic_auth_user is None) != (self.basic_auth_pass is None):
            raise ValueError(
                "BASIC_AUTH_USER and BASIC_AUTH_PASS go together; set both or neither."
            )
        if self.label_studio_api_key is not None and self.label_studio_url is None:
            raise ValueError(
                "LABEL_STUDIO_API_KEY needs LABEL_STUDIO_URL, the server that it belongs to."
            )
        if self.workers > 1 and self.has_one_worker:
            raise ValueError(
                "CDAL_WORKERS above 1 needs CDAL_DATABASE_URL, the address of a PostgreSQL "
                "database: SQLite is for one worker."
            )
        return self

    @field_validator(
        "label_studio_url", "label_studio_api_key", "database_url", "redis_url", mode="before"
    )
    @classmethod
    def _strip(cls, value: object) -> object:
        # A secret that is mounted as a file often ends in a newline, or begins with a mark that
        # editors write.
        return value.removeprefix("\ufeff").strip() if isinstance(value, str) else value

    @field_validator("basic_auth_user", "basic_auth_pass", mode="before")
    @classmethod
    def _strip_line_end(cls, value: object) -> object:
        return value.removeprefix("\ufeff").rstrip("\r\n") if isinstance(value, str) else value

    @field_validator("label_studio_url")
    @classmethod
    def _check_address(cls, url: str | None) -> str | None:
        if url is not None:
            try:
                parts = urlsplit(url)
                known = parts.scheme in ("http", "https") and bool(parts.hostname)
            except ValueError:  # of a bracket that is not closed, for example
                known = False
            if not known:
                raise ValueError(
                    "it must be an http(s) address, such as https://label-studio.example.com"
                )
        return url

    @field_validator("image_hosts")
    @classmethod
    def _check_image_hosts(cls, text: str) -> str:
        AllowedHosts.parse(text)
        return text

    @field_validator("label_studio_api_key")
    @classmethod
    def _check_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not is_token(key.get_secret_value()):
            raise ValueError("it contains characters that no token has")
        return key

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, text: str | None) -> str | None:
        for name in _names_in(text):
            if name != "*" and not re.fullmatch(r"[\w.-]+", name):
                raise ValueError(f"{one_line(name)!r} is not a host name; it takes no port or path")
        return text

    @field_validator("database_url")
    @classmethod
    def _check_database(cls, url: SecretStr | None) -> SecretStr | None:
        return _checked(url, DATABASES)

    @field_validator("engine")
    @classmethod
    def _check_engine(cls, engine: str) -> str:
        if engine == "ray" and find_spec("ray") is None:
            raise ValueError("it needs a library: pip install 'label-studio-cdal[ray]'")
        return engine

    @field_validator("ray_address")
    @classmethod
    def _check_ray_address(cls, address: str) -> str:
        if "://" in address:
            raise ValueError(
                'it is "auto" or host:port; Ray\'s own client (ray://) is not supported, so the '
                "worker must run on a node of the cluster"
            )
        if address != "auto" and not re.fullmatch(r".+:\d{1,5}", address):
            raise ValueError('it is "auto" or host:port, such as head:6379')
        return address

    @field_validator("redis_url")
    @classmethod
    def _check_redis(cls, url: SecretStr | None) -> SecretStr | None:
        return _checked(url, REDIS)

    @property
    def listening_host(self) -> str:
        """The address to listen on."""
        if self.host is not None:
            return self.host
        return "127.0.0.1" if self.basic_auth_user is None else "0.0.0.0"  # noqa: S104

    @property
    def host_names(self) -> frozenset[str]:
        """The names that the operator allows, in lower case."""
        return _names_in(self.allowed_hosts)

    @property
    def has_one_worker(self) -> bool:
        """Whether the database is SQLite's file, which is for one machine and one worker."""
        return self.store_url.startswith("sqlite")

    @property
    def store_url(self) -> str:
        """SQLAlchemy address of the database; it may contain a password."""
        if self.database_url is None:
            return f"sqlite:///{self.data_folder / 'cdal.sqlite'}"
        return self.database_url.get_secret_value()

    def weights_file(self, name: str | None) -> Path | None:
        """The file with the user's own weights that a project's settings name; None if they do not.

        Raises:
            SettingsError: there is no such file in the weights folder.
        """
        if name is None:
            return None
        if self.weights_folder is None:
            raise SettingsError(
                'Setting "weights": the backend has no folder for weights; set '
                "CDAL_WEIGHTS_FOLDER on the server."
            )
        # Settings come from outside, so neither .. nor a link may lead out of the folder.
        folder = self.weights_folder.resolve()
        try:
            file = (folder / name.replace("\0", "")).resolve()
            found = file.is_relative_to(folder) and file.is_file()
        except (OSError, RuntimeError):  # a circle of links
            found = False
        if not found:
            raise SettingsError(
                f'Setting "weights": there is no file "{one_line(name)}" in the backend\'s folder '
                "for weights."
            )
        return file

    def secrets(self) -> list[str]:
        """What must not appear in any log."""
        given = (
            self.label_studio_api_key,
            self.basic_auth_pass,
            self.database_url,
            self.redis_url,
        )
        return [secret.get_secret_value() for secret in given if secret is not None]

    @property
    def web_threads(self) -> int:
        """Threads of a web process: for predictions, as many others, and Label Studio's calls."""
        return 2 * self.threads + OWN_THREADS

    @property
    def jobs_file(self) -> Path:
        return self.data_folder / "jobs.sqlite"

    @property
    def downloads_folder(self) -> Path:
        """Where published weights are kept that were downloaded."""
        return self.data_folder / "weights"

    @property
    def images_folder(self) -> Path:
        return self.data_folder / "images"

    @property
    def features_folder(self) -> Path:
        return self.data_folder / "features"

    def project_folder(self, project_id: int) -> Path:
        """Folder of a project's weights and scores; the number is the store's."""
        return self.data_folder / "projects" / str(project_id)

    def version_folder(self, project_id: int, number: int) -> Path:
        """Folder of a model version's weights."""
        return self.project_folder(project_id) / "versions" / str(number)

    def export_file(self, project_id: int, number: int, file_format: str) -> Path:
        """A model version for other programs, as a zip."""
        return self.exports_folder(project_id) / f"version-{number}-{file_format}.zip"

    def exports_folder(self, project_id: int) -> Path:
        """Folder of a project's model versions for other programs."""
        return self.project_folder(project_id) / "exports"

    def unfinished_versions(self, project_id: int, job_id: int, attempt: int) -> Path:
        """Folder in which an attempt at a job writes versions before they have numbers."""
        return self.project_folder(project_id) / "versions" / f".job-{job_id}-{attempt}"

    def scores_folder(self, project_id: int, number: int) -> Path:
        """Folder of a model version's scores of the pool, or of those of `UNTRAINED`."""
        return self.project_folder(project_id) / "scores" / str(number)


def _variables(name: str, field: FieldInfo) -> list[str]:
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return [str(choice) for choice in alias.choices]
    return [str(alias or f"CDAL_{name.upper()}")]


def _names_in(text: str | None) -> frozenset[str]:
    names = (name.strip().rstrip(".").lower() for name in (text or "").split(","))
    return frozenset(filter(None, names))


def _checked(url: SecretStr | None, known: Mapping[str, tuple[str, str]]) -> SecretStr | None:
    if url is None:
        return None
    begin = next((name for name in known if url.get_secret_value().startswith(name)), None)
    if begin is None:
        raise ValueError(f"it must begin with one of {', '.join(known)}")
    library, extra = known[begin]
    if find_spec(library) is None:
        raise ValueError(f"it needs a library: pip install 'label-studio-cdal[{extra}]'")
    return url


@lru_cache(maxsize=1)
def server_config() -> ServerConfig:
    """The configuration of this process; creates the data folder."""
    config = ServerConfig()
    config.data_folder = config.data_folder.resolve()
    config.data_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return config
