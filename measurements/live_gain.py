"""Why the live loop gains more than a benchmark: its differences from one, each alone and together.

python measurements/live_gain.py --data ../shared/data/cifar10.zip --features features.safetensors

Pools with rare classes, heads and seeds are those of `rewards.py`. The table has the areas under
the curves of random selection and of CDAL-CS, and their difference by the paired test over the
seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import fmean

import numpy as np
import torch
from cdal_cs import against, areas
from rewards import Course, Features, chooser, curve_parser, embedded, rows_of

from cdal.selectors import Pool

BENCHMARK = Course(step=50)
LIVE = Course(step=10, start=50, end=400, pool=1500, typical=True)
"""The unattended demo of README.md."""

COURSES = {
    "as `cdal benchmark`": BENCHMARK,
    "as the live loop": LIVE,
    "a model every 10 labels": replace(BENCHMARK, step=10),
    "50 labels first, to 400": replace(BENCHMARK, start=50, end=400),
    "1,500 images": replace(BENCHMARK, pool=1500),
    "typical images first": replace(BENCHMARK, typical=True),
}


def evenly(features: Features, tail: bool) -> Callable[[Pool, int, int], list[int]]:
    """What could be gained: knows the classes, and labels random images of the rarest one."""

    def choose(pool: Pool, budget: int, seed: int) -> list[int]:
        classes = features.train[1][rows_of(features.train[1], tail, seed)][: len(pool)]
        counts = classes[pool.labelled].bincount(minlength=int(classes.max()) + 1)
        order = np.random.default_rng(seed).permutation(pool.unlabelled.numpy()).tolist()
        picks: list[int] = []
        for _ in range(budget):
            pick = min(order, key=lambda row: int(counts[classes[row]]))
            order.remove(pick)
            picks.append(pick)
            counts[classes[pick]] += 1
        return picks

    return choose


def main() -> None:
    parser = curve_parser(__doc__, image_size=96, seeds=10)
    parser.add_argument("--only", nargs="*", choices=COURSES, metavar="NAME", default=COURSES)
    parser.add_argument("--balanced", action="store_true", help="classes are equally frequent")
    parser.add_argument("--known", action="store_true", help="also choose by the true classes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    features = embedded(options.data, options.image_size, options.features)
    tail = not options.balanced
    print("| | random | CDAL-CS | difference | p | of each seed |\n" + "|---" * 6 + "|")
    for name in options.only:
        chance, chosen = (
            areas(features, tail, options.seeds, chooser(selector), COURSES[name])[0]
            for selector in ("random", "cdal-cs")
        )
        each = ", ".join(f"{b - a:+.1f}" for a, b in zip(chance, chosen, strict=True))
        print(
            f"| {name} | {fmean(chance):.1f} | {fmean(chosen):.1f} "
            f"| {against(chosen, chance)} | {each} |",
            flush=True,
        )
    if options.known:
        best, _ = areas(features, tail, options.seeds, evenly(features, tail), BENCHMARK)
        chance, _ = areas(features, tail, options.seeds, chooser("random"), BENCHMARK)
        print(f"with known classes: {fmean(best):.1f}, − random's: {against(best, chance)}")


if __name__ == "__main__":
    main()
