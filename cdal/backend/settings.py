"""A project's settings: the "extra params" JSON of Label Studio's Model page, checked."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cdal.backend.errors import SettingsError
from cdal.backend.text import one_line
from cdal.models import ARCHITECTURES
from cdal.selectors import OptionError, make_selector

# BALD needs samples of MC dropout, which the scoring pass does not draw.
SelectorName = Literal[
    "cdal-cs",
    "cdal-rl",
    "cd-greedy",
    "random",
    "entropy",
    "margin",
    "least-confidence",
    "core-set",
]


LEAST_RESERVE = 30
"""Even simulated annotators label no more in the time that it takes to notice and queue more."""


class ProjectSettings(BaseModel):
    """What an admin may type in the project's Model page, as JSON."""

    # Strict, since a budget of true would otherwise be one of 1.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    budget: int = Field(
        50, ge=1, le=1_000_000, description="Images a round asks for; then the model retrains."
    )
    reserve: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Images queued beyond the budget, for people to go on with while the model "
        "trains. Whenever fewer are left, more are queued; so it must outlast a few seconds of "
        "everybody's labelling. By default as many as the budget, and at least 30.",
    )
    selector: SelectorName = Field("cdal-cs", description="How the next images are chosen.")
    selector_options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the selector, by name."
    )
    random_share: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Share of each round's images that is drawn at random, as a yardstick: by it "
        "the pages estimate how many labels selection saves.",
    )
    region: Literal["auto", "class", "image"] = Field(
        "auto",
        description='Class mixtures: one a pseudo-label ("class") or one for the whole image '
        '("image"); "auto" takes "image" for classification, else "class".',
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Fixes every random choice.")
    min_labels: int = Field(
        10, ge=2, description="Labels needed before the first training; until then, random rounds."
    )
    train_every: int | None = Field(
        None, ge=1, description="Also train whenever so many new labels have come."
    )
    held_out: float = Field(
        0.2, gt=0, lt=0.9, description="Share of the labelled images kept to measure models on."
    )
    tolerance: float = Field(
        0.02,
        ge=0,
        le=1,
        description="A new model serves unless its held-out metric is worse by more than this.",
    )
    control: str | None = Field(
        None,
        max_length=200,
        description="The name of the control to serve, where the labeling config has several that "
        "could be.",
    )
    unlabelled: Literal["background", "ignore"] = Field(
        "background",
        description='Segmentation: pixels that no region covers are background ("background"), or '
        'nothing is learnt from them ("ignore"), for projects that label every pixel in the end.',
    )
    split_regions: bool = Field(
        False,
        description="Segmentation: predict one region for each connected part of a class, instead "
        "of one a class.",
    )
    smallest_region: float = Field(
        0.0005,
        ge=0,
        le=1,
        description="Segmentation: connected parts smaller than this share of the image are left "
        "out of predictions.",
    )
    polygon_tolerance: float = Field(
        1.0,
        ge=0,
        le=50,
        description="Segmentation: by how many pixels a predicted polygon may differ from the "
        "mask; more makes fewer points.",
    )
    network: str | None = Field(
        None, description="A network by name; chosen by task and device by default."
    )
    pretrained: bool | Literal["auto"] = Field(
        "auto",
        description='A training that begins anew starts from ImageNet weights: "auto" where they '
        "lie on this machine, true to download them, false never.",
    )
    weights: str | None = Field(
        None,
        max_length=200,
        description="A training that begins anew starts from your own weights: the name of a file "
        "(.safetensors, or a state dict as torch saves it) in the server's `CDAL_WEIGHTS_FOLDER`.",
    )
    warm_start: bool = Field(
        True,
        description="Fine-tune the serving model where there is one; false begins anew each time.",
    )
    image_size: int | None = Field(
        None, ge=32, le=1024, description="Side of the network's input; by the images by default."
    )
    epochs: int | None = Field(None, ge=1, le=10_000, description="Most epochs of a training.")
    learning_rate: float | None = Field(None, gt=0, le=1, description="Peak learning rate.")
    batch_size: int | None = Field(None, ge=1, le=4096, description="Images a training step.")

    @property
    def reserve_size(self) -> int:
        """Images queued beyond the budget."""
        return max(self.budget, LEAST_RESERVE) if self.reserve is None else self.reserve

    @model_validator(mode="after")
    def _check_names(self) -> ProjectSettings:
        try:
            make_selector(self.selector, self.selector_options)
        except OptionError as error:
            raise ValueError(f'Setting "selector_options": {error}.') from error
        # The policy's file would be read and written wherever it says.
        if "weights" in self.selector_options:
            raise ValueError(
                'Setting "selector_options": weights names a file on the backend\'s machine, which '
                "a project's settings may not; leave it out."
            )
        known = [name for names in ARCHITECTURES.values() for name in names]
        if self.network is not None and self.network not in known:
            raise ValueError(
                f'Setting "network": there is no network "{self.network}" here; '
                f"choose one of {', '.join(known)}."
            )
        return self

    @classmethod
    def parse(cls, extra_params: object) -> ProjectSettings:
        """The settings in what Label Studio sent, or a sentence that says what is wrong.

        Raises:
            SettingsError: an unknown setting, or a value that is impossible.
        """
        if isinstance(extra_params, str):
            extra_params = _read_json(extra_params)
        if extra_params is None:
            return cls()
        if not isinstance(extra_params, dict):
            raise SettingsError(
                f"The extra params are {_json_type(extra_params)}; they must be a JSON object, "
                'such as {"budget": 50}.'
            )
        _check_characters(extra_params)
        try:
            return cls.model_validate(extra_params)
        except ValidationError as error:
            raise SettingsError(_sentence(error)) from None


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
                f'Setting "{shown}" holds half a character (a lone surrogate); type its text anew.'
            ) from None


# The library's own words are for programmers.
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
    "literal_error": "one of {expected}",
    "string_too_long": "at most {max_length} characters long",
    "string_type": "a text",
}


def _sentence(error: ValidationError) -> str:
    """The first fault, in a sentence that names the setting."""
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, ProjectSettings.model_fields, n=1)
        hint = f'did you mean "{close[0]}"?' if close else "see docs/settings.md."
        return f'There is no setting "{one_line(name)}"; {hint}'
    if not name:
        return first["msg"].removeprefix("Value error, ")
    if name == "pretrained":  # a choice of two types, each with a fault of its own
        must_be = 'true, false or "auto"'
    else:
        must_be = _MUST_BE.get(first["type"], "something else").format(**first.get("ctx", {}))
    given = json.dumps(first["input"], ensure_ascii=False)
    return f'Setting "{name}" must be {must_be}, not {one_line(given)}.'


def _json_type(value: object) -> str:
    names = {list: "a list", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")
