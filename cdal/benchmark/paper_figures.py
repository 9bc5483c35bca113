"""The figures and tables of the paper (CDAL, ECCV 2020) that can be drawn from kept results."""

from __future__ import annotations

from collections.abc import Mapping

FIGURES: Mapping[str, str] = {
    "1": "a class's mixtures in picks of cdal-cs and entropy, with --keep-scores",
    "3": "learning curves on Cityscapes and BDD100K, a DIR each",
    "4": "learning curves on VOC",
    "5": "learning curves on CIFAR-10 and CIFAR-100, a DIR each",
    "6": "learning curves of the ablations reward and policy-once, a DIR each",
    "7a": "where core-set, cdal-cs and cdal-rl pick, with --keep-scores",
    "7b": "IoU as classes are added to CD, of the ablation classes",
    "8": "picks of the ablation classes side by side, with --keep-scores",
    "9": "learning curves of the ablations biased-initial, noise and step, a DIR per value",
    "10": "learning curves of the ablation network, a DIR per value",
    "table1": "quality at the last budget, a DIR per network",
    "table2": "quality at the last budget, of the ablation alpha",
}
"""What each shows, and from which runs, by name."""
