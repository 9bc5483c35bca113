"""How often the gate errs: whether a new model serves, simulated for classifiers.

    python -m measurements.gate

For growing numbers of images that neither version has learnt from, prints how often a new version
is refused that is as good as the old one, and one that is 15 points of accuracy worse: by the gate,
and by comparing the two accuracies alone. The two versions differ on a fifth of the images (10% are
right before and wrong after, and 10% the reverse), or on a quarter (20% and 5%).
"""

from __future__ import annotations

import argparse

import numpy as np

from cdal.backend.loop.gate import judge
from cdal.backend.loop.paired import compare, tally_scores

IMAGES = (10, 20, 50, 100, 200, 500)
EQUAL, WORSE = (0.1, 0.1), (0.2, 0.05)
TOLERANCE = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=2000)
    trials = parser.parse_args().trials
    print("| images | equal, alone | equal, gate | worse, alone | worse, gate |")
    print("|---|---|---|---|---|")
    for images in IMAGES:
        shares = [*refused(images, *EQUAL, trials), *refused(images, *WORSE, trials)]
        print(f"| {images} | {' | '.join(f'{share:.0%}' for share in shares)} |", flush=True)


def refused(images: int, worse: float, better: float, trials: int) -> tuple[float, float]:
    """The share of versions that are refused: by their accuracies alone, and by the gate."""
    draws = np.random.default_rng(images)
    alone = gate = 0
    for _ in range(trials):
        kind = draws.choice(3, images, p=[worse, better, 1 - worse - better])
        tallies = np.ones((2, images, 3, 1))
        tallies[0, :, 0, 0], tallies[1, :, 0, 0] = kind != 0, kind != 1
        new, old = tallies
        found = compare(
            "accuracy",
            lambda swapped, new=new, old=old: tally_scores(new, old, "accuracy", swapped),  # type: ignore[misc]
            images,
            400,
            "images",
        )
        alone += found.after < found.before - TOLERANCE
        gate += not judge(None, found, TOLERANCE, first=False).promoted
    return alone / trials, gate / trials


if __name__ == "__main__":
    main()
