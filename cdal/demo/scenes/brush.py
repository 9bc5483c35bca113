"""A brush that paints simple shapes in an object's own coordinates."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """A colour from hue, saturation and value in [0, 1]; the hue wraps around."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def shade(colour: Colour, factor: float) -> Colour:
    """The colour, darker for factors below 1 and lighter for factors above 1."""
    red, green, blue = (min(255, round(channel * factor)) for channel in colour)
    return red, green, blue


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """``first`` mixed with this share of ``second``."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


class Brush:
    """A transparent layer on which one object is painted.

    The origin of the object's coordinates is where it stands, the y axis points upwards, and one
    unit is ``scale`` pixels long. The object may be rotated, stretched and mirrored.
    """

    def __init__(
        self,
        pixels: int,
        origin: Point,
        scale: float,
        degrees: float = 0.0,
        stretch: float = 1.0,
        mirrored: bool = False,
    ) -> None:
        self.layer = Image.new("RGBA", (pixels, pixels))
        self._draw = ImageDraw.Draw(self.layer)
        self._origin = origin
        self._scale = scale
        self._stretch = -stretch if mirrored else stretch
        self._cosine = math.cos(math.radians(degrees))
        self._sine = math.sin(math.radians(degrees))

    def polygon(self, colour: Colour, *points: Point) -> None:
        """Fill a polygon."""
        self._draw.polygon([self._place(point) for point in points], fill=colour)

    def box(self, colour: Colour, left: float, bottom: float, right: float, top: float) -> None:
        """Fill a rectangle."""
        self.polygon(colour, (left, bottom), (right, bottom), (right, top), (left, top))

    def ellipse(
        self,
        colour: Colour,
        centre: Point,
        radii: Point,
        from_degrees: float = 0,
        to_degrees: float = 360,
    ) -> None:
        """Fill an ellipse, or a part cut off by a chord; degrees run counterclockwise."""
        steps = [
            math.radians(from_degrees + (to_degrees - from_degrees) * i / 40) for i in range(41)
        ]
        self.polygon(
            colour,
            *(
                (centre[0] + radii[0] * math.cos(t), centre[1] + radii[1] * math.sin(t))
                for t in steps
            ),
        )

    def line(self, colour: Colour, width: float, points: Sequence[Point]) -> None:
        """Draw a line with round ends."""
        placed = [self._place(point) for point in points]
        pixels = max(1, round(width * self._scale))
        self._draw.line(placed, fill=colour, width=pixels, joint="curve")
        for x, y in (placed[0], placed[-1]):
            half = pixels / 2
            self._draw.ellipse((x - half, y - half, x + half, y + half), fill=colour)

    def _place(self, point: Point) -> Point:
        x, y = point[0] * self._scale * self._stretch, point[1] * self._scale
        return (
            self._origin[0] + x * self._cosine + y * self._sine,
            self._origin[1] + x * self._sine - y * self._cosine,
        )
