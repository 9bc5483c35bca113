"""Drawn scenes: coloured objects in typical and untypical surroundings.

A boat is usually at sea, but sometimes it stands on a road, where a network that has learnt water
instead of boats mistakes it for a car. This is the confusion that Contextual Diversity looks for,
here with known classes, boxes and masks, and without downloading a data set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from cdal.demo.scenes.brush import Brush
from cdal.demo.scenes.objects import OBJECTS
from cdal.demo.scenes.surroundings import SURROUNDINGS, Ground

CLASSES = tuple(OBJECTS)
"""The classes in order; class i has the value i + 1 in a mask, and 0 is background."""

SHARES: Mapping[str, float] = {
    "boat": 0.22, "car": 0.22, "tree": 0.20, "house": 0.16, "bird": 0.12, "cactus": 0.08,
}  # fmt: skip
"""How often each class is the main object."""

TYPICAL: Mapping[str, str] = {
    "boat": "sea", "car": "road", "tree": "meadow", "house": "snow", "bird": "sky",
    "cactus": "desert",
}  # fmt: skip
"""The typical surroundings of each class."""

TYPICAL_SHARE = 0.8
"""The share of scenes whose main object is in its typical surroundings."""

TILT: Mapping[str, float] = {
    "boat": 8, "car": 4, "tree": 4, "house": 2, "bird": 22, "cactus": 4,
}  # fmt: skip
"""The largest tilt of each class in degrees."""

FINENESS = 4
"""For smooth edges, a scene is painted this many times larger and then scaled down."""

LIGHTS: Mapping[tuple[int, int, int], float] = {
    (255, 255, 255): 0.4, (255, 246, 230): 0.25, (255, 228, 202): 0.15, (226, 232, 246): 0.12,
    (196, 200, 222): 0.08,
}  # fmt: skip
"""How often the light has each colour: noon, afternoon, evening, an overcast day, dusk."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SceneObject:
    """A visible object in a scene.

    Attributes:
        name: its class.
        box: the bounding box of its mask: left, top, right, bottom in pixels, right and bottom
            exclusive.
        mask: its visible pixels, (S, S) bool.
    """

    name: str
    box: tuple[int, int, int, int]
    mask: Mask


@dataclass(frozen=True, slots=True)
class Scene:
    """A drawn image with its labels.

    Attributes:
        image: (S, S, 3) uint8.
        label: the class of the main object.
        objects: the main object first, then those behind it; their masks do not overlap.
        surroundings: the name of the surroundings.
        typical: whether they are typical of the main object.
    """

    image: npt.NDArray[np.uint8]
    label: str
    objects: tuple[SceneObject, ...]
    surroundings: str
    typical: bool

    @property
    def mask(self) -> npt.NDArray[np.uint8]:
        """The class of each pixel, (S, S) uint8: 0 for background, i + 1 for class i."""
        mask = np.zeros(self.image.shape[:2], np.uint8)
        for item in self.objects:
            mask[item.mask] = CLASSES.index(item.name) + 1
        return mask


def draw_scene(seed: int, index: int, size: int = 96) -> Scene:
    """Draw one scene.

    Args:
        seed: the seed of the series.
        index: the number of the scene in the series, from 0; scenes are independent of each other.
        size: the side S in pixels.
    """
    # A string is hashed with SHA-512, which gives the same scene in every process.
    rng = Random(f"{seed}/{index}")  # noqa: S311
    label = rng.choices(CLASSES, [SHARES[name] for name in CLASSES])[0]
    typical = rng.random() < TYPICAL_SHARE
    others = [name for name in SURROUNDINGS if name != TYPICAL[label]]
    surroundings = TYPICAL[label] if typical else rng.choice(others)

    ground = Ground(size * FINENESS, rng)
    SURROUNDINGS[surroundings](ground)
    bare = ground.image.copy()
    main = _paint_main(label, ground)
    background = _paint_background(main, ground)
    for _, layer in (*background, (label, main)):
        _cast_shadow(ground, layer)
        ground.image.paste(layer, mask=layer)
    if ground.horizon and rng.random() < 0.3:
        _cover_foot(ground, bare, main)

    objects = []
    hidden = np.zeros((size, size), np.bool_)
    for name, layer in ((label, main), *background):
        mask = _covered(layer, size) & ~hidden
        hidden |= mask
        objects.append(SceneObject(name, hull(mask), mask))
    image = _photograph(ground.image, size, rng)
    return Scene(image, label, tuple(objects), surroundings, typical)


def hull(mask: Mask) -> tuple[int, int, int, int]:
    """The bounding box of a mask that is not empty: left, top, right, bottom (exclusive)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _paint(name: str, ground: Ground, x: float, y: float, width: float) -> Image.Image:
    """A layer with one object; position and width are shares of the scene's side."""
    rng, side = ground.rng, ground.pixels
    brush = Brush(
        side,
        origin=(x * side, y * side),
        scale=width * side / 2,
        degrees=rng.uniform(-TILT[name], TILT[name]),
        stretch=rng.uniform(0.85, 1.15),
        mirrored=rng.random() < 0.5,
    )
    OBJECTS[name](brush, rng)
    return _lit(brush.layer, rng)


def _lit(layer: Image.Image, rng: Random) -> Image.Image:
    """The layer, lit from one side."""
    alpha = layer.getchannel("A")
    ramp = Image.linear_gradient("L").rotate(rng.choice((0, 90, 270)))
    strength = rng.uniform(0.1, 0.35)
    light = ramp.resize(layer.size).point(lambda value: round(255 - strength * value))
    lit = ImageChops.multiply(layer.convert("RGB"), Image.merge("RGB", [light] * 3))
    lit.putalpha(alpha)
    return lit


def _paint_main(label: str, ground: Ground) -> Image.Image:
    rng = ground.rng
    width = rng.uniform(0.3, 0.52)
    return _paint(label, ground, rng.uniform(0.3, 0.7), _standing(ground, 0.35, 0.85, width), width)


def _paint_background(main: Image.Image, ground: Ground) -> list[tuple[str, Image.Image]]:
    """Up to two smaller objects, nearest first, each of them mostly visible."""
    rng = ground.rng
    painted: list[tuple[str, Image.Image]] = []
    front = _alpha(main)
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        name, width = rng.choice(CLASSES), rng.uniform(0.12, 0.2)
        layer = _paint(
            name, ground, rng.uniform(0.1, 0.9), _standing(ground, 0.0, 0.25, width), width
        )
        own = _alpha(layer)
        if (own & ~front).sum() > 0.7 * own.sum():
            painted.append((name, layer))
            front |= own
    return painted


def _standing(ground: Ground, near: float, nearest: float, width: float) -> float:
    """The height of an object's foot, as a share of the side, between two shares of the ground."""
    horizon = ground.horizon / ground.pixels
    if not horizon:
        return ground.rng.uniform(0.3 + width, 0.95 - width / 3)
    return horizon + (1 - horizon) * ground.rng.uniform(near, nearest)


def _alpha(layer: Image.Image) -> Mask:
    return np.asarray(layer.getchannel("A")) > 0


def _covered(layer: Image.Image, size: int) -> Mask:
    """The pixels of which a layer covers at least half."""
    small = layer.getchannel("A").resize((size, size), Image.Resampling.BOX)
    return np.asarray(small) >= 128


def _cast_shadow(ground: Ground, layer: Image.Image) -> None:
    """Darken the ground at an object's foot, unless the scene is all sky."""
    box = layer.getbbox()
    if not ground.horizon or box is None:
        return
    left, _, right, bottom = box
    half = (right - left) * 0.06
    shadow = Image.new("L", layer.size)
    ImageDraw.Draw(shadow).ellipse((left, bottom - half * 1.4, right, bottom + half), fill=110)
    shadow = shadow.filter(ImageFilter.GaussianBlur(ground.pixels / 100))
    ground.image.paste((24, 28, 40), mask=shadow)


def _cover_foot(ground: Ground, bare: Image.Image, layer: Image.Image) -> None:
    """Hide an object's foot behind a rise in the bare ground."""
    box = layer.getbbox()
    if box is None:
        return
    left, top, right, bottom = box
    height, centre = (bottom - top) * ground.rng.uniform(0.1, 0.25), ground.rng.uniform(left, right)
    reach = (right - left) * ground.rng.uniform(0.6, 1.0)
    rise = Image.new("L", layer.size)
    ImageDraw.Draw(rise).ellipse(
        (centre - reach, bottom - height, centre + reach, bottom + height * 2), fill=255
    )
    ground.image.paste(bare, mask=rise)
    layer.paste((0, 0, 0, 0), mask=rise)


def _photograph(image: Image.Image, size: int, rng: Random) -> npt.NDArray[np.uint8]:
    """The scene at its final size, in coloured light, slightly blurred and grainy."""
    light = Image.new("RGB", image.size, rng.choices(tuple(LIGHTS), tuple(LIGHTS.values()))[0])
    image = ImageChops.multiply(image, light).resize((size, size), Image.Resampling.LANCZOS)
    image = image.filter(ImageFilter.GaussianBlur(rng.choice((0.0, 0.0, 0.3, 0.6))))
    grain = np.random.default_rng(rng.getrandbits(64)).normal(0, rng.uniform(1, 4), (size, size, 3))
    exposed = np.asarray(image, np.float64) * rng.uniform(0.92, 1.12) + grain
    return exposed.clip(0, 255).round().astype(np.uint8)
