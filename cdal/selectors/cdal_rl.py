"""CDAL-RL (Agarwal et al., ECCV 2020, section 3.2): a Bi-LSTM policy learns what to select."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

import torch
from torch import Tensor

from cdal.selectors.cd_greedy import CDGreedy
from cdal.selectors.cdal_cs import CDALCS
from cdal.selectors.diversity import DiversityEmbedding, Missing, class_shares
from cdal.selectors.policy import BiLSTMPolicy
from cdal.selectors.pool import Pool
from cdal.selectors.reinforce import (
    BernoulliLearner,
    Learner,
    PlackettLuceLearner,
    PolicyKind,
    reward_sample,
    shuffled,
    train,
)
from cdal.selectors.rewards import PARTS, Part, Reward
from cdal.selectors.selection import Pick, Progress, Selection, Selector, picks_possible

_EPOCHS: dict[PolicyKind, int] = {"plackett-luce": 200, "paper": 60}
# The paper's LSTM reads the whole pool at once, and so does "paper" up to this length.
_WINDOW: dict[PolicyKind, int] = {"plackett-luce": 64, "paper": 4096}
_CELLS, _CELLS_FOR_MANY_CLASSES, _MANY_CLASSES = 256, 1024, 100


@dataclass(frozen=True, slots=True)
class CDALRL:
    """The images that a policy, trained on this pool, finds the most rewarding.

    The score is the policy's logit. The reason names the nearest labelled or earlier picked image
    and the classes that contributed most to that distance. The report compares the reward of the
    picks with those of CDAL-CS, of cd-greedy, and of the best of as many random selections as
    training drew.

    Attributes:
        policy: "plackett-luce" draws selections of exactly the budget, and learns; "paper" decides
            on each image independently with the published settings, and hardly learns.
        rewards: which parts, for example "cd+vr+sr". Default: "cd", plus "vr" if the pool has
            features; the paper adds "sr" for semantic segmentation.
        alpha: the weight of "cd" against the rest, in [0, 1].
        missing: how to treat a class that only one of two images has.
        cells: LSTM cells per direction. Default: 256, or 1,024 for 100 or more classes.
        epochs: passes over the pool. Default: 200, or 60 with "paper".
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
    missing: Missing = "uniform"
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
        for option in ("cells", "epochs", "episodes", "window"):
            value = getattr(self, option)
            if value is not None and value < 1:
                raise ValueError(f"{option} must be at least 1, not {value}")
        if self.rewards is not None:
            _parse_rewards(self.rewards)

    def select(
        self, pool: Pool, budget: int, seed: int = 0, progress: Progress | None = None
    ) -> Selection:
        """Pick images to label: see ``Selector.select``.

        Raises:
            BudgetError: the budget is negative.
            PoolError: the pool lacks what a part of the reward needs.
            PolicyFileError: ``weights`` exists, but is not a policy for this pool and options.
        """
        count = picks_possible(pool, budget)
        if count == 0:
            return Selection(self.name, ())
        embedding = DiversityEmbedding.of(pool.mixtures, pool.present, self.missing)
        reward = Reward(pool, self._parts(pool), self.alpha, embedding)
        policy, epochs = self._trained(pool, reward, count, seed, progress)
        images = pool.unlabelled
        order = images if self.policy == "paper" else shuffled(images, _generator(seed))
        with torch.no_grad():
            logits = policy.logits(pool.mixtures, order, self._window)
        best = logits.topk(count)
        picks = order[best.indices]
        return Selection(
            self.name,
            _explained(picks, best.values, embedding, pool.labelled.nonzero()[:, 0]),
            report={
                "trained_epochs": epochs,
                **self._comparison(pool, picks, reward, seed, draws=max(1, epochs) * self.episodes),
            },
        )

    @property
    def _window(self) -> int:
        return self.window or _WINDOW[self.policy]

    def _parts(self, pool: Pool) -> frozenset[Part]:
        if self.rewards is not None:
            return _parse_rewards(self.rewards)
        return frozenset({"cd"} if pool.features is None else {"cd", "vr"})

    def _trained(
        self, pool: Pool, reward: Reward, budget: int, seed: int, progress: Progress | None
    ) -> tuple[BiLSTMPolicy, int]:
        """Load or train the policy; also return for how many epochs it was trained now."""
        rows, classes = pool.mixtures.shape[1:]
        cells = self.cells or (_CELLS if classes < _MANY_CLASSES else _CELLS_FOR_MANY_CLASSES)
        policy = BiLSTMPolicy.seeded(rows * classes, cells, seed, pool.device)
        if self.weights is not None and self.weights.exists():
            policy.load(self.weights)
            return policy, 0
        learner: Learner = BernoulliLearner(reward, self.episodes)
        if self.policy == "plackett-luce":
            policy.standardise(pool.mixtures, pool.unlabelled)
            learner = PlackettLuceLearner(reward, budget, self.episodes)
        epochs = self.epochs or _EPOCHS[self.policy]
        train(
            policy,
            learner,
            pool.mixtures,
            pool.unlabelled,
            epochs=epochs,
            window=self._window,
            generator=_generator(seed),
            progress=progress,
        )
        if self.weights is not None:
            policy.save(self.weights)
        return policy, epochs

    def _comparison(
        self, pool: Pool, picks: Tensor, reward: Reward, seed: int, draws: int
    ) -> dict[str, object]:
        """The reward of the picks and of what they must beat, each with its parts."""
        rivals: tuple[Selector, ...] = (CDALCS(self.missing), CDGreedy(self.missing))
        rewards = {self.name: reward.values(picks)}
        for rival in rivals:
            chosen = rival.select(pool, len(picks), seed).indices
            rewards[rival.name] = reward.values(torch.tensor(chosen, device=pool.device))
        rewards["random"] = reward.values(
            _best_at_random(reward, pool.unlabelled, len(picks), draws, _generator(seed))
        )
        return {"reward": rewards, "random_draws": draws}


def _best_at_random(
    reward: Reward, images: Tensor, budget: int, draws: int, generator: torch.Generator
) -> Tensor:
    """The best of several random selections, by the reward estimate that training uses."""
    sample = reward_sample(images, budget, generator)
    selections = (shuffled(images, generator)[:budget] for _ in range(draws))
    return max(selections, key=lambda picks: reward.value(picks, sample))


def _explained(
    picks: Tensor, logits: Tensor, embedding: DiversityEmbedding, labelled: Tensor
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


def _parse_rewards(text: str) -> frozenset[Part]:
    names = [name.strip() for name in text.split("+")]
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise ValueError(
            f"rewards must be some of {', '.join(PARTS)} joined by +; {unknown[0]!r} is not one"
        )
    return frozenset(cast("list[Part]", names))


def _generator(seed: int) -> torch.Generator:
    """A generator on the CPU, so that every device draws the same."""
    return torch.Generator().manual_seed(seed)
