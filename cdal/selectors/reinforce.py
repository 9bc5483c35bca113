"""REINFORCE for CDAL-RL: how logits become selections, and how rewards train the policy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from cdal.selectors.policy import BiLSTMPolicy
from cdal.selectors.rewards import Reward
from cdal.selectors.selection import Progress

PolicyKind = Literal["plackett-luce", "paper"]

_WEIGHT_DECAY = 1e-5
# Rvr is estimated on this many images, or on four per pick if that is more.
_SAMPLE = 512
_SAMPLE_PER_PICK = 4
_BASELINE_MEMORY = 0.9


def draw_without_replacement(
    logits: Tensor, budget: int, episodes: int, generator: torch.Generator
) -> Tensor:
    """Draw ordered selections from the Plackett-Luce distribution of the logits.

    The B largest logits with independent Gumbel noise are B successive draws, each from the softmax
    of the remaining images.

    Args:
        logits: (n,) float32.
        budget: B, at most n.
        episodes: E.
        generator: on the CPU, so that every device draws the same.

    Returns:
        Positions in ``logits``, in the order of drawing, (E, B) int64.
    """
    uniform = torch.rand(episodes, len(logits), generator=generator, dtype=torch.float64)
    gumbel = -(-uniform.clamp(min=1e-300).log()).log()
    return (logits.detach().double() + gumbel.to(logits.device)).topk(budget, 1).indices


def log_probabilities(logits: Tensor, picks: Tensor) -> Tensor:
    """Compute the exact log-probability of each pick given the earlier ones, (E, B) float32.

    Args:
        logits: (n,) float32, differentiable.
        picks: ordered positions without repetition, (E, B) int64.
    """
    picked = logits[picks]
    rest = logits.expand(len(picks), -1).scatter(1, picks, -torch.inf).logsumexp(1, keepdim=True)
    # Remaining before the t-th draw: the picks from t on, and the images that are never picked.
    tail = picked.flip(1).logcumsumexp(1).flip(1)
    return picked - torch.logaddexp(tail, rest)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a policy is trained with Adam, and in which order it reads the pool.

    Attributes:
        rate: the learning rate of the first epoch.
        final_rate: the learning rate after the last one; a cosine leads from one to the other.
        max_norm: longer gradients are clipped to it.
        shuffle: whether the images come in a new order in each epoch.
    """

    rate: float
    final_rate: float
    max_norm: float
    shuffle: bool


LEARNING = Schedule(rate=3e-3, final_rate=0.0, max_norm=1.0, shuffle=True)
PUBLISHED = Schedule(rate=1e-5, final_rate=1e-5, max_norm=math.inf, shuffle=False)


class Learner(Protocol):
    """A way to learn: an epoch's loss, whose gradient is a policy gradient."""

    schedule: Schedule

    def loss(self, logits: Tensor, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw episodes, reward them, and return the scalar loss.

        Args:
            logits: (n,) float32.
            images: the pool index of each, (n,) int64.
            generator: on the CPU.
        """
        ...


@dataclass(slots=True)
class PlackettLuceLearner:
    """Selections of exactly B images; each pick's own credit is its advantage."""

    reward: Reward
    budget: int
    episodes: int
    schedule: Schedule = LEARNING

    def loss(self, logits: Tensor, images: Tensor, generator: torch.Generator) -> Tensor:
        picks = draw_without_replacement(logits, self.budget, self.episodes, generator)
        sample = reward_sample(images, self.budget, generator)
        credit = torch.stack([self.reward.credit(images[row], sample) for row in picks])
        spread = credit.std(correction=0)
        advantage = (credit - credit.mean()) / torch.where(spread > 0, spread, 1.0)
        return -(advantage.to(logits.dtype) * log_probabilities(logits, picks)).mean()


@dataclass(slots=True)
class BernoulliLearner:
    """The paper's way: a coin decides on each image, and all get the whole selection's reward.

    The reward is measured against a moving average of past ones.
    """

    reward: Reward
    episodes: int
    schedule: Schedule = PUBLISHED
    baseline: float | None = None

    def loss(self, logits: Tensor, images: Tensor, generator: torch.Generator) -> Tensor:
        coins = torch.rand(self.episodes, len(logits), generator=generator).to(logits.device)
        actions = (coins < logits.detach().sigmoid()).to(logits.dtype)
        sample = reward_sample(images, 0, generator)
        rewards = [self.reward.value(images[row.bool()], sample) for row in actions]
        mean = sum(rewards) / self.episodes
        baseline = mean if self.baseline is None else self.baseline
        self.baseline = _BASELINE_MEMORY * baseline + (1 - _BASELINE_MEMORY) * mean
        # log sigmoid(±z) of each action
        log_probability = torch.nn.functional.logsigmoid(logits * (2 * actions - 1)).mean(1)
        return -(log_probability @ (logits.new_tensor(rewards) - baseline)) / self.episodes


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
) -> None:
    """Train a policy in place: one pass over the pool and one step per epoch.

    Args:
        policy: changed in place.
        learner: draws episodes and rewards them.
        mixtures: of the whole pool, (N, R, C) float32.
        images: which of them may be picked, (n,) int64.
        epochs: number of steps.
        window: images that the LSTM reads at once.
        generator: on the CPU.
        progress: called after each epoch.
    """
    how = learner.schedule
    optimiser = torch.optim.Adam(policy.parameters(), lr=how.rate, weight_decay=_WEIGHT_DECAY)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs, eta_min=how.final_rate)
    for epoch in range(epochs):
        order = shuffled(images, generator) if how.shuffle else images
        loss = learner.loss(policy.logits(mixtures, order, window), order, generator)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(policy.parameters(), how.max_norm)
        optimiser.step()
        rates.step()
        if progress is not None:
            progress((epoch + 1) / epochs)


def shuffled(images: Tensor, generator: torch.Generator) -> Tensor:
    """Put images in a random order, the same on every device."""
    return images[torch.randperm(len(images), generator=generator).to(images.device)]


def reward_sample(images: Tensor, budget: int, generator: torch.Generator) -> Tensor:
    """Draw the images on which Rvr is estimated; all of them if the pool is small."""
    return shuffled(images, generator)[: max(_SAMPLE, _SAMPLE_PER_PICK * budget)]
