"""The labeling config: which image and which control of it this backend serves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from label_studio_sdk.label_interface import LabelInterface
from label_studio_sdk.label_interface.control_tags import ControlTag
from label_studio_sdk.label_interface.object_tags import ObjectTag

MAX_CONFIG_CHARACTERS = 1_000_000

SERVED = ("Choices",)
"""Control tags that this backend pre-annotates."""


class LabelingError(ValueError):
    """A labeling config that cannot be served; the message is a sentence for its author."""


@dataclass(frozen=True, slots=True)
class Control:
    """The control that is served: predictions go from it to its image.

    Attributes:
        tag: its tag, for example ``Choices``.
        from_name: the control's name.
        to_name: the image's name.
        image_key: where a task's ``data`` has the image.
        labels: the classes, in the config's order.
    """

    tag: str
    from_name: str
    to_name: str
    image_key: str
    labels: tuple[str, ...]


@lru_cache(maxsize=256)
def served_control(config: str) -> Control:
    """Find the image and the control to serve.

    Raises:
        LabelingError: the config cannot be served; the message says why and what to do.
    """
    interface = _parse(config)
    images = [tag for tag in interface.objects if tag.tag == "Image"]
    if not images:
        raise LabelingError("The labeling config has no <Image>; this backend labels images.")
    if len(images) > 1:
        names = ", ".join(f"«{tag.name}»" for tag in images)
        raise LabelingError(
            f"The labeling config has {len(images)} images ({names}); "
            "this backend serves configs with one <Image>."
        )
    image = images[0]
    image_key = _image_key(image)
    controls = [tag for tag in interface.controls if image.name in _to_names(tag)]
    served = [tag for tag in controls if tag.tag in SERVED]
    if not served:
        found = ", ".join(sorted({f"<{tag.tag}>" for tag in controls})) or "none"
        raise LabelingError(
            f"The image has no control that this backend serves (found: {found}); "
            f"it serves {', '.join(f'<{tag}>' for tag in SERVED)}."
        )
    if len(served) > 1:
        names = ", ".join(f"«{tag.name}»" for tag in served)
        raise LabelingError(
            f"The image has {len(served)} controls that this backend could serve ({names}); "
            "leave one."
        )
    control = served[0]
    _check_choices(control)
    return Control(control.tag, control.name, image.name, image_key, tuple(control.labels))


def _parse(config: str) -> LabelInterface:
    if len(config) > MAX_CONFIG_CHARACTERS:
        raise LabelingError(
            f"The labeling config has {len(config):,} characters; the most is "
            f"{MAX_CONFIG_CHARACTERS:,}."
        )
    # An entity can grow without bound or name a local file, and no labeling config needs one.
    if "<!DOCTYPE" in config.upper() or "<!ENTITY" in config.upper():
        raise LabelingError("The labeling config has a <!DOCTYPE> or an <!ENTITY>; remove it.")
    if not config.strip():
        raise LabelingError("The labeling config is empty; set up the labeling interface first.")
    try:
        return LabelInterface(config)
    except Exception as error:  # noqa: BLE001 — the parser raises whatever its XML library does
        detail = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        detail = detail.removesuffix(" (<string>, line 1)").rstrip(".")
        raise LabelingError(f"The labeling config cannot be read: {detail}.") from None


def _image_key(image: ObjectTag) -> str:
    if "valueList" in (image.attr or {}):
        raise LabelingError(
            f"The <Image> «{image.name}» shows a list of images (valueList); this backend serves "
            'one image a task: use value="$image".'
        )
    value = image.value or ""
    if not value.startswith("$") or not value[1:].isidentifier():
        raise LabelingError(
            f'The <Image> «{image.name}» has value="{value[:80]}"; it must name one field of the '
            'task\'s data, such as value="$image".'
        )
    return value[1:]


def _to_names(tag: ControlTag) -> list[str]:
    names = tag.to_name
    return list(names) if isinstance(names, (list, tuple)) else [str(names)]


def _check_choices(control: ControlTag) -> None:
    # Label Studio reads names of attributes in any case.
    attributes = {name.lower(): value for name, value in (control.attr or {}).items()}
    if attributes.get("choice", "single") == "multiple":
        raise LabelingError(
            f'The <Choices> «{control.name}» has choice="multiple"; this backend serves one '
            'label an image: use choice="single".'
        )
    if attributes.get("perregion", "false").lower() == "true":
        raise LabelingError(
            f"The <Choices> «{control.name}» is asked for each region (perRegion); this backend "
            "serves one label an image: remove perRegion."
        )
    if attributes.get("dynamiclabels") or str(attributes.get("value", "")).startswith("$"):
        raise LabelingError(
            f"The <Choices> «{control.name}» takes its choices from each task's data; this "
            "backend needs them in the labeling config."
        )
    if attributes.get("allownested", "false").lower() == "true":
        raise LabelingError(
            f"The <Choices> «{control.name}» has choices within choices (allowNested); this "
            "backend serves one list of choices."
        )
    labels = control.labels or ()
    if len(labels) < 2:
        raise LabelingError(
            f"The <Choices> «{control.name}» has {'one choice' if labels else 'no choices'}; a "
            "model needs at least two to choose between."
        )
