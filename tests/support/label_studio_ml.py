"""A stand-in for label-studio-ml, which is not on the package index, and its adapter.

`Base` does what version 2.0.1.dev0's LabelStudioMLBase does when a request makes a model, and `app`
what its server does with requests. The adapter was also tried by hand with the real one.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from flask import Flask, Response, jsonify, request

from cdal.backend.config import server_config

FOLDER = Path(__file__).parents[2] / "examples" / "label_studio_ml"

KEPT: dict[tuple[str, str], Any] = {}


class Base:
    def __init__(self, project_id: str, label_config: str) -> None:
        self.project_id = project_id
        self.setup()

    def setup(self) -> None: ...

    def get(self, key: str) -> Any:
        return KEPT.get((self.project_id, key))

    def set(self, key: str, value: Any) -> None:
        if not isinstance(value, str):
            raise ValueError("Value must be a string")  # noqa: TRY004 — as there
        KEPT[self.project_id, key] = value

    def set_extra_params(self, extra_params: Any) -> None:
        self.set("extra_params", extra_params)

    @property
    def extra_params(self) -> Any:
        return json.loads(self.get("extra_params") or "{}")


def load_adapter(monkeypatch: pytest.MonkeyPatch, folder: Path, url: str, key: str) -> ModuleType:
    """The module of the adapter, with the services of this data folder and Label Studio."""
    monkeypatch.setenv("MODEL_DIR", str(folder))
    monkeypatch.setenv("LABEL_STUDIO_URL", url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", key)
    server_config.cache_clear()
    package, base = ModuleType("label_studio_ml"), ModuleType("label_studio_ml.model")
    base.LabelStudioMLBase = Base  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "label_studio_ml", package)
    monkeypatch.setitem(sys.modules, "label_studio_ml.model", base)
    spec = importlib.util.spec_from_file_location("adapter_of_label_studio_ml", FOLDER / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    KEPT.clear()
    return module


def app(model_class: Any) -> Flask:
    """The server of a model: the calls that Label Studio makes."""
    server = Flask("label_studio_ml")

    @server.get("/health")
    def health() -> Response:
        return jsonify({"status": "UP", "model_class": model_class.__name__})

    @server.post("/setup")
    def setup() -> Response:
        sent = request.get_json()
        model = model_class(project_id=sent["project"].split(".")[0], label_config=sent["schema"])
        if sent.get("extra_params"):
            model.set_extra_params(sent["extra_params"])
        return jsonify({"model_version": model.get("model_version")})

    @server.post("/predict")
    def predict() -> Response:
        sent = request.get_json()
        params = sent.get("params") or {}
        context = params.pop("context", None)
        model = model_class(
            project_id=sent["project"].split(".")[0], label_config=sent["label_config"]
        )
        return jsonify({"results": model.predict(sent["tasks"], context=context, **params)})

    @server.post("/webhook")
    def webhook() -> tuple[Response, int]:
        sent = request.get_json()
        project = sent["project"]
        model = model_class(project_id=str(project["id"]), label_config=project["label_config"])
        return jsonify({"result": model.fit(sent.pop("action"), sent)}), 201

    return server
