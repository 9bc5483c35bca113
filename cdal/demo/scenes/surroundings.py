"""The surroundings of scenes: the background, and the ground that objects stand on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from PIL import Image, ImageDraw, ImageFilter

from cdal.demo.scenes.brush import Colour, mix, shade

WHITE = (255, 255, 255)


class Ground:
    """A square picture on which surroundings are painted.

    Attributes:
        image: the picture, RGB.
        pixels: its side.
        horizon: the row where the ground begins.
        colour: the colour of the ground near the viewer.
    """

    def __init__(self, pixels: int, rng: Random) -> None:
        self.pixels = pixels
        self.rng = rng
        self.image = Image.new("RGB", (pixels, pixels))
        self.draw = ImageDraw.Draw(self.image)
        self.horizon = round(pixels * rng.uniform(0.34, 0.56))
        self.colour: Colour = WHITE

    def fade(self, top: Colour, bottom: Colour, first: int, last: int) -> None:
        """Fill the rows from ``first`` to ``last`` with a gradient."""
        for row in range(first, last):
            share = (row - first) / max(1, last - first - 1)
            self.draw.line([(0, row), (self.pixels, row)], fill=mix(top, bottom, share))

    def sky(self, top: Colour, bottom: Colour, clouds: int, last: int | None = None) -> None:
        """Fill the part above the horizon."""
        last = self.horizon if last is None else last
        self.fade(top, bottom, 0, last)
        for _ in range(clouds):
            self.cloud(self.rng.uniform(0, self.pixels), self.rng.uniform(0, last * 0.75))

    def cloud(self, x: float, y: float) -> None:
        """Paint a soft cloud: a few white discs on a flat base, blurred."""
        unit = self.pixels * self.rng.uniform(0.03, 0.06)
        layer = Image.new("L", self.image.size)
        draw = ImageDraw.Draw(layer)
        for i in range(5):
            radius = unit * self.rng.uniform(0.7, 1.3) * (1.2 - 0.25 * abs(i - 2))
            centre = x + (i - 2) * unit
            draw.ellipse((centre - radius, y - radius, centre + radius, y + radius * 0.6), fill=215)
        layer = layer.filter(ImageFilter.GaussianBlur(unit * 0.18))
        self.image.paste(WHITE, mask=layer)

    def hill(self, colour: Colour, row: float, height: float) -> None:
        """Paint a range of smooth hills that rise from ``row``."""
        for _ in range(3):
            centre = self.rng.uniform(0, self.pixels)
            width, top = self.pixels * self.rng.uniform(0.3, 0.6), height * self.rng.uniform(0.5, 1)
            self.draw.chord(
                (centre - width, row - top, centre + width, row + top), 180, 360, colour
            )

    def disc(self, colour: Colour, x: float, y: float, radius: float) -> None:
        self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def strokes(self, colour: Colour, count: int, length: float, width: float) -> None:
        """Paint short horizontal strokes on the ground; nearer ones are longer."""
        for _ in range(count):
            near = self.rng.random() ** 0.7
            y = self.horizon + near * (self.pixels - self.horizon)
            x, reach = self.rng.uniform(0, self.pixels), length * self.pixels * (0.25 + near)
            thick = max(1, round(width * self.pixels * (0.3 + near)))
            self.draw.line([(x, y), (x + reach, y)], fill=colour, width=thick)


def sea(ground: Ground) -> None:
    rng = ground.rng
    ground.sky((112, 170, 220), (214, 232, 240), rng.randint(0, 3))
    far, near = (70, 140, 178), (24, 84, 132)
    if rng.random() < 0.35:
        far, near = (92, 160, 160), (30, 104, 112)
    ground.fade(far, near, ground.horizon, ground.pixels)
    ground.strokes(mix(far, WHITE, 0.3), 26, 0.09, 0.006)
    ground.strokes(shade(near, 0.85), 18, 0.1, 0.007)
    ground.colour = near


def road(ground: Ground) -> None:
    rng, side, horizon = ground.rng, ground.pixels, ground.horizon
    ground.sky((138, 178, 214), (222, 228, 230), rng.randint(0, 2))
    ground.hill((120, 142, 128), horizon, side * 0.12)
    ground.fade((138, 156, 104), (112, 134, 78), horizon, side)
    asphalt = shade((112, 113, 118), rng.uniform(0.8, 1.15))
    vanish = side * rng.uniform(0.3, 0.7)
    edges = [(vanish - side * 0.05, horizon), (vanish + side * 0.05, horizon)]
    ground.draw.polygon([*edges, (side * 1.35, side), (-side * 0.35, side)], fill=asphalt)
    for start in (0.0, 0.12, 0.3, 0.58):
        rows = [horizon + (side - horizon) * share for share in (start, start + 0.06 + start * 0.3)]
        centre = [vanish + (side / 2 - vanish) * (row - horizon) / (side - horizon) for row in rows]
        half = [side * (0.003 + 0.02 * (row - horizon) / side) for row in rows]
        ground.draw.polygon(
            [
                (centre[0] - half[0], rows[0]), (centre[0] + half[0], rows[0]),
                (centre[1] + half[1], rows[1]), (centre[1] - half[1], rows[1]),
            ],
            fill=(236, 230, 206),
        )  # fmt: skip
    ground.colour = asphalt


def meadow(ground: Ground) -> None:
    rng, side = ground.rng, ground.pixels
    ground.sky((122, 182, 226), (220, 236, 238), rng.randint(0, 3))
    ground.hill((116, 160, 116), ground.horizon, side * 0.16)
    ground.hill((134, 178, 104), ground.horizon + side * 0.02, side * 0.08)
    far, near = (144, 190, 92), (86, 146, 62)
    ground.fade(far, near, ground.horizon, side)
    for _ in range(60):
        near_by = rng.random()
        x, y = rng.uniform(0, side), ground.horizon + (side - ground.horizon) * near_by
        tall = side * (0.008 + 0.022 * near_by)
        ground.draw.line(
            [(x, y), (x + rng.uniform(-0.4, 0.4) * tall, y - tall)],
            shade(near, 0.85),
            max(1, side // 190),
        )
    for _ in range(rng.randint(0, 24)):
        near_by = rng.random()
        x, y = rng.uniform(0, side), ground.horizon + (side - ground.horizon) * near_by
        petals = rng.choice(((250, 240, 240), (246, 212, 76), (222, 98, 110), (170, 130, 210)))
        ground.disc(petals, x, y, side * (0.003 + 0.007 * near_by))
    ground.colour = near


def sky(ground: Ground) -> None:
    rng, side = ground.rng, ground.pixels
    top, bottom = rng.choice((
        ((70, 138, 208), (190, 220, 240)),
        ((96, 158, 216), (226, 236, 240)),
        ((92, 112, 168), (242, 200, 170)),
    ))  # fmt: skip
    ground.sky(top, bottom, rng.randint(2, 6), side)
    ground.horizon = 0
    ground.colour = bottom


def snow(ground: Ground) -> None:
    rng, side = ground.rng, ground.pixels
    ground.sky((150, 176, 206), (226, 232, 240), rng.randint(0, 2))
    ground.hill((196, 208, 226), ground.horizon, side * 0.22)
    ground.hill((214, 224, 236), ground.horizon + side * 0.02, side * 0.1)
    ground.fade((226, 233, 243), (250, 251, 253), ground.horizon, side)
    ground.strokes((206, 218, 234), 10, 0.2, 0.01)
    for _ in range(rng.randint(0, 40)):
        ground.disc(
            WHITE, rng.uniform(0, side), rng.uniform(0, side), side * rng.uniform(0.003, 0.007)
        )
    ground.colour = (244, 247, 251)


def desert(ground: Ground) -> None:
    rng, side = ground.rng, ground.pixels
    ground.sky((120, 178, 214), (246, 226, 190), 0)
    if rng.random() < 0.6:
        ground.disc(
            (255, 243, 204),
            rng.uniform(0, side),
            ground.horizon * rng.uniform(0.15, 0.6),
            side * 0.06,
        )
    far, near = (224, 178, 112), (206, 148, 84)
    ground.hill(shade(far, 0.92), ground.horizon, side * 0.14)
    ground.fade(far, near, ground.horizon, side)
    for _ in range(3):
        ground.hill(mix(far, near, rng.random()), side * rng.uniform(0.75, 1.1), side * 0.12)
    ground.strokes(shade(near, 0.92), 12, 0.14, 0.006)
    ground.colour = near


SURROUNDINGS: Mapping[str, Callable[[Ground], None]] = {
    "sea": sea,
    "road": road,
    "meadow": meadow,
    "snow": snow,
    "sky": sky,
    "desert": desert,
}
"""The functions that paint each kind of surroundings."""
