"""The settings' page: each with its help, checked before it is written to Label Studio."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from flask import request, url_for
from pydantic.fields import FieldInfo
from werkzeug.wrappers import Response

from cdal.backend.actions import change_settings, known_settings
from cdal.backend.errors import ConfigError
from cdal.backend.reports.project import project_view
from cdal.backend.settings import ProjectSettings
from cdal.backend.web.pages.actions import back
from cdal.backend.web.pages.site import page, project_or_404, site
from cdal.backend.web.request import ID, asked_by, services

_NAMED = re.compile(r'"([a-z_]+)"')


@dataclass(frozen=True, slots=True)
class Field:
    """One setting in the form.

    Attributes:
        name: of the setting.
        help: what it does.
        choices: its possible values; empty: any that pass the check.
        value: the current value as text; empty for the default.
        default: in words.
        numeric: whether it takes a number.
    """

    name: str
    help: str
    choices: tuple[str, ...]
    value: str
    default: str
    numeric: bool


@site.get(f"/projects/<{ID}:number>/settings")
def settings(number: int) -> str:
    return _form(number, None, None)


@site.post(f"/projects/<{ID}:number>/settings")
def save_settings(number: int) -> Response | tuple[str, int]:
    typed = {
        name: request.form[name].strip()
        for name in ProjectSettings.model_fields
        if request.form.get(name, "").strip()
    }
    wanted = {name: _read(text, ProjectSettings.model_fields[name]) for name, text in typed.items()}
    address = request.host_url.rstrip("/")
    try:
        done = change_settings(services(), number, wanted, asked_by(), address)
    except ConfigError as error:
        return _form(number, typed, str(error)), 400
    return back(url_for("pages.settings", number=number), done)


def _form(number: int, typed: Mapping[str, str] | None, problem: str | None) -> str:
    with services().store.reading() as session:
        project = project_or_404(session, number)
        view = project_view(session, project)
    if typed is None:
        typed = {name: _text(value) for name, value in known_settings(project.extra_params).items()}
    named = _NAMED.search(problem or "")
    return page(
        "settings.html",
        project=view,
        fields=[_field(name, typed.get(name, "")) for name in ProjectSettings.model_fields],
        problem=problem,
        wrong=named[1] if named else None,
    )


def _field(name: str, value: str) -> Field:
    info = ProjectSettings.model_fields[name]
    default: Any = info.get_default(call_default_factory=True)
    kinds = _kinds(info)
    choices = [_text(choice) for kind in kinds for choice in _choices(kind)]
    return Field(
        name=name,
        help=info.description or "",
        choices=tuple(choices),
        value=value,
        default="chosen by the backend" if default is None else _text(default),
        numeric=bool({int, float} & set(kinds)),
    )


def _kinds(info: FieldInfo) -> tuple[Any, ...]:
    """The types that a setting may have, except None."""
    kind = info.annotation
    if kind is None or get_origin(kind) is Literal or not get_args(kind):
        return (kind,)
    if get_origin(kind) is dict:
        return (dict,)
    return tuple(one for one in get_args(kind) if one is not type(None))


def _choices(kind: Any) -> tuple[Any, ...]:
    if kind is bool:
        return (True, False)
    return get_args(kind) if get_origin(kind) is Literal else ()


def _read(text: str, info: FieldInfo) -> Any:
    """A typed value, as JSON where the setting is not text; it is checked later."""
    if str in _kinds(info):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
