"""A project's settings, typed as extra params (JSON) on Label Studio's Model page."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cdal.backend.errors import SettingsError
from cdal.backend.extra_params import read_typed, sentence
from cdal.models import ARCHITECTURES, is_backbone
from cdal.models.tiling import LEAST_SIDE
from cdal.selectors import OptionError, make_selector
from cdal.text import one_line

SelectorName = Literal[
    "cdal-cs",
    "cdal-rl",
    "cd-greedy",
    "random",
    "entropy",
    "margin",
    "least-confidence",
    "core-set",
    "typiclust",
    "prob-cover",
    "badge",
    "bald",
    "mc-dropout",
    "committee",
    "suggestive-annotation",
    "dropquery",
]


LONGEST_PROBLEM = 300

HEAD_TRAINS_EVERY = 10
"""With head training, the model learns from this many new labels in seconds."""

LEAST_RESERVE = 30
"""Even fast annotators do not label more images than this while the queue is being refilled."""


MOST_OF_OPTION = {"cells": 2048, "episodes": 50, "epochs": 10_000, "window": 4096}
"""The largest values of selectors' options in a project: more would take all memory, or days, from
other projects. The command line and the benchmark have no such limits."""


# As timm names its networks; whether there is one of this name is checked where it is stored.
_BACKBONE = re.compile(r"timm:[a-z0-9_]{1,60}(\.[a-z0-9_]{1,60})?")


class ProjectSettings(BaseModel):
    """What an admin may type, as JSON, on the project's Model page."""

    # Strict, because a budget of true would otherwise mean 1.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    budget: int = Field(
        50,
        ge=1,
        le=1_000_000,
        description="Images to label per round, after which the model retrains.",
    )
    reserve: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Images queued beyond the budget, so that people can go on labelling while the "
        "model trains. When fewer are left, more are queued, so the reserve must last everybody "
        "for a few seconds. By default the budget, but at least 30.",
    )
    selector: SelectorName = Field(
        "cdal-cs",
        description="How the next images are chosen; `bald`, `mc-dropout`, `committee`, "
        "`suggestive-annotation` and `dropquery` are for classification with head training.",
    )
    selector_options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the selector, by name."
    )
    policy: Literal["each", "once"] = Field(
        "each",
        description='`cdal-rl`: whether its policy is trained for each order ("each"), or once and '
        'then kept until its options or the classes change ("once").',
    )
    first_round: Literal["typical", "random"] = Field(
        "typical",
        description="The order before the first model: images that are typical of the pool by the "
        'features of the pretrained backbone (TypiClust), or "random". The queue opens in random '
        "order, and typical images come first as soon as they are found. Full training has no "
        "backbone, so its first order is random.",
    )
    random_share: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Share of each round's images that are drawn at random. With it, the pages can "
        "estimate how many labels selection saves.",
    )
    pool_sample: int | None = Field(
        None,
        ge=100,
        le=1_000_000,
        description="Unlabelled images that a round's model looks at, at most: half of them the "
        "first of the ranking before, the others drawn at random in each round. It is for large "
        "pools whose images take long to look at; by default all.",
    )
    region: Literal["auto", "class", "image"] = Field(
        "auto",
        description='Class mixtures: one per pseudo-label ("class") or one per image ("image"); '
        '"auto" means "image" for classification and "class" otherwise.',
    )
    classes: list[str] | None = Field(
        None,
        min_length=1,
        description="Names of the labels that count in Contextual Diversity: only regions that the "
        "model takes for one of them make class mixtures. By default all.",
    )
    mixture_weights: Literal["entropy", "uniform"] = Field(
        "entropy",
        description="Weights of the regions in class mixtures: their entropy, as in the paper, or "
        "the same for all.",
    )
    box_confidence: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Detection: the confidence from which a box is a region of class mixtures; by "
        "default 0.05.",
    )
    box_background: Literal["drop", "keep"] = Field(
        "drop",
        description="Detection with full training: whether the background, which a network weighs "
        'against the classes of each box, is a class in class mixtures ("keep") or left out '
        '("drop").',
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Makes every random choice reproducible.")
    min_labels: int = Field(
        10,
        ge=2,
        le=1_000_000,
        description="Labelled images needed for the first training; until then, see `first_round`.",
    )
    train_every: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Also train after this many new labels, and refresh the order of the round. By "
        f"default {HEAD_TRAINS_EVERY} with head training; otherwise only a round's end counts.",
    )
    held_out: float = Field(
        0.2,
        gt=0,
        lt=0.9,
        description="Share of the labelled images on which models are measured, not trained.",
    )
    tolerance: float = Field(
        0.02,
        ge=0,
        le=1,
        description="A new model serves unless its metric, on images that neither it nor the "
        "serving model has learnt from, is lower by more than this and the drop is hardly chance.",
    )
    control: str | None = Field(
        None,
        max_length=200,
        description="Name of the only control to serve. By default, all that can be are served, "
        "each by a model of its own.",
    )
    select_by: str | None = Field(
        None,
        max_length=200,
        description="Name of the control by whose model images are chosen, if several are served. "
        "By default all count: Contextual Diversity, or uncertainty, is summed over them, and "
        "features are joined.",
    )
    unlabelled: Literal["background", "ignore"] = Field(
        "background",
        description="Segmentation: pixels that no region covers are learnt as background "
        '("background") or not at all ("ignore", for projects that label every pixel).',
    )
    split_regions: bool | Literal["touching"] = Field(
        False,
        description="Segmentation: predict one region per connected part of a class, instead of "
        'one per class; "touching" also splits a part where it is narrow, so that objects that '
        "touch each other are regions of their own (polygons, too), and lets full training on a "
        "GPU choose Mask R-CNN, if its COCO weights are available.",
    )
    smallest_region: float = Field(
        0.0005,
        ge=0,
        le=1,
        description="Segmentation: predictions leave out connected parts that are smaller than "
        "this share of the image.",
    )
    polygon_tolerance: float = Field(
        1.0,
        ge=0,
        le=50,
        description="Segmentation: how many pixels a predicted polygon may deviate from the mask; "
        "a larger tolerance gives fewer points.",
    )
    training: Literal["auto", "head", "full"] = Field(
        "auto",
        description="What learns: a small head on a frozen pretrained backbone, in seconds "
        '("head"), or all weights of a network ("full"). "auto" means "head", with full training '
        "after it in the background where there is a GPU and at least 1,000 labels, or where a "
        'fully trained model serves; but "full" if another setting requires it: a `network` of '
        "torchvision, `weights`, or `pretrained` false. A `network` `timm:NAME` means heads only.",
    )
    network: str | None = Field(
        None,
        max_length=200,
        description="Name of the network; by default chosen by training, task and device. "
        "`timm:NAME` is the backbone for head training; the weights of "
        "`timm:tf_efficientnet_lite0` are installed. Any other is trained in full; "
        "`efficientnet_lite0`, `lraspp_efficientnet_lite0` and `ssdlite_efficientnet_lite0` start "
        "from the installed weights. "
        "`maskrcnn_resnet50_fpn` tells objects of a class apart, and needs a GPU to be of use.",
    )
    pretrained: bool | Literal["auto"] = Field(
        "auto",
        description="Start from published weights if there is no model to fine-tune: "
        '"auto" if they are on this machine or can be downloaded, true or not at all, false never.',
    )
    weights: str | None = Field(
        None,
        max_length=200,
        description="Start from your own weights if there is no model to fine-tune: the name of a "
        "file (.safetensors or a state dict saved by torch) in the server's `CDAL_WEIGHTS_FOLDER`.",
    )
    warm_start: bool = Field(
        True,
        description="Full training: fine-tune the serving model, if there is one; false starts "
        "over each time.",
    )
    image_size: int | None = Field(
        None,
        ge=32,
        le=1024,
        description="Side of the network's input in pixels; by default chosen by the device and, "
        "in full training, by the images. Head training rounds it to a multiple of 32.",
    )
    tile: int | None = Field(
        None,
        ge=128,
        le=1024,
        description="Detection and segmentation with head training, for small objects in large "
        "images: the network sees an image in overlapping tiles of this side in pixels, at the "
        "image's own resolution, and not shrunk as a whole. With `image_size`, each tile is "
        "resized to that.",
    )
    epochs: int | None = Field(
        None, ge=1, le=10_000, description="Maximum number of epochs per training."
    )
    learning_rate: float | None = Field(None, gt=0, le=1, description="Peak learning rate.")
    batch_size: int | None = Field(None, ge=1, le=4096, description="Images per training step.")

    @property
    def reserve_size(self) -> int:
        """Images queued beyond the budget."""
        return max(self.budget, LEAST_RESERVE) if self.reserve is None else self.reserve

    @property
    def trains_every(self) -> int | None:
        """New labels that cause a training within a round; None: none do."""
        if self.train_every is None and self.trains_head:
            return HEAD_TRAINS_EVERY
        return self.train_every

    @property
    def trains_head(self) -> bool:
        """Whether labels train a head on a frozen backbone, and not all weights."""
        return self.training != "full" and self._reason_for_full is None

    @property
    def begins_typical(self) -> bool:
        """Whether typical images come first before there is a model."""
        return self.first_round == "typical" and self.trains_head

    @property
    def _reason_for_full(self) -> str | None:
        """The setting that requires full training, as people read it; None if none does."""
        if self.network is not None and not is_backbone(self.network):
            return f'"network": "{one_line(self.network)}"'
        if self.weights is not None:
            return '"weights"'
        return '"pretrained": false' if self.pretrained is False else None

    @model_validator(mode="after")
    def _check_names(self) -> ProjectSettings:
        try:
            selector = make_selector(self.selector, self.selector_options)
        except OptionError as error:
            problem = one_line(str(error), LONGEST_PROBLEM)
            raise ValueError(f'Setting "selector_options": {problem}.') from error
        for option, most in MOST_OF_OPTION.items():
            if (getattr(selector, option, None) or 0) > most:
                raise ValueError(
                    f'Setting "selector_options": option "{option}" of {self.selector} must be at '
                    f"most {most}."
                )
        # The selector reads and writes the policy at this path, wherever it is.
        if "weights" in self.selector_options:
            raise ValueError(
                'Setting "selector_options": option "weights" names a file on the backend\'s '
                "machine, which a project's settings may not do; leave it out."
            )
        known = list(dict.fromkeys(name for names in ARCHITECTURES.values() for name in names))
        if self.network is None:
            return self
        if self.network not in known and not _BACKBONE.fullmatch(self.network):
            raise ValueError(
                f'Setting "network": there is no network "{one_line(self.network)}"; '
                f"choose one of {', '.join(known)}, or timm:NAME."
            )
        if is_backbone(self.network) and (self.pretrained is False or self.weights is not None):
            other = '"weights"' if self.weights is not None else '"pretrained"'
            raise ValueError(
                f'Setting "network": "{self.network}" is a head on a pretrained backbone, which '
                f"needs its own weights; leave out {other}, or choose another network."
            )
        return self

    @model_validator(mode="after")
    def _check_training(self) -> ProjectSettings:
        reason = self._reason_for_full
        if self.training == "head" and reason is not None:
            raise ValueError(
                f'Setting "training": "head" contradicts {reason}, which trains all weights of a '
                "network; leave out one of the two."
            )
        if self.training == "full" and self.network is not None and is_backbone(self.network):
            raise ValueError(
                f'Setting "training": "full" contradicts "network": "{self.network}", a backbone '
                "that stays frozen; leave out one of the two, or choose a network of torchvision."
            )
        if self.tile is not None and not self.trains_head:
            given = reason or '"training": "full"'
            raise ValueError(
                f'Setting "tile" is for head training, and {given} trains all weights of a '
                "network, which sees images as a whole; leave out one of the two."
            )
        if self.tile is not None and (self.image_size or LEAST_SIDE) < LEAST_SIDE:
            raise ValueError(
                f'Setting "image_size" must be at least {LEAST_SIDE} with "tile"; it is '
                f"{self.image_size}."
            )
        return self

    @classmethod
    def parse(cls, extra_params: object) -> ProjectSettings:
        """Parse what Label Studio sent: a JSON object, or its text.

        Raises:
            SettingsError: a setting is unknown or has an impossible value.
        """
        try:
            return cls._parse(extra_params)
        except RecursionError:
            raise SettingsError(
                'The extra params are nested too deeply; they must be such as {"budget": 50}.'
            ) from None

    @classmethod
    def _parse(cls, extra_params: object) -> ProjectSettings:
        typed = read_typed(extra_params)
        try:
            return cls.model_validate(typed)
        except ValidationError as error:
            raise SettingsError(sentence(error, cls.model_fields)) from None
