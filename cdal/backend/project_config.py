"""A project's configuration: its settings and the control that it serves, parsed and checked."""

from __future__ import annotations

from dataclasses import dataclass

from cdal.backend.annotations.control import Control
from cdal.backend.annotations.labeling_config import served_control
from cdal.backend.config import ServerConfig
from cdal.backend.errors import SettingsError
from cdal.backend.settings import ProjectSettings
from cdal.models import ARCHITECTURES, BACKGROUND, ModelError, check_backbone, is_backbone
from cdal.selectors import opinions_of
from cdal.text import one_line


@dataclass(frozen=True, slots=True)
class ProjectConfig:
    """What a labeling config and the extra params typed beside it amount to.

    Attributes:
        settings: the project's settings.
        control: the control of the labeling config that is served.
    """

    settings: ProjectSettings
    control: Control

    @classmethod
    def parse(cls, labeling_config: str, extra_params: object) -> ProjectConfig:
        """Parse both and check that they fit together.

        Raises:
            ConfigError: they cannot be served; the message says why in one sentence.
        """
        settings = ProjectSettings.parse(extra_params)
        control = served_control(labeling_config, settings.control)
        _check_network(settings, control)
        _check_selector(settings, control)
        _check_tile(settings, control)
        _check_mixtures(settings, control)
        _check_unlabelled(settings, control)
        return cls(settings, control)

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


def _check_network(settings: ProjectSettings, control: Control) -> None:
    if settings.network is None or is_backbone(settings.network):
        return
    if settings.network not in ARCHITECTURES[control.task]:
        raise SettingsError(
            f'Setting "network": "{settings.network}" is not a network for {control.task}; choose '
            f"one of {', '.join(ARCHITECTURES[control.task])}, or timm:NAME."
        )


def _check_tile(settings: ProjectSettings, control: Control) -> None:
    if settings.tile is not None and control.task not in ("detection", "segmentation"):
        raise SettingsError(
            f'Setting "tile" is for detection and segmentation, and this is {control.task}; leave '
            "it out."
        )


def _check_selector(settings: ProjectSettings, control: Control) -> None:
    """Only heads for classification give several opinions about an image."""
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
            f"an image, which only classification with head training has, and this is {given}; "
            'choose another, such as "cdal-cs" or "margin".'
        )


def _check_mixtures(settings: ProjectSettings, control: Control) -> None:
    known = network_classes(control, settings)
    for name in settings.classes or ():
        if name not in known:
            raise SettingsError(
                f'Setting "classes": there is no class "{one_line(name)}"; choose some of '
                f"{', '.join(known)}."
            )
    if settings.region == "image" and control.task == "multilabel":
        raise SettingsError(
            'Setting "region" is "image", but here each class is compared on its own, since an '
            "image may have several; leave it out."
        )
    if settings.box_confidence is not None and control.task != "detection":
        raise SettingsError(
            f'Setting "box_confidence" is for detection, and this is {control.task}; leave it out.'
        )


def network_classes(control: Control, settings: ProjectSettings) -> tuple[str, ...]:
    """The classes of a network for this control, in order."""
    if control.task == "segmentation" and settings.unlabelled == "background":
        return (*control.labels, BACKGROUND)
    return control.labels


def _check_unlabelled(settings: ProjectSettings, control: Control) -> None:
    """A single class is learnt against the background, so there must be one."""
    alone = control.task == "segmentation" and len(control.labels) == 1
    if alone and settings.unlabelled == "ignore":
        raise SettingsError(
            f'Setting "unlabelled" must be "background", because the <{control.tag}> '
            f'"{control.from_name}" has only one label and there would be nothing to tell it from.'
        )
