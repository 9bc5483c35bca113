"""The tables of docs/settings.md match the code; `python tests/test_settings_docs.py` does it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cdal.backend.config import ServerConfig
from cdal.backend.settings import ProjectSettings

DOCUMENT = Path(__file__).parents[1] / "docs" / "settings.md"


def table(model: type[BaseModel]) -> str:
    rows = ["| name | default | what |", "| --- | --- | --- |"]
    variables = model.variables() if issubclass(model, ServerConfig) else {}
    for name, field in model.model_fields.items():
        shown = "` or `".join(variables.get(name, [name]))
        default: Any = field.get_default(call_default_factory=True)
        text = "" if default is None else json.dumps(default, default=str)
        code = f"`{text}`" if text else "—"
        rows.append(f"| `{shown}` | {code} | {field.description} |")
    return "\n".join(rows)


def with_tables(text: str) -> str:
    for mark, filled in (
        ("settings", table(ProjectSettings)),
        ("config", table(ServerConfig)),
    ):
        pattern = rf"(<!-- {mark}:begin -->\n).*?(<!-- {mark}:end -->)"
        text = re.sub(pattern, lambda m: f"{m[1]}{filled}\n{m[2]}", text, flags=re.DOTALL)  # noqa: B023
    return text


def test_the_tables_match_the_code() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_tables(text) == text, "run: python tests/test_settings_docs.py"


if __name__ == "__main__":
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write("docs/settings.md written\n")
