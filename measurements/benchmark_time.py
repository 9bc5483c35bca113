"""How long `cdal benchmark` takes with heads and kept features, from the parts of one step.

python measurements/benchmark_time.py --data ../shared/data/cifar10.zip --features FILE

The features are those of `rewards.py`, repeated with noise up to the size of the pool. Each part is
measured by processor time; a run has one training, one measurement and one scoring of the pool per
step and selector, and selections between the steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from rewards import curve_parser, embedded, pool_of

from cdal.models.classification.logistic import fit_logistic
from cdal.models.recipe import class_weights
from cdal.selectors import make_selector

SELECTORS = (
    "random", "margin", "entropy", "core-set", "cdal-cs", "typiclust", "badge", "cdal-rl",
)  # fmt: skip


Result = TypeVar("Result")


def seconds_of(part: Callable[[], Result]) -> tuple[float, Result]:
    began = time.process_time()
    result = part()
    return time.process_time() - began, result


def main() -> None:
    parser = curve_parser(__doc__, image_size=96, seeds=10)
    parser.add_argument("--step", type=int, default=100)
    parser.add_argument("--pool", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    features = embedded(options.data, options.image_size, options.features)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(len(features.train[1]), (options.pool,), generator=generator)
    noise = torch.randn(options.pool, features.train[0].shape[1], generator=generator)
    x = features.train[0][rows] + 0.3 * features.train[0].std() * noise
    y = features.train[1][rows]
    labelled = torch.zeros(options.pool, dtype=torch.bool)
    labelled[: options.step * options.steps // 2] = True  # the middle of the curve
    counts = torch.bincount(y[labelled])
    trained, head = seconds_of(
        lambda: fit_logistic(x[labelled], y[labelled], class_weights(counts))
    )
    measured, _ = seconds_of(lambda: features.test[0] @ head.weight.T + head.bias)
    scored, pool = seconds_of(
        lambda: pool_of((x @ head.weight.T + head.bias).softmax(1), x, labelled)
    )
    make_selector("cdal-rl", {"epochs": 1}).select(pool, 1)  # what PyTorch imports at first
    print(f"training {trained:.2f} s, measuring {measured:.2f} s, scoring {scored:.2f} s")
    total = 0.0
    for name in SELECTORS:
        selector = make_selector(name)
        chosen, _ = seconds_of(partial(selector.select, pool, options.step))
        of_seed = options.steps * (trained + measured) + (options.steps - 1) * (scored + chosen)
        total += options.seeds * of_seed
        print(f"{name}: selecting {chosen:.2f} s, a seed {of_seed:.1f} s", flush=True)
    print(
        f"{len(SELECTORS)} selectors, {options.seeds} seeds, {options.steps} steps: "
        f"{total / 60:.1f} processor minutes on one thread"
    )


if __name__ == "__main__":
    main()
