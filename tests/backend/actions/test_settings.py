"""Settings changed on the pages: checked, then written where Label Studio has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from support.offline import add_project, jobs_of, make_services

from cdal.backend.actions import change_settings, known_settings
from cdal.backend.errors import ActionError, ConfigError, LabelStudioError
from cdal.backend.services import Services
from cdal.backend.store.tables import Event, Project


class Written:
    """A fake of the one call: what the real one does is in test_pages_in_browser.py."""

    def __init__(self) -> None:
        self.settings: Mapping[str, Any] | None = None
        self.refusal: LabelStudioError | None = None

    def write_settings(self, backend_url: str | None, settings: Mapping[str, Any]) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.settings = settings


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    fake = Written()
    monkeypatch.setattr(Services, "client", lambda *_: fake)
    return fake


def test_they_are_written_noted_and_counted_from_now(tmp_path: Path, written: Written) -> None:
    services = make_services(tmp_path)
    project = add_project(services, extra_params={"budget": 40, "seed": 3})
    done = change_settings(services, project.id, {"budget": 20, "selector": "entropy"}, "ann")
    assert done.text == (
        "The settings are changed: budget 40 → 20, selector default → entropy, seed 3 → default."
    )
    assert written.settings == {"budget": 20, "selector": "entropy"}
    with services.store.reading() as session:
        assert session.get_one(Project, project.id).extra_params == written.settings
        (event,) = session.scalars(select(Event.text)).all()
    assert event.startswith("Settings changed by ann: budget 40 → 20")
    assert jobs_of(services) == [("sync", "pending")]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"budget": 0}, 'Setting "budget" must be at least 1, not 0'),
        ({"bugdet": 5}, 'did you mean "budget"'),
        ({"network": "drn_d_22"}, "not a network for classification"),
        ({"weights": "mine.safetensors"}, "no folder for weights"),
        ({"control": "nothing"}, 'no control "nothing"'),
    ],
)
def test_what_is_wrong_is_said_and_nothing_written(
    tmp_path: Path, written: Written, settings: dict[str, Any], words: str
) -> None:
    services = make_services(tmp_path)
    project = add_project(services)
    with pytest.raises(ConfigError, match=words):
        change_settings(services, project.id, settings, "ann")
    assert written.settings is None


def test_what_label_studio_refuses_changes_nothing(tmp_path: Path, written: Written) -> None:
    services = make_services(tmp_path)
    project = add_project(services, extra_params={"budget": 40})
    written.refusal = LabelStudioError("Label Studio refused to write the settings: 403", 403)
    with pytest.raises(ActionError, match="The settings are unchanged"):
        change_settings(services, project.id, {"budget": 20}, "ann")
    with services.store.reading() as session:
        assert session.get_one(Project, project.id).extra_params == {"budget": 40}


def test_settings_that_cannot_be_read_are_none() -> None:
    assert known_settings("{") == {}
    assert known_settings('{"budget": 7}') == {"budget": 7}
