"""Variants of CDAL-CS against random selection and CDAL-CS itself, on kept features.

python measurements/cdal_cs.py --data ../shared/data/cifar10.zip --features features.safetensors

Pools, heads and seeds are those of `rewards.py`: one pool with a long tail and one of equally
frequent classes per seed. The table has the area under the curve, and its difference from random
selection and from CDAL-CS by the paired test over the seeds. `--rivals` chooses what else is in it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean

import torch
from rewards import (
    OWN_HEAD,
    Course,
    Features,
    Head,
    chooser,
    curve,
    curve_parser,
    embedded,
    entropy,
)
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from cdal.benchmark.report.statistics import area, paired_test
from cdal.selectors import Pool
from cdal.selectors.coverage import block
from cdal.selectors.diversity import DiversityEmbedding, Missing
from cdal.selectors.mixtures import Region, mixtures_of_vectors

NEIGHBOURS = 20
RIVALS = ("random", "margin", "core-set", "cdal-cs")


Columns = Callable[[Tensor], Tensor]
"""Distances of all N images of a pool to some of them, (B,): (N, B)."""


@dataclass(frozen=True, slots=True)
class Variant:
    """k-center greedy on some distance, with weights of the candidates.

    Attributes:
        distance: between the images of a pool.
        weight: of each image as a candidate, (N,); 0 if it may not be picked.
    """

    distance: Callable[[Pool], Columns]
    weight: Callable[[Pool], Tensor] = lambda pool: torch.ones(len(pool))

    def __call__(self, pool: Pool, budget: int, seed: int) -> list[int]:  # noqa: ARG002
        return self.picks(pool, self.distance(pool), self.weight(pool), budget)

    def picks(self, pool: Pool, distance: Columns, weights: Tensor, budget: int) -> list[int]:
        nearest = distance(pool.labelled.nonzero()[:, 0]).min(1).values
        taken, picks = pool.labelled.clone(), []
        for _ in range(budget):
            pick = (weights * nearest).masked_fill(taken, -1).argmax()
            picks.append(int(pick))
            taken[pick] = True
            nearest = torch.minimum(nearest, distance(pick[None])[:, 0])
        return picks


@dataclass(frozen=True, slots=True)
class Drawn:
    """The selection worth most of greedy's and some drawn near it (active search, Bello, 2017).

    Each image is drawn in turn by (weight · distance to the nearest) to the power of ``pull``, as
    CDAL-RL draws. A selection is worth the sum over its images of their weight times the distance
    to the nearest other or labelled image: the reward that greedy maximisation climbs.

    Attributes:
        variant: how distances and weights are measured.
        pull: the larger, the nearer to greedy.
        draws: the number of selections drawn.
    """

    variant: Variant
    pull: float = 32
    draws: int = 20

    def __call__(self, pool: Pool, budget: int, seed: int) -> list[int]:
        distance, weights = self.variant.distance(pool), self.variant.weight(pool)
        before = distance(pool.labelled.nonzero()[:, 0]).min(1).values

        def worth(picks: list[int]) -> float:
            rows = torch.tensor(picks)
            between = distance(rows)[rows].fill_diagonal_(torch.inf)
            nearest = torch.minimum(between.min(1).values, before[rows])
            return float((weights[rows] * nearest).sum())

        found = self._draws(pool, distance, weights, before, budget, seed)
        return max([self.variant.picks(pool, distance, weights, budget), *found], key=worth)

    def _draws(
        self,
        pool: Pool,
        distance: Columns,
        weights: Tensor,
        before: Tensor,
        budget: int,
        seed: int,
    ) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        rest = pool.unlabelled
        nearest = before[rest].repeat(self.draws, 1)
        taken = torch.zeros(self.draws, len(rest), dtype=torch.bool)
        turns = []
        for _ in range(budget):
            uniform = torch.rand(self.draws, len(rest), generator=generator)
            gumbel = -(-uniform.clamp_(1e-9, 1 - 1e-7).log()).log()
            logits = self.pull * (nearest.clamp(min=1e-12).log() + weights[rest].log())
            places = (logits + gumbel).masked_fill_(taken, -torch.inf).argmax(1)
            turns.append(rest[places])
            taken[torch.arange(self.draws), places] = True
            nearest = torch.minimum(nearest, distance(rest[places])[rest].T)
        return torch.stack(turns, 1).tolist()


def diversity(
    region: Region = "image", missing: Missing = "uniform", temperature: float = 1.0
) -> Callable[[Pool], Columns]:
    """Eq. 2 of the pool's probabilities, softened by a temperature above 1."""

    def distance(pool: Pool) -> Columns:
        softened = (probabilities(pool).clamp(min=1e-12).log() / temperature).softmax(1)
        mixtures = mixtures_of_vectors(softened, region=region)
        embedding = DiversityEmbedding.of(mixtures.mixtures, mixtures.present, missing)
        everything = torch.arange(len(pool))
        return lambda columns: block(embedding, everything, columns)

    return distance


def visual(pool: Pool) -> Tensor:
    """The Euclidean distances of the backbone's features, (N, N)."""
    assert pool.features is not None
    return _between(pool.features)


@lru_cache(maxsize=1)  # all steps of a curve have the same features
def _between(features: Tensor) -> Tensor:
    return torch.cdist(features, features)


def product_with_features(pool: Pool) -> Columns:
    """Eq. 2 times the distance of features."""
    first, second = diversity()(pool), visual(pool)
    return lambda columns: first(columns) * second[:, columns]


def sum_with_features(pool: Pool) -> Columns:
    """Eq. 2 plus the distance of features, each in units of its mean to the labelled images."""
    first, second = diversity()(pool), visual(pool)
    unit = float(first(pool.labelled.nonzero()[:, 0]).mean() / second[:, pool.labelled].mean())
    return lambda columns: first(columns) + unit * second[:, columns]


def best_half(value: Callable[[Pool], Tensor]) -> Callable[[Pool], Tensor]:
    """Only the half of the unlabelled images with the highest values may be picked."""

    def weight(pool: Pool) -> Tensor:
        values = value(pool)
        return (values >= values[~pool.labelled].median()).float()

    return weight


def typicality(pool: Pool) -> Tensor:
    """The inverse of the mean distance to the nearest images, as TypiClust's, (N,)."""
    nearest = visual(pool).topk(NEIGHBOURS + 1, largest=False).values[:, 1:]
    return 1 / nearest.mean(1).clamp(min=1e-6)


def uncertainty(pool: Pool) -> Tensor:
    """1 − the margin between the two most probable classes, (N,)."""
    best = probabilities(pool).topk(2, 1).values
    return 1 - (best[:, 0] - best[:, 1])


def neighbours(pool: Pool) -> Tensor:
    """The probability of each class by the labelled images around, as if all were as frequent.

    A class's share is the mean over its labelled images of exp(cosine / 0.1), by features that
    are standardised.
    """
    assert pool.features is not None
    x = pool.features - pool.features.mean(0)
    x = normalize(x / pool.features.std(0).clamp(min=1e-3))
    near = ((x @ x[pool.labelled].T) / 0.1).exp()
    found = probabilities(pool)
    classes = one_hot(found[pool.labelled].argmax(1), found.shape[1]).float()
    shares = near @ classes / classes.sum(0).clamp(min=1)
    return shares / shares.sum(1, keepdim=True)


def rarity_around(pool: Pool) -> Tensor:
    """As the expected rarity, by ``neighbours`` and not by the model, (N,)."""
    return neighbours(pool) @ (1 / (1 + probabilities(pool)[pool.labelled].sum(0)))


def rarity(pool: Pool) -> Tensor:
    """The inverse root of how many labelled images the model takes for the same class, (N,)."""
    predicted = probabilities(pool).argmax(1)
    counts = predicted[pool.labelled].bincount(minlength=int(predicted.max()) + 1)
    return (counts[predicted] + 1.0).rsqrt()


def expected_rarity(pool: Pool) -> Tensor:
    """The mean, by the model's probabilities, of 1 / (1 + labelled images of the class), (N,)."""
    found = probabilities(pool)
    return found @ (1 / (1 + found[pool.labelled].sum(0)))


def product_of_powers(of_diversity: float, of_features: float) -> Callable[[Pool], Columns]:
    """Powers of Eq. 2 and of the distance of features, multiplied."""

    def distance(pool: Pool) -> Columns:
        first, second = diversity()(pool), visual(pool)
        return lambda columns: first(columns) ** of_diversity * second[:, columns] ** of_features

    return distance


def nothing(pool: Pool) -> Columns:
    """The same distance between all images: only the candidates' weights count."""
    return lambda columns: torch.ones(len(pool), len(columns))


def probabilities(pool: Pool) -> Tensor:
    assert pool.probabilities is not None
    return pool.probabilities


BY_RARITY = Variant(product_of_powers(0.5, 1), expected_rarity)
VARIANTS: Mapping[str, Variant | Drawn] = {
    "distance × features": Variant(product_with_features),
    "one mixture per class, `missing=skip`": Variant(diversity("class", "skip")),
    "temperature 2": Variant(diversity(temperature=2)),
    "distance × (1 − margin)": Variant(diversity(), uncertainty),
    "candidates: the more typical half": Variant(diversity(), best_half(typicality)),
    "distance × entropy": Variant(diversity(), lambda pool: entropy(probabilities(pool))),
    "distance × rarity of the class": Variant(diversity(), rarity),
    "temperature 0.5": Variant(diversity(temperature=0.5)),
    "one mixture per class, `missing=uniform`": Variant(diversity("class")),
    "distance + features": Variant(sum_with_features),
    "candidates: the more uncertain half": Variant(diversity(), best_half(uncertainty)),
    "distance × features × (1 − margin)": Variant(product_with_features, uncertainty),
    "distance × expected rarity": Variant(diversity(), expected_rarity),
    "distance × features × expected rarity": Variant(product_with_features, expected_rarity),
    "expected rarity alone": Variant(nothing, expected_rarity),
    "√distance × features × expected rarity": BY_RARITY,
    "the best of 20 draws near it": Drawn(BY_RARITY),
    "distance × features⁴ × expected rarity": Variant(product_of_powers(1, 4), expected_rarity),
    "features × expected rarity": Variant(product_of_powers(0, 1), expected_rarity),
    "distance × features × neighbours' rarity": Variant(product_with_features, rarity_around),
    "features × neighbours' rarity": Variant(product_of_powers(0, 1), rarity_around),
    "distance × neighbours' rarity": Variant(diversity(), rarity_around),
    "distance × Gini × expected rarity": Variant(
        diversity(),
        lambda pool: (1 - probabilities(pool).square().sum(1)) * expected_rarity(pool),
    ),
}


def areas(
    features: Features,
    tail: bool,
    seeds: int,
    choose: Callable[[Pool, int, int], list[int]],
    course: Course,
    head: Head = OWN_HEAD,
    first_seed: int = 0,
) -> tuple[list[float], list[float]]:
    """The area under each seed's curve, and its end."""
    found, ends = [], []
    for seed in range(first_seed, first_seed + seeds):
        accuracies, _ = curve(features, tail, seed, choose, course, head)
        height = area(dict(zip(course.budgets, accuracies, strict=True)))
        assert height is not None
        found.append(height)
        ends.append(accuracies[-1])
    return found, ends


def against(values: list[float], other: list[float]) -> str:
    """The difference with its 95% interval, and p."""
    if values == other:
        return "– | –"
    test = paired_test(values, other)
    p = "–" if test.p is None else "< 0.001" if test.p < 0.001 else f"{test.p:.3f}"
    return f"{test.difference.mean:+.1f} ± {test.difference.margin or 0:.1f} | {p}"


def main() -> None:
    parser = curve_parser(__doc__, image_size=96, seeds=10)
    parser.add_argument("--step", type=int, default=100)
    parser.add_argument("--only", nargs="*", choices=VARIANTS, metavar="NAME", default=VARIANTS)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rivals", nargs="+", default=RIVALS, help="random, cdal-cs and others")
    pools = parser.add_mutually_exclusive_group()
    pools.add_argument("--tail", action="store_true", help="no pools of equally frequent classes")
    pools.add_argument("--balanced", action="store_true", help="no pools with rare classes")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    if not {"random", "cdal-cs"} <= set(options.rivals):
        parser.error("--rivals must have random and cdal-cs, which the others are compared with")
    torch.set_num_threads(options.threads)
    features = embedded(options.data, options.image_size, options.features)
    course = Course(options.step)
    began = time.process_time()
    chosen = {f"`{name}`": chooser(name) for name in options.rivals}
    chosen |= {name: VARIANTS[name] for name in options.only}
    for tail in [True] * (not options.balanced) + [False] * (not options.tail):
        print(f"\n{'long tail' if tail else 'balanced'}\n")
        print("| | area | − random's | p | − CDAL-CS's | p | end |\n" + "|---" * 7 + "|")
        known = {
            name: areas(
                features,
                tail,
                options.seeds,
                chooser(name),
                course,
                first_seed=options.first_seed,
            )
            for name in options.rivals
        }
        for name, choose in chosen.items():
            heights, ends = known.get(name.strip("`")) or areas(
                features, tail, options.seeds, choose, course, first_seed=options.first_seed
            )
            columns = [against(heights, known[rival][0]) for rival in ("random", "cdal-cs")]
            print(
                f"| {name} | {fmean(heights):.1f} | {' | '.join(columns)} | {fmean(ends):.1f} |",
                flush=True,
            )
    print(f"\n{time.process_time() - began:.0f} processor seconds")


if __name__ == "__main__":
    main()
