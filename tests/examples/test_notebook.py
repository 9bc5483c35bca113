"""The notebook, cell by cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "select_images.ipynb"


@pytest.mark.slow
def test_it_goes_from_a_folder_to_a_selection_in_ten_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = json.loads(NOTEBOOK.read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(notebook["cells"]) == 10
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "notebook"}
    for number, cell in enumerate(cells):
        exec(compile(cell, f"cell {number}", "exec"), names)
    assert (tmp_path / "next.txt").read_text().count("\n") == 12
    assert len({pick.index for pick in names["selection"].picks}) == 12
    assert not names["labelled"][[pick.index for pick in names["selection"].picks]].any()
    # 16 labels among eight classes are few, but not nothing.
    assert names["accuracy"] > 2 / len(names["images"].classes)
    assert names["sheet"].getextrema() != ((255, 255),) * 3
