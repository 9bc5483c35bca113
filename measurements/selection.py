"""The speed of selectors, compared with other implementations in one run.

    python measurements/selection.py [--threads T] [--repeats R]
    python measurements/selection.py --million [--device cuda]
    python measurements/selection.py --coverage

Every line is a median of wall-clock times; contenders take turns, so that other load on the machine
affects all of them. With --coverage: how many classes the first picks cover.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances
from torch import Tensor
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from cdal.selectors import DiversityEmbedding, Pool, mixtures_of_logits
from cdal.selectors.cdal_cs import CDALCS
from cdal.selectors.mixtures import EPSILON
from cdal.selectors.random import Random
from cdal.selectors.selection import Selector

CLASSES = 19
FLOOR = 1e-12
TURN = 0.5
Array = NDArray[np.float64]


def street_pool(images: int, device: str = "cpu", seed: int = 0) -> Pool:
    """A pool like Cityscapes: 10 to 14 of 19 classes per image, confusions of eight kinds."""
    generator = torch.Generator(device).manual_seed(seed)
    kinds = torch.randn(8, CLASSES**2, generator=generator, device=device) / 8**0.5
    sure = 4 * torch.eye(CLASSES, device=device)
    mixtures = torch.empty((images, CLASSES, CLASSES), device=device)
    present = torch.empty((images, CLASSES), dtype=torch.bool, device=device)
    for part, there in zip(
        torch.split(mixtures, 10_000), torch.split(present, 10_000), strict=True
    ):
        n = len(part)
        own = torch.randn(n, 8, generator=generator, device=device) @ kinds
        noise = torch.randn(part.shape, generator=generator, device=device)
        count = torch.randint(10, 15, (n, 1), generator=generator, device=device)
        order = torch.rand(n, CLASSES, generator=generator, device=device).argsort(1).argsort(1)
        there.copy_(order < count)
        part.copy_((own.view_as(part) + 0.5 * noise + sure).softmax(-1)).mul_(there[..., None])
    labelled = torch.zeros(images, dtype=torch.bool, device=device)
    labelled[:10] = True
    return Pool(mixtures, present, labelled)


def skewed_pool(images: int, classes: int, skew: float, seed: int) -> Pool:
    """2 to 6 classes per image, the k-th with frequency k^-skew; confusions of eight kinds."""
    generator = torch.Generator().manual_seed(seed)
    frequency = torch.arange(1, classes + 1) ** -skew
    drawn = torch.multinomial(frequency.expand(images, -1), 6, generator=generator)
    count = torch.randint(2, 7, (images, 1), generator=generator)
    present = torch.zeros(images, classes, dtype=torch.bool)
    present.scatter_(1, drawn, torch.arange(6) < count)
    kinds = torch.randn(8, classes, classes, generator=generator) / 8**0.5
    own = torch.einsum("nk,kij->nij", torch.randn(images, 8, generator=generator), kinds)
    noise = torch.randn(own.shape, generator=generator)
    mixtures = (own + 0.5 * noise + 4 * torch.eye(classes)).softmax(-1) * present[..., None]
    return Pool(mixtures, present, torch.zeros(images, dtype=torch.bool))


def medians(contenders: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Milliseconds of each; they take turns of one call, or as many as fit into TURN seconds."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, contender in contenders.items():
            contender()
            turn = time.perf_counter()
            while True:
                start = time.perf_counter()
                contender()
                end = time.perf_counter()
                times[name].append(1000 * (end - start))
                if end - turn > TURN:
                    break
    return {name: statistics.median(each) for name, each in times.items()}


def greedy(pool: Pool, picks: int, column: Callable[[int], Array]) -> list[int]:
    """k-center greedy, one column of distances per centre."""
    gone = pool.labelled.numpy().copy()
    nearest = np.full(len(pool), np.inf)
    for centre in np.flatnonzero(gone):
        nearest = np.minimum(nearest, column(int(centre)))
    found: list[int] = []
    while len(found) < picks:
        found.append(int(np.where(gone, -np.inf, nearest).argmax()))
        gone[found[-1]] = True
        nearest = np.minimum(nearest, column(found[-1]))
    return found


def python_loop(pool: Pool, picks: int) -> list[int]:
    """Eq. 2 to the letter, pair by pair and class by class, with NumPy for the sums over j."""
    p = np.maximum(pool.mixtures.double().numpy(), FLOOR)
    classes = [set(np.flatnonzero(row)) for row in pool.present.numpy()]

    def kl(a: Array, b: Array) -> float:
        return float(a @ np.log(a / b))

    def distance(a: int, b: int) -> float:
        both = classes[a] & classes[b]
        return sum(0.5 * kl(p[a, c], p[b, c]) + 0.5 * kl(p[b, c], p[a, c]) for c in both)

    return greedy(pool, picks, lambda b: np.array([distance(a, b) for a in range(len(p))]))


def vectorised_pairs(pool: Pool, picks: int) -> list[int]:
    """Pair by pair, with the logarithms computed once and all classes of a pair at a time."""
    p = pool.mixtures.double().numpy()
    log = np.log(np.maximum(p, FLOOR))
    there = pool.present.numpy()

    def distance(a: int, b: int) -> float:
        both = there[a] & there[b]
        return 0.5 * float(np.vdot((p[a] - p[b])[both], (log[a] - log[b])[both]))

    return greedy(pool, picks, lambda b: np.array([distance(a, b) for a in range(len(p))]))


def sklearn_greedy(pool: Pool, picks: int) -> list[int]:
    """The same greedy on the Euclidean distance of the flattened mixtures."""
    x = pool.mixtures.flatten(1).numpy()
    return greedy(pool, picks, lambda b: pairwise_distances(x, x[b : b + 1])[:, 0])


def mask_loop(logits: Tensor) -> Tensor:
    """Eq. 1 with a loop over the masks of the classes."""
    p = logits.softmax(1)
    label = p.argmax(1)
    weight = EPSILON - (p * p.clamp(min=FLOOR).log2()).sum(1)
    mixtures = torch.zeros(len(p), p.shape[1], p.shape[1])
    for i in range(len(p)):
        for c in torch.unique(label[i]).tolist():
            mask = label[i] == c
            w = weight[i][mask]
            mixtures[i, c] = (p[i][:, mask] @ w) / w.sum()
    return mixtures


def compare_cdal_cs(repeats: int) -> None:
    letter = CDALCS(missing="skip")  # what the loops compute
    print("\n| CDAL-CS, C = 19 | ms | against CDAL-CS |\n|---|---|---|")

    pool = street_pool(1000)
    assert letter.select(pool, 50).indices == python_loop(pool, 50) == vectorised_pairs(pool, 50)
    found = medians(
        {
            "CDAL-CS": lambda: letter.select(pool, 50),
            "Python loop over pairs and classes": lambda: python_loop(pool, 50),
            "Python loop over pairs, classes at a time": lambda: vectorised_pairs(pool, 50),
        },
        repeats,
    )
    report("1,000 images, 50 picks", found)

    middle = street_pool(2975)
    found = medians(
        {
            "CDAL-CS": lambda: letter.select(middle, 150),
            "CDAL-CS, missing=uniform": lambda: CDALCS().select(middle, 150),
            "scikit-learn Euclidean greedy": lambda: sklearn_greedy(middle, 150),
        },
        repeats,
    )
    report("2,975 images, 150 picks", found)

    large = street_pool(16_551)
    embedding = DiversityEmbedding.of(large.mixtures, large.present, "skip")
    y = embedding.right(embedding.x[0])
    found = medians(
        {
            "CDAL-CS": lambda: letter.select(large, 1000),
            "CDAL-CS, missing=uniform": lambda: CDALCS().select(large, 1000),
            "one pass over X for each pick": lambda: [embedding.x @ y for _ in range(1000)],
        },
        repeats,
    )
    report("16,551 images, 1,000 picks", found)


def compare_coverage(seeds: int = 50) -> None:
    """Classes among the first 10 picks of 500 unlabelled images."""
    skews = (0.0, 0.5, 1.0, 2.0)
    selectors: dict[str, Selector] = {
        "CDAL-CS, missing=uniform": CDALCS(missing="uniform"),
        "CDAL-CS, missing=skip": CDALCS(missing="skip"),
        "random": Random(),
    }
    print("\n| classes covered, of 16 | " + " | ".join(f"k^-{skew:g}" for skew in skews) + " |")
    print("|---" * (len(skews) + 1) + "|")
    for name, selector in selectors.items():
        means = []
        for skew in skews:
            covered = []
            for seed in range(seeds):
                pool = skewed_pool(500, 16, skew, seed)
                picks = selector.select(pool, 10, seed).indices
                covered.append(int(pool.present[picks].any(0).sum()))
            means.append(f"{statistics.mean(covered):.1f}")
        print(f"| {name} | " + " | ".join(means) + " |", flush=True)


def compare_eq1(repeats: int) -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = 3 * torch.randn(1, CLASSES, 64, 128, generator=generator)
    logits = torch.nn.functional.interpolate(coarse, (512, 1024), mode="bilinear")
    logits += 0.5 * torch.randn(logits.shape, generator=generator)
    torch.testing.assert_close(mixtures_of_logits(logits).mixtures, mask_loop(logits))
    network = lraspp_mobilenet_v3_large(num_classes=CLASSES, weights=None, weights_backbone=None)
    network.eval()
    image = torch.randn(1, 3, 512, 1024, generator=generator)

    def forward() -> Tensor:
        with torch.inference_mode():
            scores: Tensor = network.classifier(network.backbone(image))
        return scores

    print("\n| Eq. 1, C = 19, one image of 512×1024 | ms | against Eq. 1 |\n|---|---|---|")
    found = medians(
        {
            "Eq. 1": lambda: mixtures_of_logits(logits),
            "softmax alone": lambda: logits.softmax(1),
            "loop over class masks": lambda: mask_loop(logits),
        },
        repeats,
    )
    report("at full resolution", found)
    scores = forward()
    found = medians({"Eq. 1": lambda: mixtures_of_logits(scores), "forward": forward}, repeats)
    found["forward pass of lraspp_mobilenet_v3_large"] = found.pop("forward")
    report(f"at stride 8, {scores.shape[2]}×{scores.shape[3]}", found)


def report(title: str, found: dict[str, float]) -> None:
    first = next(iter(found.values()))
    for name, each in found.items():
        print(f"| {title}: {name} | {each:,.1f} | {each / first:.2f} |", flush=True)


def million(device: str, images: int) -> None:
    start = time.perf_counter()
    pool = street_pool(images, device)
    made = time.perf_counter()
    selection = CDALCS().select(pool, 1000)
    seconds = time.perf_counter() - made
    print(
        f"{images:,} images made in {made - start:.0f} s; {len(selection.picks)} picks in ", end=""
    )
    if device == "cpu":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    else:
        peak = torch.cuda.max_memory_allocated()
    print(f"{seconds:.1f} s on {device}; peak memory {peak / 2**30:.1f} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--million", action="store_true", help="only the million images")
    parser.add_argument("--coverage", action="store_true", help="only the classes covered")
    parser.add_argument("--device", default="cpu", help="of the million images")
    parser.add_argument("--images", type=int, default=1_000_000, help="instead of the million")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} threads")
    if arguments.million:
        million(arguments.device, arguments.images)
    elif arguments.coverage:
        compare_coverage()
    else:
        compare_cdal_cs(arguments.repeats)
        compare_eq1(arguments.repeats)


if __name__ == "__main__":
    main()
