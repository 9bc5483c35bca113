import itertools

import pytest
import torch

from cdal.selectors.core_set import EuclideanEmbedding
from cdal.selectors.diversity import DiversityEmbedding
from cdal.selectors.draws import Distance
from cdal.selectors.policy import BiLSTMPolicy
from cdal.selectors.reinforce import (
    LEARNING,
    PUBLISHED,
    BernoulliLearner,
    PlackettLuceLearner,
    Plateau,
    Schedule,
    Step,
    reward_sample,
    train,
)
from cdal.selectors.rewards import Reward
from cdal.selectors.synthetic import confused_pool


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Fixed:
    """A reward in which each image has its own value."""

    def __init__(self, worth):
        self.worth = torch.tensor(worth, dtype=torch.float64)

    def value(self, picks, sample=None):
        return float(self.worth[picks].sum())

    def credit(self, picks, sample):
        return self.worth[picks]


def all_alike(images):
    """Images that are as far from each other as any."""
    features = torch.eye(images) * 5
    return Distance.of(EuclideanEmbedding.of(features), torch.zeros(images, dtype=torch.bool))


def plackett_luce(worth, budget, episodes):
    images = len(worth)
    return PlackettLuceLearner(Fixed(worth), all_alike(images), images, budget, episodes)


def test_a_plackett_luce_step_raises_the_logits_of_the_images_that_are_worth_more():
    logits = torch.zeros(6, requires_grad=True)
    learner = plackett_luce([0, 0, 0, 1, 1, 1], budget=2, episodes=400)
    step = learner.step(logits, torch.arange(6), generator())
    step.loss.backward()
    assert logits.grad[:3].min() > 0 > logits.grad[3:].max()
    assert step.reward == pytest.approx(1, abs=0.1)


def test_equal_credits_teach_nothing():
    logits = torch.randn(6, requires_grad=True)
    learner = plackett_luce([1] * 6, budget=3, episodes=5)
    learner.step(logits, torch.arange(6), generator()).loss.backward()
    assert logits.grad.abs().max() == 0


@pytest.mark.parametrize(("unlabelled", "expected"), [(100, 40), (400, 10), (10_000, 10)])
def test_of_part_of_the_pool_as_large_a_part_of_the_budget_is_drawn(unlabelled, expected):
    drawn = []

    class Watching(Fixed):
        def value(self, picks, sample):
            drawn.append(len(picks))
            return 0.0

    learner = PlackettLuceLearner(Watching([1.0] * 100), all_alike(100), unlabelled, 40, 1)
    learner.step(torch.zeros(100), torch.arange(100), generator())
    assert drawn == [expected]


def test_the_papers_step_by_hand():
    """Every coin is certain, so every episode selects images 0 and 2, of reward 5."""
    logits = torch.tensor([50.0, -50.0, 50.0], requires_grad=True)
    learner = BernoulliLearner(Fixed([2, 7, 3]), episodes=4, baseline=1.0)
    step = learner.step(logits, torch.arange(3), generator())
    assert step.loss.item() == pytest.approx(0, abs=1e-12)
    assert step.reward == 5
    assert learner.baseline == pytest.approx(0.9 * 1 + 0.1 * 5)


@pytest.mark.slow
def test_the_papers_gradient_is_that_of_the_expected_reward():
    """Compared with all 2^3 selections, each with its probability and reward."""
    logits = torch.tensor([0.5, -0.2, 0.1], requires_grad=True)
    reward = Fixed([2, 7, -3])
    probability = logits.sigmoid()
    expected = logits.new_zeros(())
    for bits in itertools.product([0.0, 1.0], repeat=3):
        taken = torch.tensor(bits)
        chance = (taken * probability + (1 - taken) * (1 - probability)).prod()
        expected = expected + chance * reward.value(taken.nonzero()[:, 0])
    (wanted,) = torch.autograd.grad(-expected / 3, logits)  # the loss is a mean over the images
    learner = BernoulliLearner(reward, episodes=40_000, baseline=3.0)
    step = learner.step(logits, torch.arange(3), generator())
    (estimated,) = torch.autograd.grad(step.loss, logits)
    assert torch.allclose(estimated, wanted, atol=0.02)


@pytest.mark.parametrize("kind", [PlackettLuceLearner, BernoulliLearner])
def test_training_changes_the_policy_and_tells_how_far_it_is(kind):
    pool = confused_pool(40)
    embedding = DiversityEmbedding.of(pool.mixtures, pool.present)
    reward = Reward(pool, ("cd", "vr", "sr"), 0.75, embedding)
    distance = Distance.of(embedding, pool.labelled)
    learns = kind is PlackettLuceLearner
    own = {"budget": 5, "distance": distance, "unlabelled": 40} if learns else {}
    policy = BiLSTMPolicy.seeded(100, 8, 0, torch.device("cpu"), published=not learns)
    before = policy.head.weight.detach().clone()
    told = []
    train(
        policy,
        kind(reward=reward, episodes=2, **own),
        pool.mixtures,
        pool.unlabelled,
        epochs=4,
        window=16,
        generator=generator(),
        progress=told.append,
    )
    assert told == [0.25, 0.5, 0.75, 1.0]
    assert not torch.equal(policy.head.weight, before)
    assert policy.head.weight.isfinite().all()


def test_the_sample_is_some_of_the_images_and_all_of_few():
    few = torch.arange(10, 20)
    assert sorted(reward_sample(few, 3, generator()).tolist()) == few.tolist()
    many = reward_sample(torch.arange(5000), 3, generator())
    assert len(many) == len(set(many.tolist())) == 512
    assert len(reward_sample(torch.arange(5000), 500, generator())) == 2000


class Linear:
    """A learner whose loss has the gradient 3 for each logit, whatever the rewards."""

    def __init__(self, schedule, rewards=(0.0, 1.0, 2.0)):
        self.schedule = schedule
        self.rewards = iter(rewards)
        self.orders = []

    def step(self, logits, images, generator):
        self.orders.append(images.tolist())
        return Step(3 * logits.sum(), next(self.rewards))


def head_bias_after(schedule, epochs, monkeypatch):
    """The result of plain gradient descent, not Adam, for a policy whose bias starts at 0."""
    monkeypatch.setattr(
        torch.optim, "Adam", lambda p, lr, weight_decay: torch.optim.SGD([list(p)[-1]], lr)
    )
    policy = BiLSTMPolicy.seeded(1, 1, 0, torch.device("cpu"), published=True)
    torch.nn.init.zeros_(policy.head.bias)
    learner = Linear(schedule)
    mixtures = torch.zeros(4, 1, 1)
    train(
        policy, learner, mixtures, torch.arange(4), epochs=epochs, window=2, generator=generator()
    )
    return policy.head.bias.item(), learner.orders


def test_the_published_schedule_is_constant_unclipped_and_in_order(monkeypatch):
    bias, orders = head_bias_after(PUBLISHED, 3, monkeypatch)
    # The gradient of the bias is 3 for each of 4 images.
    assert bias == pytest.approx(-3 * 12 * 1e-5)
    assert orders == [[0, 1, 2, 3]] * 3


def test_the_learning_schedule_is_clipped_and_shuffled(monkeypatch):
    bias, orders = head_bias_after(LEARNING, 2, monkeypatch)
    # Gradients of norm 1, of which the bias has a part.
    assert -2 * LEARNING.rate <= bias < 0
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == [0, 1, 2, 3]


def test_an_epoch_reads_a_part_of_a_long_pool(monkeypatch):
    _, orders = head_bias_after(Schedule(1e-3, 1.0, None, images=3), 3, monkeypatch)
    assert [len(set(order)) for order in orders] == [3, 3, 3]


def test_a_training_ends_after_two_plateaus():
    """The reward rises for three epochs; a mean of two epochs shows it when it stops."""
    rewards = [1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 9.0]
    learner = Linear(Schedule(1e-3, 1.0, patience=2, images=None), rewards)
    policy = BiLSTMPolicy.seeded(1, 1, 0, torch.device("cpu"), published=True)
    told = []
    found = train(
        policy,
        learner,
        torch.zeros(4, 1, 1),
        torch.arange(4),
        epochs=100,
        window=2,
        generator=generator(),
        progress=told.append,
    )
    # Means: 1.5, 3, 3 (a plateau), 3 (another).
    assert found == rewards[:8]
    assert told[-1] == 1.0
    assert told[0] == 0.01


def test_a_plateau_is_told_from_a_noisy_rise():
    plateau = Plateau(2)
    assert [plateau.reached(r) for r in (1, 3, 2, 4, 0, 6, 9, 9)] == [False] * 5 + [True] + [
        False
    ] * 2
    assert plateau.times == 1
    assert not any(Plateau(None).reached(0.0) for _ in range(50))
