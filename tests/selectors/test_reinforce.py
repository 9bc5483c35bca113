import itertools
import math

import pytest
import torch

from cdal.selectors.diversity import DiversityEmbedding
from cdal.selectors.policy import BiLSTMPolicy
from cdal.selectors.reinforce import (
    LEARNING,
    PUBLISHED,
    BernoulliLearner,
    PlackettLuceLearner,
    draw_without_replacement,
    log_probabilities,
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


def test_log_probabilities_by_hand():
    # Weights 1, 2 and 5: first the third (5/8), then of the rest the first (1/3).
    logits = torch.tensor([1.0, 2.0, 5.0]).log()
    picks = torch.tensor([[2, 0], [0, 1]])
    expected = [[5 / 8, 1 / 3], [1 / 8, 2 / 7]]
    assert log_probabilities(logits, picks).exp().tolist() == [pytest.approx(e) for e in expected]


def test_the_probabilities_of_all_ordered_selections_sum_to_one():
    logits = torch.tensor([0.3, -2.0, 1.5, 0.0, 9.0])
    for budget in range(1, 6):
        every = torch.tensor(list(itertools.permutations(range(5), budget)))
        assert log_probabilities(logits, every).sum(1).exp().sum().item() == pytest.approx(1)


@pytest.mark.parametrize("logits", [[0.0, 1.0, 2.0], [0.0, 300.0, -300.0]])
def test_gradients_are_finite_even_where_all_are_picked(logits):
    logits = torch.tensor(logits, requires_grad=True)
    log_probabilities(logits, torch.tensor([[0, 2, 1], [1, 2, 0]])).sum().backward()
    assert logits.grad.isfinite().all()


def test_ordered_selections_are_drawn_as_often_as_they_are_probable():
    logits = torch.tensor([0.0, 1.0, -1.0])
    draws = draw_without_replacement(logits, 2, 30_000, generator())
    for order in itertools.permutations(range(3), 2):
        share = (draws == torch.tensor(order)).all(1).double().mean().item()
        expected = log_probabilities(logits, torch.tensor([order])).sum().exp().item()
        assert share == pytest.approx(expected, abs=4 * math.sqrt(expected / 30_000))


def test_no_image_is_drawn_twice():
    draws = draw_without_replacement(torch.zeros(50), 50, 20, generator())
    assert (draws.sort(1).values == torch.arange(50)).all()


def test_a_plackett_luce_step_raises_the_logits_of_the_images_that_are_worth_more():
    logits = torch.zeros(6, requires_grad=True)
    learner = PlackettLuceLearner(Fixed([0, 0, 0, 1, 1, 1]), budget=2, episodes=400)
    learner.loss(logits, torch.arange(6), generator()).backward()
    assert logits.grad[:3].min() > 0 > logits.grad[3:].max()


def test_equal_credits_teach_nothing():
    logits = torch.randn(6, requires_grad=True)
    learner = PlackettLuceLearner(Fixed([1] * 6), budget=3, episodes=5)
    learner.loss(logits, torch.arange(6), generator()).backward()
    assert logits.grad.abs().max() == 0


def test_the_papers_step_by_hand():
    """Every coin is certain, so every episode selects images 0 and 2, of reward 5."""
    logits = torch.tensor([50.0, -50.0, 50.0], requires_grad=True)
    learner = BernoulliLearner(Fixed([2, 7, 3]), episodes=4, baseline=1.0)
    loss = learner.loss(logits, torch.arange(3), generator())
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert learner.baseline == pytest.approx(0.9 * 1 + 0.1 * 5)


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
    (estimated,) = torch.autograd.grad(learner.loss(logits, torch.arange(3), generator()), logits)
    assert torch.allclose(estimated, wanted, atol=0.02)


@pytest.mark.parametrize("kind", [PlackettLuceLearner, BernoulliLearner])
def test_training_changes_the_policy_and_tells_how_far_it_is(kind):
    pool = confused_pool(40)
    embedding = DiversityEmbedding.of(pool.mixtures, pool.present)
    reward = Reward(pool, ("cd", "vr", "sr"), 0.75, embedding)
    budget = {"budget": 5} if kind is PlackettLuceLearner else {}
    policy = BiLSTMPolicy.seeded(100, 8, 0, torch.device("cpu"))
    before = policy.head.weight.detach().clone()
    told = []
    train(
        policy,
        kind(reward=reward, episodes=2, **budget),
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

    def __init__(self, schedule):
        self.schedule = schedule
        self.orders = []

    def loss(self, logits, images, generator):
        self.orders.append(images.tolist())
        return 3 * logits.sum()


def head_bias_after(schedule, epochs, monkeypatch):
    """The result of plain gradient descent, not Adam, for a policy whose bias starts at 0."""
    monkeypatch.setattr(
        torch.optim, "Adam", lambda p, lr, weight_decay: torch.optim.SGD([list(p)[-1]], lr)
    )
    policy = BiLSTMPolicy.seeded(1, 1, 0, torch.device("cpu"))
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


def test_the_learning_schedule_falls_by_a_cosine_is_clipped_and_shuffled(monkeypatch):
    bias, orders = head_bias_after(LEARNING, 2, monkeypatch)
    # Rates of 3e-3 and 1.5e-3, and gradients of norm 1 of which the bias has a part.
    assert -4.5e-3 <= bias < 0
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == [0, 1, 2, 3]
