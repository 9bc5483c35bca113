"""Memory and time to load and rank a large pool of saved scores.

    python measurements/large_pools.py --images 1000000 --classes 19 --present 10 14
    python measurements/large_pools.py --images 200000 --classes 80 --present 5 5

The scores are generated: as many classes per image as given, each with a probability vector that
leans to its class, and random features. They are written as the job `score` writes them, in files
of 1,024 images, and kept in --folder for the next call. A process of its own then loads what the
selector needs and picks. Times are its processor seconds; its peak is the most memory that the
system saw it use, torch included.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from shared import report

from cdal.backend.loop.pool_scores import Scores
from cdal.backend.loop.score import CHUNK
from cdal.backend.loop.select import arrays_for
from cdal.selectors import make_selector
from cdal.selectors.uncertainty import uncertainties_of


def chunk(task_ids: torch.Tensor, classes: int, present: tuple[int, int], width: int) -> Scores:
    """Scores of some images; the first task id seeds them."""
    generator = torch.Generator().manual_seed(int(task_ids[0]))
    count = len(task_ids)
    some = torch.randint(present[0], present[1] + 1, (count, 1), generator=generator)
    order = torch.rand(count, classes, generator=generator).argsort(1).argsort(1)
    there = order < some
    leaning = torch.randn(int(there.sum()), classes, generator=generator)
    leaning[torch.arange(len(leaning)), there.nonzero()[:, 1]] += 4
    mixtures = torch.zeros(count, classes, classes)
    mixtures[there] = leaning.softmax(1)
    probabilities = mixtures.sum(1) / mixtures.sum((1, 2))[:, None]
    return Scores(
        task_ids=task_ids,
        probabilities=probabilities,
        uncertainties=uncertainties_of(probabilities).float(),
        features=torch.randn(count, width, generator=generator),
        mixtures=mixtures,
        present=there,
        region_counts=there.long() * 100,
    )


def write(arguments: argparse.Namespace, folder: Path) -> None:
    have = len(list(folder.glob("*.safetensors"))) * CHUNK
    for ids in torch.split(torch.arange(arguments.images), CHUNK):
        if int(ids[0]) >= have:
            chunk(ids, arguments.classes, tuple(arguments.present), arguments.features).save(folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    report("on disk", f"{size / 1e9:.2f} GB, {size / arguments.images / 1e3:.1f} KB per image")


def rank(arguments: argparse.Namespace, folder: Path) -> None:
    before = _peak()
    started = time.process_time()
    scores = Scores.load(folder, arrays_for([arguments.selector]))
    assert scores is not None
    labelled = [number < arguments.labelled for number in range(len(scores))]
    pool = scores.pool(labelled).to(arguments.device)
    loaded = time.process_time()
    after_load = _peak()
    selection = make_selector(arguments.selector).select(pool, arguments.picks)
    done = time.process_time()
    report("load", f"{loaded - started:.1f} s, peak {after_load:.2f} GB")
    report(
        f"{len(selection.picks)} picks by {arguments.selector} on {arguments.device}",
        f"{done - loaded:.1f} s, peak {_peak():.2f} GB, of which {before:.2f} GB before",
    )


def _peak() -> float:
    """The most memory that this process has had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=19)
    parser.add_argument("--present", type=int, nargs=2, default=[10, 14])
    parser.add_argument("--features", type=int, default=576)
    parser.add_argument("--selector", default="cdal-cs")
    parser.add_argument("--labelled", type=int, default=1000)
    parser.add_argument("--picks", type=int, default=100)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rank-only", action="store_true", help="in this process")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.rank_only:
        rank(arguments, arguments.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        write(arguments, folder)
        again = [*sys.argv, "--rank-only", "--folder", str(folder)]
        subprocess.run([sys.executable, *again], check=True)


if __name__ == "__main__":
    main()
