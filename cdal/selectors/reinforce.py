"""REINFORCE for CDAL-RL: how logits become selections, and how rewards train the policy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from cdal.selectors.draws import Distance, draw
from cdal.selectors.metric import Tick, go_on
from cdal.selectors.policy import BiLSTMPolicy
from cdal.selectors.rewards import Reward
from cdal.selectors.selection import Progress

PolicyKind = Literal["plackett-luce", "paper"]

_WEIGHT_DECAY = 1e-5
# A reward that is a mean over the pool is estimated on this many images, or on four per pick if
# that is more.
_SAMPLE = 512
_SAMPLE_PER_PICK = 4
_BASELINE_MEMORY = 0.9
# A learning step draws from at most this many images of the pool: its cost does not grow with it.
_IMAGES = 512
_LEAST_PICKS = 10


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a policy is trained with Adam, and in which order it reads the pool.

    Attributes:
        rate: the learning rate.
        max_norm: longer gradients are clipped to it.
        patience: epochs without progress after which the learning rate falls to a tenth, and after
            as many more the training ends; None: all epochs at one rate.
        images: the most images that are read per epoch, drawn each time; None: all, as they come.
    """

    rate: float
    max_norm: float
    patience: int | None
    images: int | None


LEARNING = Schedule(rate=1e-2, max_norm=1.0, patience=10, images=_IMAGES)
PUBLISHED = Schedule(rate=1e-5, max_norm=math.inf, patience=None, images=None)
_FALL = 0.1


class Step(NamedTuple):
    """What an epoch's episodes teach.

    Attributes:
        loss: scalar; its gradient is a policy gradient.
        reward: the mean reward of the episodes.
    """

    loss: Tensor
    reward: float


class Learner(Protocol):
    """A way to learn from episodes."""

    schedule: Schedule

    def step(self, logits: Tensor, images: Tensor, generator: torch.Generator) -> Step:
        """Draw episodes and reward them.

        Args:
            logits: (n,) float32.
            images: the pool index of each, (n,) int64.
            generator: on the CPU.
        """
        ...


@dataclass(slots=True)
class PlackettLuceLearner:
    """Selections drawn image by image; each pick's own credit is its advantage.

    Attributes:
        reward: of a selection, with the credit of each pick.
        distance: what the draws depend on beside the logits.
        unlabelled: how many images the budget is for: of fewer, fewer are drawn.
        budget: B.
        episodes: E.
        schedule: of the training.
    """

    reward: Reward
    distance: Distance
    unlabelled: int
    budget: int
    episodes: int
    schedule: Schedule = LEARNING

    def step(self, logits: Tensor, images: Tensor, generator: torch.Generator) -> Step:
        count = self._picks(len(images))
        draws = draw(logits, images, self.distance, count, self.episodes, generator)
        sample = reward_sample(images, count, generator)
        chosen = images[draws.picks]
        credit = torch.stack([self.reward.credit(row, sample) for row in chosen])
        reward = sum(self.reward.value(row, sample) for row in chosen) / self.episodes
        spread = credit.std(correction=0)
        advantage = (credit - credit.mean()) / torch.where(spread > 0, spread, 1.0)
        log_probability = draws.log_probabilities(logits)
        return Step(-(advantage.to(logits.dtype) * log_probability).mean(), reward)

    def _picks(self, images: int) -> int:
        """The same share of the images as the budget is of the pool, but at least ten."""
        share = round(self.budget * images / max(1, self.unlabelled))
        return min(images, max(share, min(self.budget, _LEAST_PICKS)))


@dataclass(slots=True)
class BernoulliLearner:
    """The paper's way: a coin decides on each image, and all get the whole selection's reward.

    The reward is measured against a moving average of past ones.
    """

    reward: Reward
    episodes: int
    schedule: Schedule = PUBLISHED
    baseline: float | None = None

    def step(self, logits: Tensor, images: Tensor, generator: torch.Generator) -> Step:
        coins = torch.rand(self.episodes, len(logits), generator=generator).to(logits.device)
        actions = (coins < logits.detach().sigmoid()).to(logits.dtype)
        sample = reward_sample(images, 0, generator)
        rewards = [self.reward.value(images[row.bool()], sample) for row in actions]
        mean = sum(rewards) / self.episodes
        baseline = mean if self.baseline is None else self.baseline
        self.baseline = _BASELINE_MEMORY * baseline + (1 - _BASELINE_MEMORY) * mean
        # log sigmoid(±z) of each action
        log_probability = torch.nn.functional.logsigmoid(logits * (2 * actions - 1)).mean(1)
        loss = -(log_probability @ (logits.new_tensor(rewards) - baseline)) / self.episodes
        return Step(loss, mean)


def train(
    policy: BiLSTMPolicy,
    learner: Learner,
    mixtures: Tensor,
    images: Tensor,
    *,
    epochs: int,
    window: int,
    generator: torch.Generator,
    progress: Progress | None = None,
    tick: Tick = go_on,
) -> list[float]:
    """Train a policy in place, one step per epoch, until it has stopped learning.

    Args:
        policy: changed in place.
        learner: draws episodes and rewards them.
        mixtures: of the whole pool, (N, R, C) float32.
        images: which of them may be picked, (n,) int64.
        epochs: the most steps.
        window: images that the LSTM reads at once.
        generator: on the CPU.
        progress: called after each epoch with its share of the most, and with 1 at the end.
        tick: called more often.

    Returns:
        The mean reward of each epoch's episodes.
    """
    how = learner.schedule
    optimiser = torch.optim.Adam(policy.parameters(), lr=how.rate, weight_decay=_WEIGHT_DECAY)
    rewards: list[float] = []
    plateau = Plateau(how.patience)
    for epoch in range(epochs):
        order = images if how.images is None else shuffled(images, generator)[: how.images]
        logits = policy.logits(mixtures, order, window, tick)
        step = learner.step(logits, order, generator)
        optimiser.zero_grad()
        step.loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(policy.parameters(), how.max_norm)
        optimiser.step()
        rewards.append(step.reward)
        if plateau.reached(step.reward):
            if plateau.times > 1:
                break
            for group in optimiser.param_groups:
                group["lr"] *= _FALL
        if progress is not None and epoch + 1 < epochs:
            progress((epoch + 1) / epochs)
    if progress is not None:
        progress(1.0)
    return rewards


class Plateau:
    """Notices when a noisy reward has stopped rising.

    Rewards are averaged over ``patience`` epochs: it is reached when such a mean is not above the
    one before.

    Attributes:
        times: how often it was reached.
    """

    def __init__(self, patience: int | None) -> None:
        self.times = 0
        self._patience = patience
        self._recent: list[float] = []
        self._before = -math.inf

    def reached(self, reward: float) -> bool:
        """Whether it is reached with this epoch's reward."""
        if self._patience is None:
            return False
        self._recent.append(reward)
        if len(self._recent) < self._patience:
            return False
        mean = sum(self._recent) / self._patience
        self._recent.clear()
        risen = mean > self._before
        self._before = max(mean, self._before)
        self.times += not risen
        return not risen


def shuffled(images: Tensor, generator: torch.Generator) -> Tensor:
    """Put images in a random order, the same on every device."""
    return images[torch.randperm(len(images), generator=generator).to(images.device)]


def reward_sample(images: Tensor, budget: int, generator: torch.Generator) -> Tensor:
    """Draw the images on which rewards are estimated; all of them if the pool is small."""
    return shuffled(images, generator)[: max(_SAMPLE, _SAMPLE_PER_PICK * budget)]
