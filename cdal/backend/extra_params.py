"""Extra params as people typed them: their JSON, and sentences about what is wrong with them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import ValidationError

from cdal.backend.errors import SettingsError
from cdal.text import one_line


def read_typed(extra_params: object) -> Mapping[str, Any]:
    """What Label Studio sent as an object, which may be JSON or its text; empty if nothing.

    Raises:
        SettingsError: it is not a JSON object, or contains half a character.
    """
    if isinstance(extra_params, str):
        extra_params = _read_json(extra_params)
    if extra_params is None:
        return {}
    if not isinstance(extra_params, dict):
        raise SettingsError(
            f"The extra params are {_json_type(extra_params)}; they must be a JSON object, "
            'such as {"budget": 50}.'
        )
    _check_characters(extra_params)
    return extra_params


def _read_json(text: str) -> Any:
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f" ({error})" if isinstance(error, json.JSONDecodeError) else ""
        raise SettingsError(
            f"The extra params are not valid JSON{where}; they must be an object such as "
            '{"budget": 50}.'
        ) from None


def _check_characters(typed: Mapping[str, Any]) -> None:
    for name, value in typed.items():
        try:
            json.dumps({name: value}, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            shown = one_line(name.encode(errors="replace").decode())
            raise SettingsError(
                f'Setting "{shown}" contains half a character (a lone surrogate); type the text '
                "again."
            ) from None


# What pydantic says is for programmers.
_MUST_BE = {
    "bool_type": "true or false",
    "dict_type": "a JSON object",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "list_type": "a list",
    "literal_error": "one of {expected}",
    "too_short": "a list with at least one name",
    "string_too_long": "at most {max_length} characters long",
    "string_type": "text",
}


def sentence(error: ValidationError, known: Collection[str]) -> str:
    """Describe the first error in a sentence that names the setting.

    Args:
        error: of the settings' model.
        known: the names of all settings.
    """
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, known, n=1)
        hint = f'did you mean "{close[0]}"?' if close else "see docs/settings.md."
        return f'There is no setting "{one_line(name)}"; {hint}'
    if not name:
        return first["msg"].removeprefix("Value error, ")
    if name == "pretrained":  # of two types; pydantic reports an error for each
        must_be = 'true, false or "auto"'
    else:
        must_be = _MUST_BE.get(first["type"], "something else").format(**first.get("ctx", {}))
        must_be = must_be.replace("'", '"')
    given = json.dumps(first["input"], ensure_ascii=False)
    return f'Setting "{name}" must be {must_be}, not {one_line(given)}.'


def _json_type(value: object) -> str:
    names = {list: "a list", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")
