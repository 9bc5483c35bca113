"""Reading labeling configs: which image and which controls this backend serves, and why not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType

from label_studio_sdk.label_interface import LabelInterface
from label_studio_sdk.label_interface.control_tags import ControlTag
from label_studio_sdk.label_interface.object_tags import ObjectTag

from cdal.backend.annotations.control import SERVED, Control, ControlTask
from cdal.backend.errors import CHANGE_SETTINGS, LabelingError
from cdal.models.predictions import BACKGROUND, IGNORED
from cdal.text import one_line

MAX_CONFIG_CHARACTERS = 1_000_000

MOST_LABELS: Mapping[ControlTask, int] = {
    # What is kept per image grows with the number of labels, or with its square.
    "classification": 1000,
    "multilabel": 100,
    "detection": 1000,
    # A pixel's class is a byte, and background is a class too.
    "segmentation": IGNORED - 1,
}

MOST_CONTROLS = 20
"""Each has a network of its own."""

MOST_CHARACTERS = 500
"""Per label or name: they occur in messages, predictions and the metadata of weights."""


@lru_cache(maxsize=32)  # of up to a megabyte each
def served_controls(config: str, name: str | None = None) -> tuple[Control, ...]:
    """Find the image and the controls to serve, in the config's order.

    Args:
        config: the labeling config.
        name: of the only control to serve; None for all that can be.

    Raises:
        LabelingError: the config cannot be served; the message says why and what to do.
    """
    interface = _parse(config)
    _check_lengths([*interface.objects, *interface.controls])
    image = _only_image([tag for tag in interface.objects if tag.tag == "Image"])
    image_key = _image_key(image)
    controls = [tag for tag in interface.controls if image.name in _to_names(tag)]
    names = frozenset(str(tag.name) for tag in interface.controls)
    found = [_control(tag, image.name, image_key, names) for tag in _choose(controls, name)]
    served = frozenset(control.from_name for control in found)
    return tuple(replace(control, beside=served - {control.from_name}) for control in found)


def served_control(config: str, name: str | None = None) -> Control:
    """The first of the controls to serve, see `served_controls`."""
    return served_controls(config, name)[0]


def _control(control: ControlTag, image: str, image_key: str, names: frozenset[str]) -> Control:
    """A control that is served.

    Raises:
        LabelingError: it cannot be.
    """
    if control.tag == "Choices":
        _check_choices(control)
    else:
        _check_labels(control)
    _check_count(control)
    _check_path(control)
    return Control(
        tag=control.tag,
        from_name=control.name,
        to_name=image,
        image_key=image_key,
        labels=tuple(control.labels),
        score_threshold=_score_threshold(control),
        known_as=_known_as(control),
        controls=names,
        multiple=_is_multiple(control),
    )


def _check_lengths(tags: Sequence[ObjectTag | ControlTag]) -> None:
    texts = [str(tag.name) for tag in tags]
    texts += [label for tag in tags if isinstance(tag, ControlTag) for label in tag.labels or ()]
    longest = max(texts, key=len, default="")
    if len(longest) > MOST_CHARACTERS:
        raise LabelingError(
            f"The labeling config has a name or label of {len(longest):,} characters "
            f'("{one_line(longest)}"); the most is {MOST_CHARACTERS}.'
        )


def _names(tags: Sequence[ObjectTag | ControlTag]) -> str:
    """The names of the first few tags, for a sentence."""
    shown = ", ".join(f'"{one_line(tag.name)}"' for tag in tags[:5])
    return shown if len(tags) <= 5 else f"{shown} and {len(tags) - 5} more"


def _only_image(images: Sequence[ObjectTag]) -> ObjectTag:
    if not images:
        raise LabelingError("The labeling config has no <Image>; this backend labels images.")
    if len(images) > 1:
        names = _names(images)
        raise LabelingError(
            f"The labeling config has {len(images)} images ({names}); "
            "this backend serves configs with one <Image>."
        )
    return images[0]


def _choose(controls: Sequence[ControlTag], name: str | None) -> list[ControlTag]:
    served = [tag for tag in controls if tag.tag in SERVED]
    if not served:
        found = ", ".join(sorted({f"<{tag.tag}>" for tag in controls})) or "none"
        raise LabelingError(
            f"The image has no control that this backend serves (found: {found}); "
            f"it serves {', '.join(f'<{tag}>' for tag in SERVED)}."
        )
    all_served = served
    served = [tag for tag in served if not _is_set(tag, "model_skip")]
    if not served:
        raise LabelingError(
            f"All controls that this backend could serve ({_names(all_served)}) have "
            'model_skip="true"; remove it from the one to serve.'
        )
    if name is not None:
        for tag in served:
            if tag.name == name:
                return [tag]
        raise LabelingError(
            f'The image has no control "{one_line(name)}" that this backend serves (setting '
            f'"control"); there {"is" if len(served) == 1 else "are"} {_names(served)}.',
            advice=CHANGE_SETTINGS,
        )
    # A control that is asked for each region belongs to the one that draws the regions.
    served = [tag for tag in served if not _is_per_region(tag)] or served
    if len(served) > MOST_CONTROLS:
        raise LabelingError(
            f"The image has {len(served)} controls that this backend could serve "
            f"({_names(served)}), and it serves at most {MOST_CONTROLS} together; "
            f'name one in the setting "control", such as {{"control": "{served[0].name}"}}.',
            advice=CHANGE_SETTINGS,
        )
    return served


def _parse(config: str) -> LabelInterface:
    if len(config) > MAX_CONFIG_CHARACTERS:
        raise LabelingError(
            f"The labeling config has {len(config):,} characters; the most is "
            f"{MAX_CONFIG_CHARACTERS:,}."
        )
    # An entity can grow without bound or name a local file, and labeling configs do not need them.
    if "<!DOCTYPE" in config.upper() or "<!ENTITY" in config.upper():
        raise LabelingError("The labeling config has a <!DOCTYPE> or an <!ENTITY>; remove it.")
    if not config.strip():
        raise LabelingError("The labeling config is empty; set up the labeling interface first.")
    try:
        return LabelInterface(config)
    except Exception as error:  # noqa: BLE001 — the parser raises whatever its XML library does
        if "Excessive depth" in str(error):
            raise LabelingError(
                "The labeling config's tags are nested more than 256 deep; make it simpler."
            ) from None
        detail = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        detail = detail.removesuffix(" (<string>, line 1)").rstrip(".")
        raise LabelingError(f"The labeling config cannot be read: {detail}.") from None


# The names that Label Studio's page reads as a field; a dot is part of the name.
_FIELD = re.compile(r"\$[\w.]+")


def _image_key(image: ObjectTag) -> str:
    if "valueList" in (image.attr or {}):
        raise LabelingError(
            f'The <Image> "{image.name}" shows a list of images (valueList); this backend serves '
            'one image per task: use value="$image".'
        )
    value = image.value or ""
    if not _FIELD.fullmatch(value):
        raise LabelingError(
            f'The <Image> "{image.name}" has value="{one_line(value)}"; it must name one field of '
            'the task\'s data, such as value="$image".'
        )
    return value[1:]


def _to_names(tag: ControlTag) -> list[str]:
    names = tag.to_name
    return list(names) if isinstance(names, (list, tuple)) else [str(names)]


def _attributes(tag: ControlTag) -> dict[str, str]:
    """Attributes by lower-case name: Label Studio ignores the case."""
    return {name.lower(): str(value) for name, value in (tag.attr or {}).items()}


def _is_set(tag: ControlTag, attribute: str) -> bool:
    return _attributes(tag).get(attribute, "false").strip().lower() == "true"


def _is_per_region(tag: ControlTag) -> bool:
    return _is_set(tag, "perregion")


def _is_multiple(control: ControlTag) -> bool:
    return control.tag == "Choices" and _attributes(control).get("choice") == "multiple"


def _check_choices(control: ControlTag) -> None:
    if _is_per_region(control):
        raise LabelingError(
            f'The <Choices> "{control.name}" is asked for each region (perRegion); this backend '
            "serves one label per image: remove perRegion."
        )
    _check_not_dynamic(control, "choices")
    if _is_set(control, "allownested"):
        raise LabelingError(
            f'The <Choices> "{control.name}" has choices within choices (allowNested); this '
            "backend serves one list of choices."
        )
    labels = control.labels or ()
    if len(labels) < 2:
        raise LabelingError(
            f'The <Choices> "{control.name}" has {"one choice" if labels else "no choices"}; a '
            "model needs at least two to choose between."
        )


def _check_labels(control: ControlTag) -> None:
    where = f'The <{control.tag}> "{control.name}"'
    if _attributes(control).get("choice", "single") == "multiple":
        raise LabelingError(
            f'{where} has choice="multiple"; this backend serves one label per region: use '
            'choice="single".'
        )
    _check_not_dynamic(control, "labels")
    labels = control.labels or ()
    if not labels:
        raise LabelingError(f"{where} has no labels; a model needs at least one to look for.")
    if BACKGROUND in labels:
        raise LabelingError(
            f'{where} has a label "{BACKGROUND}", which is this backend\'s own name for what has '
            "no label; rename it."
        )


def _check_count(control: ControlTag) -> None:
    task: ControlTask = "multilabel" if _is_multiple(control) else SERVED[control.tag]
    found, most = len(control.labels or ()), MOST_LABELS[task]
    if found > most:
        raise LabelingError(
            f'The <{control.tag}> "{control.name}" has {found:,} labels; this backend serves at '
            f"most {most:,} in a {task}."
        )


def _check_path(control: ControlTag) -> None:
    path = _attributes(control).get("model_path", "").strip()
    if path:
        raise LabelingError(
            f'The <{control.tag}> "{control.name}" has model_path="{one_line(path)}", which this '
            'backend does not read: remove it, and name your own weights in the setting "weights".'
        )


def _check_not_dynamic(control: ControlTag, what: str) -> None:
    attributes = _attributes(control)
    if attributes.get("dynamiclabels") or attributes.get("value", "").startswith("$"):
        raise LabelingError(
            f'The <{control.tag}> "{control.name}" takes its {what} from each task\'s data; this '
            "backend needs them in the labeling config."
        )


def _score_threshold(control: ControlTag) -> float | None:
    text = _attributes(control).get("model_score_threshold", "").strip()
    if not text:
        return None
    try:
        threshold = float(text)
    except ValueError:
        threshold = -1.0
    if not 0 <= threshold <= 1:  # nor is NaN
        raise LabelingError(
            f'The <{control.tag}> "{control.name}" has model_score_threshold="{one_line(text)}"; '
            "it must be a number from 0 to 1."
        )
    return threshold


def _known_as(control: ControlTag) -> Mapping[str, tuple[str, ...]]:
    known: dict[str, tuple[str, ...]] = {}
    for label, tag in control.labels_attrs.items():
        attributes = _attributes(tag)
        # Annotations say the alias, or the value if they were made before there was an alias.
        values = [attributes.get("value", ""), attributes.get("alias", "")]
        values += map(str.strip, attributes.get("predicted_values", "").split(","))
        names = tuple(dict.fromkeys(name for name in values if name and name != label))
        if names:
            known[label] = names
    return MappingProxyType(known)
