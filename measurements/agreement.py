"""Whether a selector's distances depend on the images or on the weights: do two models agree?

    python -m measurements.agreement cifar camvid bccd

Each folder is the --out of a `cdal benchmark` with --keep-scores and at least two seeds. At each
number of labels, the models of two seeds were trained on different images from different initial
weights. Prints the rank correlation (Spearman) of the distances between the same pairs of images
by the two models, mean over all pairs of seeds: 1 if both order all pairs alike, 0 if their
distances are unrelated.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from cdal.benchmark.report.record import read_record
from cdal.benchmark.scores import KeptScores, read_scores
from cdal.selectors.diversity import DiversityEmbedding

PAIRS = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    parser.add_argument("--selector", default="cdal-cs", help="whose models")
    options = parser.parse_args()
    print("| results | labels | CD | features |\n|---|---|---|---|")
    for folder in options.folders:
        record = read_record(folder / "results.json")
        for labelled in record.budgets[:-1]:
            seeds = record.of(options.selector)
            kept = [read_scores(folder, options.selector, seed, labelled) for seed in seeds]
            models = [scores for scores in kept if scores is not None]
            if len(models) > 1:
                found = np.mean([agreement(*pair) for pair in combinations(models, 2)], 0)
                print(
                    f"| {folder.name} | {labelled} | {found[0]:.2f} | {found[1]:.2f} |", flush=True
                )


def agreement(first: KeptScores, second: KeptScores) -> tuple[float, float]:
    """Rank correlations of contextual diversity and of the Euclidean distance of features."""
    draws = np.random.default_rng(0)
    pairs = draws.integers(len(first.features), size=(2, PAIRS))
    pairs = pairs[:, pairs[0] != pairs[1]]
    of_cd, of_features = (
        [distance(scores, pairs) for scores in (first, second)]
        for distance in (diversities, euclidean)
    )
    return float(spearmanr(*of_cd).statistic), float(spearmanr(*of_features).statistic)


def diversities(scores: KeptScores, pairs: NDArray[np.int64]) -> NDArray[np.float32]:
    """Contextual diversity of each pair."""
    mixtures, present = torch.from_numpy(scores.mixtures), torch.from_numpy(scores.present)
    embedding = DiversityEmbedding.of(mixtures, present)
    left, right = torch.from_numpy(pairs)
    found: NDArray[np.float32] = embedding.pairwise(left, right).numpy()
    return found


def euclidean(scores: KeptScores, pairs: NDArray[np.int64]) -> NDArray[np.float32]:
    """Euclidean distance of each pair's features."""
    left, right = scores.features[pairs]
    return np.asarray(np.linalg.norm(left - right, axis=1))


if __name__ == "__main__":
    main()
