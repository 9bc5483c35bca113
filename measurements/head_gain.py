"""How much selection gains with each head: from a prototype's to the backend's, in steps.

python measurements/head_gain.py --data ../shared/data/cifar10.zip --features features.safetensors

Pools with rare classes, or with --balanced of equally frequent ones, and seeds are those of
`rewards.py`; 100 random labels first, then 50 per step to 500. The table has the accuracy with 500
labels, and the difference of the areas under the curves by the paired test over the seeds.
"""

from __future__ import annotations

from statistics import fmean

import torch
from cdal_cs import against, areas
from rewards import OWN_HEAD, Course, Head, chooser, curve_parser, embedded

SELECTORS = ("random", "core-set", "cdal-cs")

HEADS = {
    "as the prototype's": Head(class_power=0, penalty=1.0, free_bias=True),
    "and L2 of 0.1": Head(class_power=0, free_bias=True),
    "and a penalised bias": Head(class_power=0),
    "and class weights: the backend's": OWN_HEAD,
    "inverse class weights": Head(class_power=1),
    "inverse class weights and L2 of 1": Head(class_power=1, penalty=1.0),
}


def main() -> None:
    parser = curve_parser(__doc__, image_size=96, seeds=10)
    parser.add_argument("--only", nargs="*", choices=HEADS, metavar="NAME", default=HEADS)
    parser.add_argument("--balanced", action="store_true", help="classes are equally frequent")
    options = parser.parse_args()
    tail = not options.balanced
    torch.set_num_threads(1)
    features = embedded(options.data, options.image_size, options.features)
    print(
        f"| head | {' | '.join(SELECTORS)} | CDAL-CS − random | p | CDAL-CS − core-set | p |\n"
        + "|---" * (len(SELECTORS) + 5)
        + "|"
    )
    for name in options.only:
        found = {
            selector: areas(
                features, tail, options.seeds, chooser(selector), Course(50), HEADS[name]
            )
            for selector in SELECTORS
        }
        ends = " | ".join(f"{fmean(end):.1f}" for _, end in found.values())
        gains = [against(found["cdal-cs"][0], found[rival][0]) for rival in SELECTORS[:2]]
        print(f"| {name} | {ends} | {' | '.join(gains)} |", flush=True)


if __name__ == "__main__":
    main()
