"""The objects of the scenes. Each is about two units wide and stands on y = 0."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from cdal.demo.scenes.brush import Brush, Colour, hsv, mix, shade

GLASS = (176, 212, 230)
DARK = (48, 48, 54)
WHITE = (244, 243, 238)
WOOD = (112, 80, 54)


def paint_colour(rng: Random) -> Colour:
    """A colour that boats, cars, houses and birds share, so that it does not reveal the class."""
    if rng.random() < 0.2:
        return mix(WHITE, DARK, rng.uniform(0, 0.8))
    return hsv(rng.random(), rng.uniform(0.45, 0.85), rng.uniform(0.5, 0.9))


def boat(brush: Brush, rng: Random) -> None:
    """A sailing boat, or a small ship with a cabin and a funnel."""
    hull = paint_colour(rng)
    if rng.random() < 0.6:
        sail = WHITE if rng.random() < 0.6 else paint_colour(rng)
        height = rng.uniform(1.5, 2.0)
        brush.line(WOOD, 0.06, [(0.05, 0.3), (0.05, height + 0.1)])
        brush.polygon(sail, (0.12, height), (0.12, 0.5), (0.9, 0.55))
        brush.polygon(shade(sail, 0.86), (-0.02, height * 0.92), (-0.02, 0.5), (-0.7, 0.52))
    else:
        cabin = mix(WHITE, hull, 0.12)
        brush.box(cabin, -0.55, 0.4, 0.35, 0.8)
        brush.box(cabin, -0.35, 0.8, 0.15, 1.05)
        for x in (-0.42, -0.12, 0.18):
            brush.ellipse(GLASS, (x, 0.6), (0.09, 0.09))
        funnel = paint_colour(rng)
        brush.box(funnel, -0.25, 1.05, 0.0, 1.42)
        brush.box(shade(funnel, 0.6), -0.25, 1.3, 0.0, 1.42)
    brush.polygon(hull, (-1, 0.42), (1.05, 0.46), (0.72, 0), (-0.78, 0))
    brush.polygon(shade(hull, 0.7), (-0.86, 0.14), (0.83, 0.14), (0.72, 0), (-0.78, 0))
    brush.line(WHITE, 0.05, [(-0.97, 0.38), (1.0, 0.41)])


def car(brush: Brush, rng: Random) -> None:
    """A saloon, a van or a pick-up."""
    body = paint_colour(rng)
    kind = rng.choice(("saloon", "saloon", "van", "pick-up"))
    if kind == "saloon":
        brush.polygon(body, (-0.72, 0.6), (-0.42, 1.02), (0.3, 1.02), (0.66, 0.6))
        brush.polygon(GLASS, (-0.56, 0.62), (-0.36, 0.93), (-0.06, 0.93), (-0.06, 0.62))
        brush.polygon(GLASS, (0.02, 0.62), (0.02, 0.93), (0.26, 0.93), (0.5, 0.62))
    elif kind == "van":
        brush.polygon(body, (-1, 0.5), (-0.98, 1.25), (0.5, 1.25), (0.85, 0.6))
        for left in (-0.85, -0.42):
            brush.box(GLASS, left, 0.75, left + 0.34, 1.1)
        brush.polygon(GLASS, (0.02, 0.75), (0.02, 1.1), (0.42, 1.1), (0.64, 0.75))
    else:
        brush.polygon(body, (-0.1, 0.55), (-0.05, 1.08), (0.38, 1.08), (0.62, 0.55))
        brush.polygon(GLASS, (0.02, 0.64), (0.05, 0.98), (0.33, 0.98), (0.48, 0.64))
        brush.line(shade(body, 0.8), 0.08, [(-0.98, 0.66), (-0.12, 0.66)])
    brush.polygon(
        body, (-1.02, 0.22), (-1.04, 0.58), (-0.9, 0.66), (0.72, 0.64), (1.02, 0.52), (1.06, 0.22)
    )
    brush.box(shade(body, 0.72), -1.02, 0.2, 1.06, 0.32)
    brush.ellipse((250, 232, 150), (0.97, 0.46), (0.07, 0.08))
    brush.ellipse((200, 50, 44), (-0.99, 0.48), (0.05, 0.08))
    for x in (-0.58, 0.6):
        brush.ellipse(DARK, (x, 0.22), (0.24, 0.24))
        brush.ellipse((176, 178, 184), (x, 0.22), (0.11, 0.11))


def tree(brush: Brush, rng: Random) -> None:
    """A round tree or a conifer, green or in autumn colours."""
    autumn = rng.random() < 0.25
    hue = rng.uniform(0.04, 0.13) if autumn else rng.uniform(0.24, 0.38)
    leaves = hsv(hue, rng.uniform(0.5, 0.8), rng.uniform(0.4, 0.75))
    bark = shade(WOOD, rng.uniform(0.7, 1.2))
    if rng.random() < 0.5:
        brush.polygon(bark, (-0.14, 0), (0.14, 0), (0.08, 0.9), (-0.08, 0.9))
        brush.ellipse(shade(leaves, 0.8), (0, 1.15), (0.72, 0.55))
        for _ in range(7):
            x, y = rng.uniform(-0.45, 0.45), rng.uniform(1.0, 1.6)
            radius = rng.uniform(0.26, 0.42)
            brush.ellipse(shade(leaves, rng.uniform(0.85, 1.15)), (x, y), (radius, radius))
    else:
        brush.box(bark, -0.1, 0, 0.1, 0.4)
        layers = rng.choice((3, 4))
        for i in range(layers):
            bottom, width = 0.3 + 1.25 * i / layers, 0.75 * (1 - 0.7 * i / layers)
            brush.polygon(
                shade(leaves, 0.82 + 0.09 * i),
                (-width, bottom), (width, bottom), (0, bottom + 0.85),
            )  # fmt: skip


def house(brush: Brush, rng: Random) -> None:
    """A house with a gable or a hipped roof, a door, windows and perhaps a chimney."""
    wall, roof = mix(paint_colour(rng), WHITE, 0.35), shade(paint_colour(rng), 0.75)
    height = rng.uniform(0.75, 1.1)
    if rng.random() < 0.6:
        brush.box(shade(roof, 0.85), 0.35, height, 0.58, height + 0.68)
    brush.box(wall, -0.85, 0, 0.85, height)
    ridge = 0.0 if rng.random() < 0.6 else 0.5
    brush.polygon(
        roof,
        (-1.02, height - 0.04), (1.02, height - 0.04),
        (ridge, height + 0.62), (-ridge, height + 0.62),
    )  # fmt: skip
    brush.box(shade(WOOD, rng.uniform(0.7, 1.4)), -0.16, 0, 0.16, 0.5)
    pane = GLASS if rng.random() < 0.6 else (250, 222, 130)
    for x in (-0.5, 0.5):
        brush.box(WHITE, x - 0.2, height * 0.36, x + 0.2, height * 0.36 + 0.4)
        brush.box(pane, x - 0.15, height * 0.36 + 0.05, x + 0.15, height * 0.36 + 0.35)


def bird(brush: Brush, rng: Random) -> None:
    """A bird in flight, its wings up, level or down, or one that stands."""
    body = paint_colour(rng)
    belly = mix(body, WHITE, 0.45)
    beak = (238, 168, 52)
    flying = rng.random() < 0.85
    middle = 0.75 if flying else 0.62
    if not flying:
        for x in (-0.08, 0.1):
            brush.line(beak, 0.05, [(x, 0.3), (x + 0.03, 0.0), (x + 0.14, 0.0)])
    brush.polygon(shade(body, 0.75), (-0.4, middle), (-1.0, middle + 0.2), (-0.95, middle - 0.12))
    brush.ellipse(body, (0, middle), (0.55, 0.32))
    brush.ellipse(belly, (0.05, middle - 0.04), (0.46, 0.26), 190, 350)
    brush.ellipse(body, (0.5, middle + 0.24), (0.23, 0.22))
    brush.polygon(beak, (0.68, middle + 0.32), (0.98, middle + 0.22), (0.68, middle + 0.16))
    brush.ellipse(DARK, (0.57, middle + 0.29), (0.045, 0.05))
    wing = shade(body, 0.68)
    if flying:
        lift = rng.uniform(-0.7, 1.0)
        brush.polygon(
            wing,
            (-0.32, middle),
            (0.25, middle),
            (-0.1, middle + lift),
            (-0.45, middle + lift * 0.9),
        )
        brush.polygon(
            shade(body, 0.85),
            (-0.1, middle + 0.08),
            (0.3, middle + 0.08),
            (0.32, middle + lift * 0.85),
            (0.05, middle + lift),
        )
    else:
        brush.ellipse(wing, (-0.14, middle + 0.02), (0.38, 0.2))


def cactus(brush: Brush, rng: Random) -> None:
    """A column with up to two arms, ribs and perhaps flowers."""
    green = hsv(rng.uniform(0.27, 0.42), rng.uniform(0.4, 0.75), rng.uniform(0.4, 0.7))
    rib = shade(green, 0.75)
    height = rng.uniform(1.4, 1.9)
    for side in (-1, 1):
        if rng.random() < 0.85:
            low, high = rng.uniform(0.4, 0.8), rng.uniform(1.0, 1.4)
            brush.line(green, 0.26, [(0, low), (side * 0.55, low), (side * 0.55, high)])
            brush.line(rib, 0.04, [(side * 0.55, low + 0.05), (side * 0.55, high)])
    brush.line(green, 0.42, [(0, 0.15), (0, height)])
    brush.box(green, -0.21, 0, 0.21, 0.3)
    for x in (-0.1, 0.04):
        brush.line(rib, 0.04, [(x, 0.05), (x, height)])
    if rng.random() < 0.4:
        flower = hsv(rng.uniform(0.88, 1.0), 0.6, 0.95)
        brush.ellipse(flower, (0, height + 0.2), (0.14, 0.1))


OBJECTS: Mapping[str, Callable[[Brush, Random], None]] = {
    "boat": boat,
    "car": car,
    "tree": tree,
    "house": house,
    "bird": bird,
    "cactus": cactus,
}
"""The functions that paint an object of each class."""
