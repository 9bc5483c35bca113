"""A project's configuration: its settings and the controls that it serves, parsed and checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from cdal.backend.annotations.control import Control
from cdal.backend.annotations.labeling_config import served_controls
from cdal.backend.config import ServerConfig
from cdal.backend.errors import SettingsError
from cdal.backend.settings import ProjectSettings
from cdal.models import ARCHITECTURES, BACKGROUND, ModelError, check_backbone, is_backbone
from cdal.models.detection.architectures import has_background
from cdal.models.segmentation.architectures import MASK_RCNN
from cdal.selectors import opinions_of
from cdal.text import one_line


@dataclass(frozen=True, slots=True)
class ProjectConfig:
    """What a labeling config and the extra params typed beside it amount to.

    Attributes:
        settings: the project's settings.
        controls: the controls of the labeling config that are served, each by a model of its own:
            the main one first, then in the config's order.
    """

    settings: ProjectSettings
    controls: tuple[Control, ...]

    @property
    def control(self) -> Control:
        """The main control: the one that the setting `select_by` names, else the first."""
        return self.controls[0]

    @classmethod
    def parse(cls, labeling_config: str, extra_params: object) -> ProjectConfig:
        """Parse both and check that they fit together.

        Raises:
            ConfigError: they cannot be served; the message says why in one sentence.
        """
        settings = ProjectSettings.parse(extra_params)
        served = served_controls(labeling_config, settings.control)
        controls = _main_first(settings, served)
        for control in controls:
            _check_network(settings, control)
            _check_unlabelled(settings, control)
        chosen_by = selected_by(settings, controls)
        for control in chosen_by:
            _check_selector(settings, control)
        _check_together(settings, chosen_by)
        _check_background(settings, chosen_by)
        _check_mixtures(settings, controls)
        _check_tile(settings, controls)
        return cls(settings, controls)

    @classmethod
    def accept(
        cls, labeling_config: str, extra_params: object, server: ServerConfig
    ) -> ProjectConfig:
        """Parse a configuration that is about to be stored: this server must have its weights, and
        timm its backbone.

        A stored one is only parsed, so that a project whose weights are gone is still served.

        Raises:
            ConfigError: it cannot be served; the message says why in one sentence.
        """
        config = cls.parse(labeling_config, extra_params)
        server.weights_file(config.settings.weights)
        network = config.settings.network
        if network is not None and is_backbone(network):
            try:
                check_backbone(network)
            except ModelError as error:
                raise SettingsError(f'Setting "network": {error}') from None
        return config


def selected_by(settings: ProjectSettings, controls: Sequence[Control]) -> Sequence[Control]:
    """Those of a project's controls by whose models images are chosen."""
    return controls if settings.select_by is None else controls[:1]


def paired(known: Mapping[str, Collection[str]], controls: Sequence[Control]) -> dict[str, Control]:
    """The control that each of some names stands for, among those that are served now.

    A name that none of them has is that of a control that was renamed or replaced, or "", the only
    one that earlier releases served: it stands for one of the other controls, the one that has most
    of its classes, and the first of these. A name that no control is left for is left out.

    Args:
        known: the names, each with the classes of its model.
        controls: the project's.
    """
    found = {c.from_name: c for c in controls if c.from_name in known}
    rest = [control for control in controls if control.from_name not in known]
    for name, classes in known.items():
        if name not in found and rest:
            found[name] = max(rest, key=lambda one: sum(map(bool, map(one.label_of, classes))))
            rest.remove(found[name])
    return found


def _main_first(settings: ProjectSettings, controls: tuple[Control, ...]) -> tuple[Control, ...]:
    name = settings.select_by
    if name is None:
        return controls
    names = [control.from_name for control in controls]
    if name not in names:
        raise SettingsError(
            f'Setting "select_by": there is no control "{one_line(name)}" that is served; choose '
            f"one of {', '.join(map(one_line, names))}."
        )
    return tuple(sorted(controls, key=lambda control: control.from_name != name))


def _check_network(settings: ProjectSettings, control: Control) -> None:
    if settings.network is None or is_backbone(settings.network):
        return
    if settings.network not in ARCHITECTURES[control.task]:
        raise SettingsError(
            f'Setting "network": "{settings.network}" is not a network for {control.task}; choose '
            f"one of {', '.join(ARCHITECTURES[control.task])}, or timm:NAME."
        )
    if settings.network == MASK_RCNN and settings.unlabelled == "ignore":
        raise SettingsError(
            f'Setting "network": "{MASK_RCNN}" finds objects on a background, so "unlabelled" must '
            'be "background"; leave that out, or choose another network.'
        )


IN_TILES = ("detection", "segmentation")
"""Tasks whose images can be seen in tiles."""


def _check_tile(settings: ProjectSettings, controls: Sequence[Control]) -> None:
    if settings.tile is not None and all(control.task not in IN_TILES for control in controls):
        raise SettingsError(
            f'Setting "tile" is for detection and segmentation, and this is {controls[0].task}; '
            "leave it out."
        )


def _check_selector(settings: ProjectSettings, control: Control) -> None:
    """In projects, only heads for classification give several opinions about an image."""
    if control.task == "multilabel" and settings.selector == "badge":
        raise SettingsError(
            'Setting "selector": "badge" compares gradients of classes that exclude each other, '
            'and here an image may have several; choose another, such as "cdal-cs" or "entropy".'
        )
    if opinions_of(settings.selector) is None:
        return
    if control.task != "classification" or not settings.trains_head:
        given = control.task if control.task != "classification" else "full training"
        raise SettingsError(
            f'Setting "selector": "{settings.selector}" compares several opinions of a head about '
            f"an image, which are for classification with head training, and this is {given}; "
            'choose another, such as "cdal-cs" or "margin".'
        )


OF_ONE_MODEL = (
    "badge", "bald", "mc-dropout", "committee", "suggestive-annotation", "dropquery",
)  # fmt: skip
"""Selectors that look into a model, or compare opinions of one: those of several do not add up."""


def _check_together(settings: ProjectSettings, controls: Sequence[Control]) -> None:
    if len(controls) == 1:
        return
    name = one_line(controls[0].from_name)
    if "classes" in settings.selector_options:
        raise SettingsError(
            'Setting "selector_options": option "classes" numbers the classes of one control, and '
            f"here are {len(controls)}; list their names in the setting "
            f'"classes", or name one control in "select_by", such as {{"select_by": "{name}"}}.'
        )
    if settings.selector in OF_ONE_MODEL:
        raise SettingsError(
            f'Setting "selector": "{settings.selector}" chooses images by the model of one '
            f"control, and here are {len(controls)}; name one in the setting "
            f'"select_by", such as {{"select_by": "{name}"}}, or choose another selector, such as '
            '"cdal-cs", "entropy" or "core-set".'
        )


def _check_mixtures(settings: ProjectSettings, controls: Sequence[Control]) -> None:
    """Each setting must mean something for one of the controls."""
    known = [name for control in controls for name in network_classes(control, settings)]
    for name in settings.classes or ():
        if name not in known:
            raise SettingsError(
                f'Setting "classes": there is no class "{one_line(name)}"; choose some of '
                f"{', '.join(known)}."
            )
    tasks = {control.task for control in controls}
    if settings.region == "image" and tasks == {"multilabel"}:
        raise SettingsError(
            'Setting "region" is "image", but here each class is compared on its own, since an '
            "image may have several; leave it out."
        )
    if settings.box_confidence is not None and "detection" not in tasks:
        raise SettingsError(
            f'Setting "box_confidence" is for detection, and this is {controls[0].task}; leave it '
            "out."
        )


def _check_background(settings: ProjectSettings, controls: Sequence[Control]) -> None:
    """Background can be kept only where a single model chooses, one that has it as a class."""
    if settings.box_background == "drop":
        return
    if controls[0].task != "detection":
        problem = f"is for detection, and this is {controls[0].task}; leave it out"
    elif len(controls) > 1:
        name = one_line(controls[0].from_name)
        problem = (
            f"is for one control, and here are {len(controls)}; name the one with the boxes in the "
            f'setting "select_by", such as {{"select_by": "{name}"}}'
        )
    elif settings.trains_head:
        problem = 'is for full training, and this is head training; set "training" to "full"'
    elif settings.network is not None and not has_background(settings.network):
        problem = f"is for networks with a background class, and {settings.network} has none"
    else:
        return
    raise SettingsError(f'Setting "box_background": "keep" {problem}.')


def network_classes(control: Control, settings: ProjectSettings) -> tuple[str, ...]:
    """The classes of a network for this control, in order."""
    if control.task == "segmentation" and settings.unlabelled == "background":
        return (*control.labels, BACKGROUND)
    return control.labels


def tells_objects_apart(control: Control, settings: ProjectSettings) -> bool:
    """Whether a network trained in full should be one that tells objects of a class apart."""
    begins_as_published = settings.pretrained is not False and settings.weights is None
    return (
        control.task == "segmentation"
        and settings.split_regions == "touching"
        and settings.unlabelled == "background"
        and begins_as_published
    )


def _check_unlabelled(settings: ProjectSettings, control: Control) -> None:
    """A single class is learnt against the background, so there must be one."""
    alone = control.task == "segmentation" and len(control.labels) == 1
    if alone and settings.unlabelled == "ignore":
        raise SettingsError(
            f'Setting "unlabelled" must be "background", because the <{control.tag}> '
            f'"{control.from_name}" has only one label and there would be nothing to tell it from.'
        )
