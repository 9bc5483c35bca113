"""The tables of the unattended demo in README.md, for all three tasks, one after the other.

    python measurements/demo_tables.py

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
    parser.add_argument("--rounds", default="3")
    options = parser.parse_args()
    failed = 0
    for name, more in DEMOS.items():
        images = (options.data / name).resolve()
        say(f"\n{name} {' '.join(more)}")
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
