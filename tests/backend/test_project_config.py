"""One parse of a labeling config and its settings, the same at every door."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.offline import (
    CONFIG,
    UID,
    FakeLabelStudio,
    add_project,
    let_sign_in,
    make_config,
    make_services,
    make_work,
)

from cdal.backend.actions import change_settings
from cdal.backend.errors import ConfigError, LabelingError, RefusedError, SettingsError
from cdal.backend.jobs.gathering import POLL
from cdal.backend.label_studio.data import MLBackendInfo
from cdal.backend.loop.connection import is_connected
from cdal.backend.project_config import ProjectConfig, paired
from cdal.backend.services import Services
from cdal.backend.store.tables import Project
from cdal.backend.web.setup import SetupRequest, connect
from cdal.models import ARCHITECTURES

BOXES = CONFIG.replace("Choices", "RectangleLabels").replace("Choice ", "Label ")
MASKS = BOXES.replace("Rectangle", "Brush")
ONE_MASK = MASKS.replace('<Label value="dog"/>', "")
TWO_CONTROLS = CONFIG.replace("</View>", BOXES.partition("/>")[2].replace('"label"', '"box"'))


@pytest.mark.parametrize(
    "selector", ["bald", "mc-dropout", "committee", "suggestive-annotation", "dropquery"]
)
@pytest.mark.parametrize(
    ("labeling_config", "training"), [(BOXES, "auto"), (MASKS, "head"), (CONFIG, "full")]
)
def test_only_heads_for_classification_have_several_opinions(
    selector: str, labeling_config: str, training: str
) -> None:
    with pytest.raises(SettingsError, match=f'"selector": "{selector}" compares several opinions'):
        ProjectConfig.parse(labeling_config, {"selector": selector, "training": training})
    assert ProjectConfig.parse(CONFIG, {"selector": selector}).settings.selector == selector


@pytest.mark.parametrize(
    ("labeling_config", "settings", "message"),
    [
        (CONFIG, {"classes": ["cat", "bird"]}, 'no class "bird"; choose some of cat, dog'),
        (MASKS, {"classes": ["sky"]}, r"choose some of cat, dog, \(background\)"),
        (CONFIG, {"classes": []}, "at least one name"),
        (CONFIG, {"classes": "cat"}, "must be a list"),
        (MASKS, {"box_confidence": 0.5}, '"box_confidence" is for detection'),
        (CONFIG, {"tile": 480}, '"tile" is for detection and segmentation'),
        (MASKS, {"box_background": "keep"}, '"box_background": "keep" is for detection'),
        (BOXES, {"box_background": "keep"}, 'set "training" to "full"'),
        (
            BOXES,
            {"box_background": "keep", "network": "retinanet_resnet50_fpn_v2"},
            "retinanet_resnet50_fpn_v2 has none",
        ),
        (
            BOXES.replace("</View>", CONFIG.partition("/>")[2].replace('"label"', '"kind"')),
            {"box_background": "keep", "training": "full"},
            '"select_by": "label"',
        ),
    ],
)
def test_what_does_not_suit_the_control_is_refused(
    labeling_config: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        ProjectConfig.parse(labeling_config, settings)


def test_background_is_kept_where_a_network_that_chooses_alone_has_it() -> None:
    keeps = {"box_background": "keep", "training": "full"}
    for config, settings in ((BOXES, keeps), (TWO_CONTROLS, {**keeps, "select_by": "box"})):
        assert ProjectConfig.parse(config, settings).settings.box_background == "keep"


def test_the_control_that_a_setting_names_is_the_main_one() -> None:
    config = ProjectConfig.parse(TWO_CONTROLS, {"select_by": "box", "tile": 256})
    assert [control.from_name for control in config.controls] == ["box", "label"]
    assert config.control.from_name == "box"
    assert ProjectConfig.parse(TWO_CONTROLS, None).control.from_name == "label"


def test_what_a_setting_is_for_may_be_one_of_the_controls() -> None:
    for settings in ({"box_confidence": 0.2}, {"selector": "bald", "select_by": "label"}):
        assert len(ProjectConfig.parse(TWO_CONTROLS, settings).controls) == 2


def test_names_of_earlier_controls_stand_for_those_that_are_left() -> None:
    controls = ProjectConfig.parse(TWO_CONTROLS, None).controls
    pets = ["cat", "dog"]
    found = paired({"old": pets, "box": pets}, controls)
    assert {name: control.from_name for name, control in found.items()} == {
        "old": "label",
        "box": "box",
    }
    assert paired({"": []}, controls)[""].from_name == "label"
    assert "gone" not in paired({"label": pets, "box": pets, "gone": pets}, controls)


def test_the_settings_and_the_control() -> None:
    config = ProjectConfig.parse(TWO_CONTROLS, {"control": "box", "budget": 7})
    assert config.settings.budget == 7
    assert (config.control.from_name, config.control.task) == ("box", "detection")


@pytest.mark.parametrize(
    ("labeling_config", "extra_params", "words"),
    [
        (CONFIG, {"budget": 0}, ["budget", "at least 1", "0"]),
        (CONFIG, {"bugdet": 5}, ["bugdet", 'did you mean "budget"']),
        ("<View/>", None, ["no <Image>"]),
        (CONFIG, {"control": "nothing"}, ['"control"', '"nothing"', '"label"']),
        (TWO_CONTROLS, {"select_by": "nothing"}, ['"select_by"', '"nothing"', "label, box"]),
        (TWO_CONTROLS, {"selector": "badge"}, ["badge", '{"select_by": "label"}', "cdal-cs"]),
        (
            TWO_CONTROLS,
            {"selector": "cdal-rl", "selector_options": {"classes": [0]}},
            ['"selector_options"', '"classes"', '{"select_by": "label"}'],
        ),
        (TWO_CONTROLS, {"network": "resnet18"}, ['"network"', *ARCHITECTURES["detection"]]),
        (CONFIG, {"tile": 256}, ['"tile"', "classification"]),
        (TWO_CONTROLS, {"classes": ["bird"]}, ['no class "bird"', "cat, dog, cat, dog"]),
        (BOXES, {"network": "resnet18"}, ['"network"', "resnet18", *ARCHITECTURES["detection"]]),
        (
            MASKS,
            {"network": "maskrcnn_resnet50_fpn", "unlabelled": "ignore"},
            ['"network"', "maskrcnn_resnet50_fpn", '"background"'],
        ),
        (ONE_MASK, {"unlabelled": "ignore"}, ['"unlabelled"', '"background"', "<BrushLabels>"]),
    ],
)
def test_what_cannot_be_served_is_refused(
    labeling_config: str, extra_params: Any, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        ProjectConfig.parse(labeling_config, extra_params)
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("labeling_config", "unlabelled"), [(ONE_MASK, "background"), (MASKS, "ignore")]
)
def test_one_label_needs_the_background_and_two_do_not(
    labeling_config: str, unlabelled: str
) -> None:
    assert ProjectConfig.parse(labeling_config, {"unlabelled": unlabelled}).control.tag


def test_weights_are_looked_for_only_where_a_configuration_is_stored(tmp_path: Path) -> None:
    settings = {"weights": "ours.pth"}
    folder = tmp_path / "weights"
    folder.mkdir()
    server = make_config(tmp_path / "data", weights_folder=folder)
    with pytest.raises(SettingsError, match=r"ours\.pth"):
        ProjectConfig.accept(CONFIG, settings, server)
    assert ProjectConfig.parse(CONFIG, settings).settings.weights == "ours.pth"
    (folder / "ours.pth").touch()
    assert ProjectConfig.accept(CONFIG, settings, server).settings.weights == "ours.pth"


Door = Callable[[Services, Project, Any], None]


def by_setup(services: Services, project: Project, extra_params: Any) -> None:
    body = {"project": UID, "schema": project.labeling_config, "extra_params": extra_params}
    with pytest.raises(RefusedError):
        connect(services, SetupRequest.of(body))


def by_the_settings_page(services: Services, project: Project, extra_params: Any) -> None:
    with pytest.raises(ConfigError):
        change_settings(services, project.id, extra_params, "ann")


def by_the_poll(services: Services, project: Project, extra_params: Any) -> None:
    label_studio = FakeLabelStudio()
    label_studio.backends = [MLBackendInfo("http://backend.test:9090", extra_params)]
    assert is_connected(make_work(services, project, label_studio, asked_by=POLL))


@pytest.mark.parametrize("door", [by_setup, by_the_settings_page, by_the_poll])
@pytest.mark.parametrize(
    "extra_params",
    [
        {"budget": 0},
        {"control": "nothing"},
        {"network": "drn_d_22"},
        {"network": "resnet18", "training": "head"},
        {"weights": "../../etc/passwd"},
        {"selector_options": {"alpa": 1}},
    ],
)
def test_every_door_refuses_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, door: Door, extra_params: Any
) -> None:
    let_sign_in(monkeypatch)
    services = make_services(tmp_path)
    project = add_project(services, extra_params={"budget": 40})
    door(services, project, extra_params)
    with services.store.reading() as session:
        assert session.get_one(Project, project.id).extra_params == {"budget": 40}


def test_the_two_kinds_of_refusal_stay_apart() -> None:
    with pytest.raises(SettingsError):
        ProjectConfig.parse(CONFIG, {"budget": 0})
    with pytest.raises(LabelingError):
        ProjectConfig.parse("<View/>", {"budget": 1})


def test_a_backbone_of_timm_is_a_network_for_every_control(tmp_path: Path) -> None:
    settings = {"network": "timm:tf_efficientnet_lite0"}
    server = make_config(tmp_path / "data")
    for labeling_config in (CONFIG, BOXES, MASKS):
        accepted = ProjectConfig.accept(labeling_config, settings, server)
        assert accepted.settings.network == settings["network"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"network": "timm:resnet5000"}, ["timm", "resnet5000"]),
        ({"network": "timm:../secret"}, ['"network"', "timm:NAME"]),
        ({"network": "timm:resnet50", "pretrained": False}, ['"pretrained"', "leave out"]),
        ({"network": "timm:resnet50", "weights": "ours.pth"}, ['"weights"', "leave out"]),
    ],
)
def test_a_backbone_that_cannot_be_is_refused(
    tmp_path: Path, settings: Any, words: list[str]
) -> None:
    server = make_config(tmp_path / "data", weights_folder=tmp_path)
    (tmp_path / "ours.pth").touch()
    with pytest.raises(ConfigError) as caught:
        ProjectConfig.accept(CONFIG, settings, server)
    assert [word for word in words if word not in str(caught.value)] == []
