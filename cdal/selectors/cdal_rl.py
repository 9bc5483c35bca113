"""CDAL-RL (Agarwal et al., ECCV 2020, section 3.2): a Bi-LSTM policy learns what to select."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import ClassVar, cast

import torch
from torch import Tensor

from cdal.selectors.cd_greedy import CDGreedy
from cdal.selectors.cdal_cs import CDALCS
from cdal.selectors.diversity import Missing, class_shares
from cdal.selectors.draws import Distance, most_probable
from cdal.selectors.policy import BiLSTMPolicy
from cdal.selectors.pool import Pool, PoolError
from cdal.selectors.reinforce import (
    BernoulliLearner,
    Learner,
    PlackettLuceLearner,
    PolicyKind,
    shuffled,
    train,
)
from cdal.selectors.rewards import PARTS, Part, Reward, Sums
from cdal.selectors.selection import Pick, Progress, Selection, Selector, Told, picks_possible
from cdal.selectors.summed import Diversity, diversity_of

_EPOCHS: dict[PolicyKind, int] = {"plackett-luce": 100, "paper": 60}
# The paper's LSTM reads the whole pool at once, and so does "paper" up to this length.
_WINDOW: dict[PolicyKind, int] = {"plackett-luce": 64, "paper": 4096}
_CELLS: dict[PolicyKind, tuple[int, int]] = {"plackett-luce": (64, 256), "paper": (256, 1024)}
_MANY_CLASSES = 100
# Whose mean reward stands in the report.
_RANDOM_SELECTIONS = 20
_TRAINED, _STARTED, _PICKED = 0.85, 0.9, 0.95
"""The progress after training and after each of two selections; then the report is made."""


@dataclass(frozen=True, slots=True)
class CDALRL:
    """The images that a policy, trained on this pool, finds the most rewarding.

    The score is the policy's logarithm of the image's weight when it was picked. The reason names
    the nearest labelled or earlier picked image and the classes that contributed most to that
    distance. The report compares the reward of the picks with those of CDAL-CS, of cd-greedy, and
    of random selections, on average. With pools beside it, the policy reads the mixtures of all,
    and contextual diversities are summed.

    Attributes:
        policy: "plackett-luce" picks image by image, knowing the labelled and the earlier ones. It
            starts with the picks of CDAL-CS, learns, and keeps these if it learns nothing better.
            "paper" decides on each image independently with the published settings, and hardly
            learns.
        rewards: which parts, for example "cd+vr+sr"; "paper" is "cd", plus "vr" if the pool has
            features, to which the paper adds "sr" for semantic segmentation. Default: "spread", or
            "paper" with that policy.
        alpha: the weight of "spread", "coverage" and "cd" against the rest, in [0, 1].
        scale: λ of "sr" (Eq. 5), in regions: a class with far fewer in the selection is penalised.
            Default: what each class would have if the selection's share were evenly distributed.
        sums: "normalised" parts have a common scale; "raw" ones are sums over pairs and classes and
            features' own distances, as published.
        missing: how to treat a class that only one of two images has.
        classes: only these count in distances, and so in the reward's "spread", "coverage" and
            "cd"; the policy still reads all mixtures. Default: all.
        cells: LSTM cells per direction. Default: 64, or 256 for 100 or more classes; the paper's
            policy has 256 and 1,024.
        epochs: the most learning steps; most trainings end sooner. Default: 100, or exactly 60 with
            "paper".
        episodes: selections drawn per epoch.
        window: images that the LSTM reads at once. Default: 64, or 4,096 with "paper".
        weights: a safetensors file: the policy is loaded from it if it exists, otherwise trained
            and saved there ("trained once"). Default: the policy is trained in each round.

    Raises:
        ValueError: an option has an impossible value.
    """

    name: ClassVar[str] = "cdal-rl"
    policy: PolicyKind = "plackett-luce"
    rewards: str | None = None
    alpha: float = 0.75
    scale: float | None = None
    sums: Sums = "normalised"
    missing: Missing = "uniform"
    classes: tuple[int, ...] | None = None
    cells: int | None = None
    epochs: int | None = None
    episodes: int = 5
    window: int | None = None
    weights: Path | None = None

    def __post_init__(self) -> None:
        if self.policy not in _EPOCHS:
            raise ValueError(f"policy must be one of {', '.join(_EPOCHS)}, not {self.policy!r}")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must be from 0 to 1, not {self.alpha}")
        if self.scale is not None and not 0 < self.scale < math.inf:
            raise ValueError(f"scale must be positive and finite, not {self.scale}")
        for option in ("cells", "epochs", "episodes", "window"):
            value = getattr(self, option)
            if value is not None and value < 1:
                raise ValueError(f"{option} must be at least 1, not {value}")
        if self.rewards is not None:
            _parse_rewards(self.rewards, features=True)

    def select(
        self, pool: Pool, budget: int, seed: int = 0, progress: Progress | None = None
    ) -> Selection:
        """Pick images to label: see ``Selector.select``.

        Raises:
            BudgetError: the budget is negative.
            PoolError: the pool lacks what a part of the reward needs, or one of ``classes``, or
                there are ``classes`` and pools beside it.
            PolicyFileError: ``weights`` exists, but is not a policy for this pool and options.
        """
        count = picks_possible(pool, budget)
        if count == 0:
            return Selection(self.name, ())
        if self.classes is not None and pool.beside:
            raise PoolError('the option "classes" of cdal-rl is for the classes of one model')
        pool = pool.dense()  # so that the policy learns from vectors that are made once
        told = Told(progress)
        rewarded = pool if self.classes is None else pool.of_classes(self.classes)
        embedding = diversity_of(rewarded, self.missing, told.tick)
        reward = self._reward(rewarded, embedding)
        distance = Distance.of(embedding, pool.labelled)
        policy, epochs = self._trained(pool, reward, distance, count, seed, told)
        images = pool.unlabelled
        with torch.no_grad():
            if self.policy == "paper":
                logits = policy.logits(_inputs(pool), images, self._window, told.tick)
                scores, places = logits.topk(count)
            else:
                places, scores = self._best(pool, policy, reward, distance, count, seed, told)
        picks = images[places]
        rewards = self._comparison(rewarded, picks, reward, seed, told)
        explained = _explained(picks, scores, embedding, pool.labelled.nonzero()[:, 0])
        told(1.0)
        return Selection(self.name, explained, report={"trained_epochs": epochs, "reward": rewards})

    def _reward(self, pool: Pool, embedding: Diversity) -> Reward:
        """The reward in a pool of some classes, or of all."""
        return Reward(pool, self._parts(pool), self.alpha, embedding, self.scale, self.sums)

    @property
    def _window(self) -> int:
        return self.window or _WINDOW[self.policy]

    def _parts(self, pool: Pool) -> frozenset[Part]:
        usual = "paper" if self.policy == "paper" else "spread"
        return _parse_rewards(self.rewards or usual, features=pool.features is not None)

    def _best(
        self,
        pool: Pool,
        policy: BiLSTMPolicy,
        reward: Reward,
        distance: Distance,
        budget: int,
        seed: int,
        told: Told,
    ) -> tuple[Tensor, Tensor]:
        """What the policy selects, or what it would have selected untrained if that earns more."""
        images = pool.unlabelled
        read = shuffled(torch.arange(len(images), device=images.device), _generator(seed))
        logits = torch.zeros(len(images), device=images.device)
        start = most_probable(logits, images, distance, budget, told.between(_TRAINED, _STARTED))
        logits[read] = policy.logits(_inputs(pool), images[read], self._window, told.tick)
        learnt = most_probable(logits, images, distance, budget, told.between(_STARTED, _PICKED))
        return max(start, learnt, key=lambda found: reward.value(images[found[0]]))

    def _trained(
        self,
        pool: Pool,
        reward: Reward,
        distance: Distance,
        budget: int,
        seed: int,
        told: Told,
    ) -> tuple[BiLSTMPolicy, int]:
        """Load or train the policy; also return for how many epochs it was trained now."""
        classes = max(each.mixtures.shape[2] for each in (pool, *pool.beside))
        cells = self.cells or _CELLS[self.policy][classes >= _MANY_CLASSES]
        mixtures, published = _inputs(pool), self.policy == "paper"
        inputs = mixtures[0].numel()
        policy = BiLSTMPolicy.seeded(inputs, cells, seed, pool.device, published=published)
        if self.weights is not None and self.weights.exists():
            policy.load(self.weights)
            return policy, 0
        learner: Learner = BernoulliLearner(reward, self.episodes)
        if not published:
            images = len(pool.unlabelled)
            policy.standardise(mixtures, pool.unlabelled, told.tick)
            learner = PlackettLuceLearner(reward, distance, images, budget, self.episodes)
        epochs = self.epochs or _EPOCHS[self.policy]
        rewards = train(
            policy,
            learner,
            mixtures,
            pool.unlabelled,
            epochs=epochs,
            window=self._window,
            generator=_generator(seed),
            progress=lambda share: told(_TRAINED * share),
            tick=told.tick,
        )
        if self.weights is not None:
            policy.save(self.weights)
        return policy, len(rewards)

    def _comparison(
        self, pool: Pool, picks: Tensor, reward: Reward, seed: int, told: Told
    ) -> dict[str, dict[str, float]]:
        """The reward of the picks and of what they should beat, each with its parts."""
        rivals: tuple[Selector, ...] = (CDALCS(self.missing), CDGreedy(self.missing))
        rewards = {self.name: reward.values(picks)}
        for rival in rivals:
            chosen = rival.select(pool, len(picks), seed, lambda _: told.tick()).indices
            rewards[rival.name] = reward.values(torch.tensor(chosen, device=pool.device))
        generator = _generator(seed)
        drawn = [
            reward.values(shuffled(pool.unlabelled, generator)[: len(picks)])
            for _ in range(_RANDOM_SELECTIONS)
        ]
        rewards["random"] = {part: fmean(each[part] for each in drawn) for part in drawn[0]}
        return rewards


def _inputs(pool: Pool) -> Tensor:
    """What the policy reads of each image: its mixtures by all models, (N, R, C) or (N, 1, K)."""
    if not pool.beside:
        return pool.mixtures
    return torch.cat([each.mixtures.flatten(1) for each in (pool, *pool.beside)], 1)[:, None]


def _explained(
    picks: Tensor, logits: Tensor, embedding: Diversity, labelled: Tensor
) -> tuple[Pick, ...]:
    """Give each pick its reason: the nearest labelled or earlier pick, and the classes' shares."""
    between = embedding.distances(picks, picks)
    later = torch.ones_like(between, dtype=torch.bool).triu()
    distance, place = between.masked_fill(later, torch.inf).min(1)
    # If nothing is labelled, the first pick has no nearest image: it stands in for it, at
    # distance 0.
    near = torch.where(distance.isfinite(), picks[place], picks)
    if len(labelled):
        to_labelled, centre = embedding.nearest(picks, labelled)
        near = torch.where(to_labelled <= distance, centre, near)
    classes = class_shares(embedding.by_class(picks, near))
    return tuple(
        Pick(index, logit, {"nearest": None if index == other else other, "classes": shares})
        for index, logit, other, shares in zip(
            picks.tolist(), logits.tolist(), near.tolist(), classes, strict=True
        )
    )


def _parse_rewards(text: str, features: bool) -> frozenset[Part]:
    """The parts of a reward; those of the paper depend on whether there are features."""
    if text.strip() == "paper":
        return frozenset({"cd", "vr"} if features else {"cd"})
    names = [name.strip() for name in text.split("+")]
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise ValueError(
            f"rewards must be paper, or some of {', '.join(PARTS)} joined by +; "
            f"{unknown[0]!r} is not one"
        )
    return frozenset(cast("list[Part]", names))


def _generator(seed: int) -> torch.Generator:
    """A generator on the CPU, so that every device draws the same."""
    return torch.Generator().manual_seed(seed)
