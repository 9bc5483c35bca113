"""What CDAL-RL learns, and how much memory and time a large pool needs.

python -m measurements.cdal_rl learning
python -m measurements.cdal_rl memory
python -m measurements.cdal_rl cancelling
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from cdal.selectors.cd_greedy import CDGreedy
from cdal.selectors.cdal_cs import CDALCS
from cdal.selectors.cdal_rl import CDALRL
from cdal.selectors.diversity import DiversityEmbedding
from cdal.selectors.draws import Distance
from cdal.selectors.policy import BiLSTMPolicy
from cdal.selectors.pool import Pool
from cdal.selectors.reinforce import PlackettLuceLearner, shuffled, train
from cdal.selectors.rewards import Part, Reward
from cdal.selectors.selection import Selector
from cdal.selectors.synthetic import confused_pool

SEEDS = range(3)
CPU = torch.device("cpu")


def learning() -> None:
    """The reward of 40 of 400 images: 0 is the mean random selection, 100 is greedy."""
    parts: tuple[Part, ...] = ("spread", "coverage")
    for part in parts:
        print(f"\nrewards={part}: mean of three seeds (each seed)")
        for name, select in contenders(part):
            reached = [on_scale(select, seed, part) for seed in SEEDS]
            each = " ".join(f"{value:.0f}" for value in reached)
            print(f"{name:42} {statistics.mean(reached):6.1f}  ({each})", flush=True)


def contenders(part: Part) -> Iterator[tuple[str, Callable[[Pool, int], list[int]]]]:
    def by(selector: Selector) -> Callable[[Pool, int], list[int]]:
        return lambda pool, seed: selector.select(pool, 40, seed).indices

    yield "CDAL-CS", by(CDALCS())
    yield "paper's settings, 60 epochs", by(CDALRL(policy="paper", rewards=part))
    yield "plackett-luce", by(CDALRL(rewards=part))


def on_scale(select: Callable[[Pool, int], list[int]], seed: int, part: Part) -> float:
    pool = confused_pool(400, labelled=20, seed=seed)
    embedding = DiversityEmbedding.of(pool.mixtures, pool.present)
    reward = Reward(pool, (part,), 1.0, embedding)
    generator = torch.Generator().manual_seed(seed)
    zero = statistics.mean(
        reward.value(shuffled(pool.unlabelled, generator)[:40]) for _ in range(100)
    )
    hundred = reward.value(greedy(pool, reward, part))
    return 100 * (reward.value(torch.tensor(select(pool, seed))) - zero) / (hundred - zero)


def greedy(pool: Pool, reward: Reward, part: Part) -> Tensor:
    """40 picks, each of which adds most to the reward."""
    if part == "spread":  # greedy on the sum is short-sighted: the first pick is as far as any
        return torch.tensor(CDALCS().select(pool, 40).indices)
    if part == "cd":
        return torch.tensor(CDGreedy().select(pool, 40).indices)
    picks: list[int] = []
    rest = pool.unlabelled.tolist()
    for _ in range(40):
        best = max(rest, key=lambda image: reward.value(torch.tensor([*picks, image])))
        picks.append(best)
        rest.remove(best)
    return torch.tensor(picks)


def memory() -> None:
    """Peak resident memory, one process per size: C=19, D=512, 1,000 picks."""
    for images in (10_000, 30_000, 100_000):
        process = multiprocessing.get_context("spawn").Process(target=memory_of, args=(images,))
        process.start()
        process.join()


def memory_of(images: int) -> None:
    pool = confused_pool(images, classes=19, features=512)
    embedding = DiversityEmbedding.of(pool.mixtures, pool.present)
    parts: tuple[Part, ...] = ("spread",)
    reward = Reward(pool, parts, 0.75, embedding)
    distance = Distance.of(embedding, pool.labelled)
    policy = BiLSTMPolicy.seeded(19 * 19, 64, 0, CPU)
    learner = PlackettLuceLearner(reward, distance, images, budget=1000, episodes=5)
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
    del embedding, reward, distance, policy, learner
    reset_peak()
    held = resident("VmRSS")
    CDALRL(epochs=2).select(pool, 1000)
    peak = resident("VmHWM")
    print(
        f"{'':15} select() with its report: peak {peak:5.0f} MiB, {peak - held:.0f} MiB more than "
        f"before"
    )


def cancelling() -> None:
    """The longest time between two moments at which CDAL-RL can be cancelled, one thread.

    200 picks, 500 labelled images; C mixtures per image, and D features.
    """
    torch.set_num_threads(1)
    CDALRL(epochs=1).select(confused_pool(50), 5)  # what PyTorch imports at the first training
    for images, classes, features in ((10_000, 19, 512), (10_000, 10, 1280), (100_000, 10, 1280)):
        pool = confused_pool(images, classes=classes, features=features, labelled=500)
        moments = [(time.perf_counter(), time.process_time(), 0.0)]

        def told(share: float, moments: list[tuple[float, float, float]] = moments) -> None:
            moments.append((time.perf_counter(), time.process_time(), share))

        CDALRL().select(pool, 200, 0, told)
        pairs = list(itertools.pairwise(moments))
        wall = max(after[0] - before[0] for before, after in pairs)
        seconds, share = max((after[1] - before[1], before[2]) for before, after in pairs)
        total = moments[-1][1] - moments[0][1]
        print(
            f"{images:7,} images, C={classes}, D={features}: {len(pairs):,} moments in "
            f"{total:.0f} processor seconds; longest wait {seconds:.2f} of them (at {share:.0%}), "
            f"{wall:.2f} s by the clock",
            flush=True,
        )


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def resident(field: str) -> float:
    """VmRSS, the memory resident now, or VmHWM, the most since the last reset, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parts = {"learning": learning, "memory": memory, "cancelling": cancelling}
    parser.add_argument("what", choices=parts)
    parts[parser.parse_args().what]()


if __name__ == "__main__":
    main()
