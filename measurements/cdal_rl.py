"""What CDAL-RL learns, what its rewards cost, and how much memory a large pool needs.

python -m measurements.cdal_rl learning
python -m measurements.cdal_rl rewards
python -m measurements.cdal_rl memory
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from cdal.selectors.cd_greedy import CDGreedy
from cdal.selectors.cdal_cs import CDALCS
from cdal.selectors.cdal_rl import CDALRL
from cdal.selectors.diversity import DiversityEmbedding, Missing
from cdal.selectors.policy import BiLSTMPolicy
from cdal.selectors.pool import Pool
from cdal.selectors.reinforce import LEARNING, PlackettLuceLearner, reward_sample, train
from cdal.selectors.rewards import Part, Reward
from cdal.selectors.selection import Selector
from cdal.selectors.synthetic import confused_pool

SEEDS = range(5)
CPU = torch.device("cpu")


def learning() -> None:
    """Aggregate CD of 40 picks of 400 images: 0 is the mean random selection, 100 is cd-greedy."""
    for missing in ("uniform", "skip"):
        print(f"\nmissing={missing}: mean of five seeds (each seed)")
        for name, select in contenders(missing):
            reached = [on_scale(select, seed, missing) for seed in SEEDS]
            each = " ".join(f"{value:.0f}" for value in reached)
            print(f"{name:42} {statistics.mean(reached):6.1f}  ({each})", flush=True)


def contenders(missing: Missing) -> Iterator[tuple[str, Callable[[Pool, int], list[int]]]]:
    def by(selector: Selector) -> Callable[[Pool, int], list[int]]:
        return lambda pool, seed: selector.select(pool, 40, seed).indices

    yield "untrained policy", untrained
    yield "best of 300 random", lambda pool, seed: best_of_300_random(pool, seed, missing)
    yield "CDAL-CS", by(CDALCS(missing))
    paper = CDALRL(policy="paper", rewards="cd+vr", missing=missing)
    yield "paper's settings, 60 epochs, cd+vr", by(paper)
    for epochs, rewards in ((60, "cd"), (200, "cd"), (200, "cd+vr"), (200, "cd+vr+sr")):
        selector = CDALRL(rewards=rewards, epochs=epochs, missing=missing)
        yield f"plackett-luce, {epochs} epochs, {rewards}", by(selector)
    for epochs in (60, 200):
        yield f"learning rate 1e-3, {epochs} epochs, cd", slower(epochs, missing)


def standardised(pool: Pool, seed: int) -> BiLSTMPolicy:
    policy = BiLSTMPolicy.seeded(pool.mixtures[0].numel(), 256, seed, CPU)
    policy.standardise(pool.mixtures, pool.unlabelled)
    return policy


def top_40(policy: BiLSTMPolicy, pool: Pool) -> list[int]:
    with torch.no_grad():
        logits = policy.logits(pool.mixtures, pool.unlabelled, 64)
    return [int(i) for i in logits.topk(40).indices]


def untrained(pool: Pool, seed: int) -> list[int]:
    return top_40(standardised(pool, seed), pool)


def slower(epochs: int, missing: Missing) -> Callable[[Pool, int], list[int]]:
    schedule = replace(LEARNING, rate=1e-3)

    def select(pool: Pool, seed: int) -> list[int]:
        policy = standardised(pool, seed)
        embedding = DiversityEmbedding.of(pool.mixtures, pool.present, missing)
        cd: tuple[Part, ...] = ("cd",)
        reward = Reward(pool, cd, 0.75, embedding)
        train(
            policy,
            PlackettLuceLearner(reward, budget=40, episodes=5, schedule=schedule),
            pool.mixtures,
            pool.unlabelled,
            epochs=epochs,
            window=64,
            generator=torch.Generator().manual_seed(seed),
        )
        return top_40(policy, pool)

    return select


def random_selections(pool: Pool, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(len(pool), generator=generator)[:40] for _ in range(300)]


def best_of_300_random(pool: Pool, seed: int, missing: Missing) -> list[int]:
    embedding = DiversityEmbedding.of(pool.mixtures, pool.present, missing)
    best = max(random_selections(pool, seed), key=embedding.aggregate)
    return [int(i) for i in best]


def on_scale(select: Callable[[Pool, int], list[int]], seed: int, missing: Missing) -> float:
    pool = confused_pool(400, seed=seed)
    embedding = DiversityEmbedding.of(pool.mixtures, pool.present, missing)
    zero = statistics.mean(map(embedding.aggregate, random_selections(pool, seed)))
    hundred = embedding.aggregate(torch.tensor(CDGreedy(missing).select(pool, 40, seed).indices))
    reached = embedding.aggregate(torch.tensor(select(pool, seed)))
    return 100 * (reached - zero) / (hundred - zero)


def rewards() -> None:
    """The rewards' share of an epoch: 3,000 images, 150 picks, five episodes."""
    pool = confused_pool(3000, classes=19, features=512, labelled=0)
    embedding = DiversityEmbedding.of(pool.mixtures, pool.present)
    subsets: tuple[tuple[Part, ...], ...] = (("cd",), ("cd", "vr"), ("cd", "vr", "sr"))
    for parts in subsets:
        reward = Reward(pool, parts, 0.75, embedding)
        generator = torch.Generator().manual_seed(0)
        picks = [torch.randperm(3000, generator=generator)[:150] for _ in range(5)]

        def rate(reward: Reward = reward, picks: list[Tensor] = picks) -> None:
            sample = reward_sample(pool.unlabelled, 150, torch.Generator().manual_seed(0))
            for row in picks:
                reward.credit(row, sample)

        policy = BiLSTMPolicy.seeded(19 * 19, 256, 0, CPU)
        learner = PlackettLuceLearner(reward, budget=150, episodes=5)

        def epoch(policy: BiLSTMPolicy = policy, learner: PlackettLuceLearner = learner) -> None:
            train(
                policy,
                learner,
                pool.mixtures,
                pool.unlabelled,
                epochs=1,
                window=64,
                generator=torch.Generator().manual_seed(0),
            )

        # Alternating, so that other load on the machine affects both.
        pairs = [(seconds(rate), seconds(epoch)) for _ in range(9)][1:]
        own, whole = (statistics.median(times) for times in zip(*pairs, strict=True))
        print(
            f"{'+'.join(parts):9} {own / whole:.1%}: "
            f"rewards {own * 1e3:.1f} ms of an epoch of {whole * 1e3:.1f} ms"
        )


def seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def memory() -> None:
    """Peak resident memory, one process per size: C=19, D=512, 1,000 picks."""
    for images in (10_000, 30_000, 100_000):
        process = multiprocessing.get_context("spawn").Process(target=memory_of, args=(images,))
        process.start()
        process.join()


def memory_of(images: int) -> None:
    pool = confused_pool(images, classes=19, features=512)
    embedding = DiversityEmbedding.of(pool.mixtures, pool.present)
    reward = Reward(pool, ("cd", "vr", "sr"), 0.75, embedding)
    policy = BiLSTMPolicy.seeded(19 * 19, 256, 0, CPU)
    learner = PlackettLuceLearner(reward, budget=1000, episodes=5)
    reset_peak()
    held = resident("VmRSS")
    start = time.perf_counter()
    train(
        policy,
        learner,
        pool.mixtures,
        pool.unlabelled,
        epochs=2,
        window=64,
        generator=torch.Generator().manual_seed(0),
    )
    epoch = (time.perf_counter() - start) / 2
    peak = resident("VmHWM")
    arrays = sum(a.numel() * a.element_size() for a in pool.arrays().values()) / 2**20
    print(
        f"{images:7,} images: arrays {arrays:5.0f} MiB, their embedding "
        f"{embedding.x.nbytes / 2**20:5.0f} MiB; resident before training {held:5.0f} MiB, "
        f"peak in training {peak:5.0f} MiB, so {peak - held:4.0f} MiB more; {epoch:.1f} s an epoch"
    )
    del embedding, reward, policy, learner
    reset_peak()
    held = resident("VmRSS")
    CDALRL(epochs=2, rewards="cd+vr+sr").select(pool, 1000)
    peak = resident("VmHWM")
    print(
        f"{'':15} select() with its report: peak {peak:5.0f} MiB, {peak - held:.0f} MiB more than "
        f"before"
    )


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def resident(field: str) -> float:
    """VmRSS, the memory resident now, or VmHWM, the most since the last reset, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parts = {"learning": learning, "rewards": rewards, "memory": memory}
    parser.add_argument("what", choices=parts)
    parts[parser.parse_args().what]()


if __name__ == "__main__":
    main()
