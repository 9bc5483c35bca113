"""How long a head for masks or boxes learns with one thread and with one per core.

    python measurements/head_threads.py --data ../shared/data/bccd.zip

Each is measured on the machine as it is, and beside a process that uses a core all the time, as
Label Studio may. The backend spares a core, see `cdal.models.devices.one_core_spared`.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from shared import DATA, print_header, print_row

from cdal.datasets import LabelledImages, open_images
from cdal.models import Recipe, fit, make_network
from cdal.models.features import LabelledFeatures
from cdal.models.head import HeadNetwork


@contextmanager
def busy_core() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA / "bccd.zip")
    parser.add_argument("--labels", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    images = open_images(options.data)
    drawn = random.Random(0).sample(images.train, options.labels)

    def network() -> HeadNetwork:
        made = make_network(images.task, classes=images.classes)
        assert isinstance(made, HeadNetwork)
        return made

    first = network()
    seen = first.seen(first.examples(LabelledImages(images, drawn), lambda: False), lambda: False)
    data = LabelledFeatures(first.extraction, *seen)

    def learn(threads: int) -> str:
        # A head learns with one fewer than torch has.
        torch.set_num_threads(threads + 1)
        before = time.monotonic(), time.process_time()
        fit(network(), data, None, Recipe())
        passed = time.monotonic() - before[0], time.process_time() - before[1]
        return f"{passed[0]:.1f} s, {passed[1]:.1f} of the processor"

    print_header(("threads", "as it is", "beside a busy process"))
    for threads in dict.fromkeys((1, os.cpu_count() or 1)):
        for _ in range(options.repeats):
            alone = learn(threads)
            with busy_core():
                print_row((str(threads), alone, learn(threads)))


if __name__ == "__main__":
    main()
