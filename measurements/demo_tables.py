"""The tables of the unattended demo in README.md, for all three tasks, one after the other.

    python measurements/demo_tables.py
    python measurements/demo_tables.py --long-tail FOLDER --limit 1500 --budget 50 --rounds 8

With --long-tail, class folders by `long_tail.py` instead, in random order and by the default.

Each demo runs in a temporary folder, with one computing thread in the worker.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from shared import DATA, say

DEMOS = {
    "cifar10.zip": ("--limit", "1500"),
    "camvid.zip": ("--budget", "12"),
    "bccd.zip": ("--budget", "8"),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the three data sets")
    parser.add_argument("--long-tail", type=Path, help="a folder of class folders")
    parser.add_argument("--limit", default="1500", help="with --long-tail")
    parser.add_argument("--budget", default="50", help="with --long-tail")
    parser.add_argument("--rounds", default="3")
    options = parser.parse_args()
    runs = [(options.data / name, more) for name, more in DEMOS.items()]
    if options.long_tail is not None:
        shared = ("--limit", options.limit, "--budget", options.budget)
        runs = [
            (options.long_tail, (*shared, *selector)) for selector in (("--selector", "random"), ())
        ]
    failed = 0
    for path, more in runs:
        images = path.resolve()
        say(f"\n{path.name} {' '.join(more)}")
        command = [sys.executable, "-m", "cdal", "demo", "--images", str(images), *more]
        with tempfile.TemporaryDirectory() as folder:
            ended = subprocess.run(
                [*command, "--rounds", options.rounds, "--once"],
                check=False,
                cwd=folder,
                env={**os.environ, "CDAL_COMPUTE_THREADS": "1"},
            )
        failed += ended.returncode != 0
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
