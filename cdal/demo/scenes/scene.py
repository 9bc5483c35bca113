"""Images that the project draws itself: coloured objects in typical and untypical surroundings.

A boat is mostly at sea, but now and then it stands on a road, where a network that has learnt
water instead of boats takes it for a car. That is the confusion that Contextual Diversity looks
for, here with known classes, boxes and masks, and with no data set to fetch.
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
"""The classes in order; class i has the value i + 1 in a mask, where 0 is background."""

SHARES: Mapping[str, float] = {
    "boat": 0.22, "car": 0.22, "tree": 0.20, "house": 0.16, "bird": 0.12, "cactus": 0.08,
}  # fmt: skip
"""How often each class is the main object."""

TYPICAL: Mapping[str, str] = {
    "boat": "sea", "car": "road", "tree": "meadow", "house": "snow", "bird": "sky",
    "cactus": "desert",
}  # fmt: skip
"""Where each class is mostly found."""

TYPICAL_SHARE = 0.8
"""The share of images whose main object is where it is mostly found."""

TILT: Mapping[str, float] = {
    "boat": 8, "car": 4, "tree": 4, "house": 2, "bird": 22, "cactus": 4,
}  # fmt: skip
"""How far an object may lean, in degrees."""

FINENESS = 4
"""A scene is painted this many times larger and then scaled down, for smooth edges."""

LIGHTS: Mapping[tuple[int, int, int], float] = {
    (255, 255, 255): 0.4, (255, 246, 230): 0.25, (255, 228, 202): 0.15, (226, 232, 246): 0.12,
    (196, 200, 222): 0.08,
}  # fmt: skip
"""How often the light has which colour: noon, afternoon, evening, an overcast day, dusk."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SceneObject:
    """An object that can be seen in a scene.

    Attributes:
        name: its class.
        box: left, top, right, bottom in pixels, right and bottom exclusive: the hull of the mask.
        mask: where it is seen, (S, S) bool.
    """

    name: str
    box: tuple[int, int, int, int]
    mask: Mask


@dataclass(frozen=True, slots=True)
class Scene:
    """One drawn image and all that is true of it.

    Attributes:
        image: (S, S, 3) uint8.
        label: the class of the main object.
        objects: the main object first, then those in the background; their masks don't overlap.
        surroundings: their name.
        typical: whether the main object is mostly found in such surroundings.
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
        seed: of the whole series.
        index: which of its scenes, at least 0; each is independent of the others.
        size: its side S in pixels.
    """
    # A string seeds through SHA-512, the same in every process and on every machine.
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
        mask = _seen(layer, size) & ~hidden
        hidden |= mask
        objects.append(SceneObject(name, hull(mask), mask))
    image = _photograph(ground.image, size, rng)
    return Scene(image, label, tuple(objects), surroundings, typical)


def hull(mask: Mask) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a mask that is not empty, right and bottom exclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _paint(name: str, ground: Ground, x: float, y: float, width: float) -> Image.Image:
    """A layer with one object; place and width as shares of the scene's side."""
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
    """The layer with light from one side."""
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
    """Up to two smaller objects, nearest first, each of which is mostly in view."""
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
    """Where an object's foot is, as a share of the side, between two shares of the ground."""
    horizon = ground.horizon / ground.pixels
    if not horizon:
        return ground.rng.uniform(0.3 + width, 0.95 - width / 3)
    return horizon + (1 - horizon) * ground.rng.uniform(near, nearest)


def _alpha(layer: Image.Image) -> Mask:
    return np.asarray(layer.getchannel("A")) > 0


def _seen(layer: Image.Image, size: int) -> Mask:
    """Where at least half of a pixel is covered."""
    small = layer.getchannel("A").resize((size, size), Image.Resampling.BOX)
    return np.asarray(small) >= 128


def _cast_shadow(ground: Ground, layer: Image.Image) -> None:
    """Darken the ground at an object's foot, where there is a ground."""
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
    """Hide an object's foot behind a rise of the ground, as it was before anything stood on it."""
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
    """The scene at its final size under its own light, a little unsharp and grainy."""
    light = Image.new("RGB", image.size, rng.choices(tuple(LIGHTS), tuple(LIGHTS.values()))[0])
    image = ImageChops.multiply(image, light).resize((size, size), Image.Resampling.LANCZOS)
    image = image.filter(ImageFilter.GaussianBlur(rng.choice((0.0, 0.0, 0.3, 0.6))))
    grain = np.random.default_rng(rng.getrandbits(64)).normal(0, rng.uniform(1, 4), (size, size, 3))
    exposed = np.asarray(image, np.float64) * rng.uniform(0.92, 1.12) + grain
    return exposed.clip(0, 255).round().astype(np.uint8)
