"""The server's own settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError
from support.offline import make_config

from cdal.backend.config import ServerConfig, server_config
from cdal.backend.errors import SettingsError
from cdal.backend.supervisor import web_command

VARIABLES = [name for names in ServerConfig.variables().values() for name in names]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://ls")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "secret")
    monkeypatch.setenv("PORT", "9191")
    monkeypatch.setenv("CDAL_THREADS", "3")
    config = ServerConfig()
    assert (config.label_studio_url, config.port, config.threads) == ("http://ls", 9191, 3)
    assert config.label_studio_api_key is not None
    assert config.label_studio_api_key.get_secret_value() == "secret"


def test_names_of_other_backends_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_HOST", "http://other")
    monkeypatch.setenv("LABEL_STUDIO_ACCESS_TOKEN", "secret\n")
    monkeypatch.setenv("THREADS", "3")
    config = ServerConfig()
    assert (config.label_studio_url, config.threads) == ("http://other", 3)
    assert config.secrets() == ["secret"]


def test_our_own_names_count_before_those_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_HOST", "http://other")
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://ls")
    monkeypatch.setenv("CDAL_THREADS", "")
    monkeypatch.setenv("THREADS", "3")
    assert (ServerConfig().label_studio_url, ServerConfig().threads) == ("http://ls", 3)


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_URL", "")
    monkeypatch.setenv("PORT", "")
    assert ServerConfig().label_studio_url is None
    assert ServerConfig().port == 9090


def test_no_secret_is_shown(tmp_path: Path) -> None:
    config = make_config(
        tmp_path,
        BASIC_AUTH_USER="ann",
        BASIC_AUTH_PASS="pass-word",
        database_url="postgresql://ann:database-word@host/name",
        redis_url="redis://:redis-word@host",
    )
    for secret in ("the-servers-key", "pass-word", "database-word", "redis-word"):
        assert secret not in repr(config) + str(config.model_dump_json())


def test_half_a_password_is_refused(tmp_path: Path) -> None:
    """It would leave the backend open to all while its operator thinks that it is not."""
    with pytest.raises(ValidationError, match="go together"):
        make_config(tmp_path, BASIC_AUTH_USER="ann")
    with pytest.raises(ValidationError, match="go together"):
        make_config(tmp_path, BASIC_AUTH_PASS="secret")


def test_a_key_goes_to_no_server_that_a_caller_names(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="needs LABEL_STUDIO_URL") as caught:
        make_config(tmp_path, LABEL_STUDIO_URL=None)
    assert "the-servers-key" not in str(caught.value)


def test_all_that_is_written_lies_in_the_data_folder(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    written = [
        config.jobs_file,
        config.images_folder,
        config.version_folder(3, 4),
        config.scores_folder(3, 4),
    ]
    assert all(path.is_relative_to(tmp_path) for path in written)
    assert config.store_url == f"sqlite:///{tmp_path}/cdal.sqlite"
    assert len(set(written)) == 4
    other = make_config(tmp_path, database_url="postgresql://db")
    assert other.store_url == "postgresql://db"


def test_the_data_folder_is_made_for_its_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_DIR", str(tmp_path / "a" / "b"))
    server_config.cache_clear()
    try:
        folder = server_config().data_folder
    finally:
        server_config.cache_clear()
    assert folder == tmp_path / "a" / "b"
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_newline_of_a_mounted_secret_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "LABEL_STUDIO_URL": " http://ls\n",
        "LABEL_STUDIO_API_KEY": "\ufeffa-token\r\n",
        "BASIC_AUTH_USER": "\ufeffann\n",
        "BASIC_AUTH_PASS": " pass word \n",
        "CDAL_DATABASE_URL": "sqlite:///x.sqlite\n",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    config = ServerConfig()
    assert config.label_studio_url == "http://ls"
    assert config.secrets() == ["a-token", " pass word ", "sqlite:///x.sqlite"]
    assert config.basic_auth_user == "ann"
    assert config.store_url == "sqlite:///x.sqlite"


@pytest.mark.parametrize("key", ["two words", "a\nb", "tökén", "a\x00b", '"quoted"', "'quoted'"])
def test_a_key_that_no_request_could_carry_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValidationError, match="characters that no token has") as caught:
        make_config(tmp_path, LABEL_STUDIO_API_KEY=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ({}, "127.0.0.1:9090"),
        ({"BASIC_AUTH_USER": "ann", "BASIC_AUTH_PASS": "x"}, "0.0.0.0:9090"),
        ({"host": "0.0.0.0"}, "0.0.0.0:9090"),
        ({"host": "127.0.0.1", "BASIC_AUTH_USER": "a", "BASIC_AUTH_PASS": "x"}, "127.0.0.1:9090"),
        ({"host": "::1"}, "[::1]:9090"),
    ],
)
def test_others_reach_it_only_with_a_password_or_where_the_operator_says_so(
    tmp_path: Path, given: dict[str, str], address: str
) -> None:
    command = web_command(make_config(tmp_path, **given))
    assert command[command.index("--bind") + 1] == address


@pytest.mark.parametrize("names", ["cdal.example:9090", "http://cdal.example", "a b", "x/y"])
def test_allowed_hosts_are_names(tmp_path: Path, names: str) -> None:
    with pytest.raises(ValidationError, match="is not a host name"):
        make_config(tmp_path, allowed_hosts=f"fine.example, {names}")


class TestWeightsFile:
    """A project's settings name a file; they are hostile until checked."""

    @pytest.fixture
    def config(self, tmp_path: Path) -> ServerConfig:
        folder = tmp_path / "weights"
        (folder / "ours").mkdir(parents=True)
        (folder / "ours" / "drn.pth").touch()
        (tmp_path / "secret.pth").touch()
        (folder / "link.pth").symlink_to(tmp_path / "secret.pth")
        (folder / "chain.pth").symlink_to("link.pth")
        (folder / "outside").symlink_to(tmp_path)
        (folder / "upwards").symlink_to("..")
        (folder / "loop").symlink_to("loop")
        (folder / "within.pth").symlink_to("ours/drn.pth")
        os.mkfifo(folder / "pipe.pth")  # reading it would wait for ever
        (folder / "device.pth").symlink_to("/dev/zero")
        return make_config(tmp_path / "data", weights_folder=folder)

    def test_none_is_asked_for(self, config: ServerConfig) -> None:
        assert config.weights_file(None) is None

    def test_a_file_in_the_folder(self, config: ServerConfig) -> None:
        assert config.weights_folder is not None
        expected = config.weights_folder.resolve() / "ours" / "drn.pth"
        assert config.weights_file("ours/drn.pth") == expected
        assert config.weights_file("ours/../ours/drn.pth") == expected

    @pytest.mark.parametrize(
        "name",
        ["../secret.pth", "link.pth", "ours", "", ".", "no.pth", "/etc/passwd", "a\0b", "ours/\0",
         "..\\secret.pth", "~/x", "x" * 200, "chain.pth", "outside/secret.pth",
         "upwards/secret.pth", "ours/../../secret.pth", "ours/../outside/secret.pth", "loop",
         "loop/x", "pipe.pth", "device.pth", "%2e%2e/secret.pth", "/proc/self/environ"],
    )  # fmt: skip
    def test_nothing_else(self, config: ServerConfig, name: str) -> None:
        with pytest.raises(SettingsError, match=r"there is no file \".*\" in the backend's folder"):
            config.weights_file(name)

    def test_a_link_within_the_folder_leads_to_its_file(self, config: ServerConfig) -> None:
        assert config.weights_folder is not None
        expected = config.weights_folder.resolve() / "ours" / "drn.pth"
        assert config.weights_file("within.pth") == expected

    def test_the_folder_itself_may_be_a_link(self, config: ServerConfig, tmp_path: Path) -> None:
        assert config.weights_folder is not None
        (tmp_path / "elsewhere").symlink_to(config.weights_folder)
        config.weights_folder, folder = tmp_path / "elsewhere", config.weights_folder
        assert config.weights_file("ours/drn.pth") == folder.resolve() / "ours" / "drn.pth"
        with pytest.raises(SettingsError):
            config.weights_file("../secret.pth")

    def test_by_its_whole_path_only_where_it_lies_in_the_folder(self, config: ServerConfig) -> None:
        assert config.weights_folder is not None
        inside = config.weights_folder / "ours" / "drn.pth"
        assert config.weights_file(str(inside)) == inside.resolve()
        with pytest.raises(SettingsError):
            config.weights_file(str(config.weights_folder.parent / "secret.pth"))

    def test_without_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="set CDAL_WEIGHTS_FOLDER"):
            make_config(tmp_path).weights_file("drn.pth")


@pytest.mark.parametrize(
    "url", ["localhost:8080", "ls.example.com", "ftp://ls", "http://", "http://[x"]
)
def test_an_address_of_label_studio_that_is_none(tmp_path: Path, url: str) -> None:
    """The backend used to start, and every job of every project failed."""
    with pytest.raises(ValidationError, match="must be an http"):
        make_config(tmp_path, LABEL_STUDIO_URL=url)


def test_image_hosts_that_are_none(tmp_path: Path) -> None:
    """The web process used to end with a traceback, again and again."""
    with pytest.raises(ValidationError, match="'http://x/y' is not a host name"):
        make_config(tmp_path, image_hosts="public, http://x/y")
