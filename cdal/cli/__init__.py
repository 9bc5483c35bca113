"""The command ``cdal``: its groups of commands, each of which declares its own arguments.

What runs a command is imported when it is called: the parser needs none of the backend's libraries.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from cdal.cli import admin, benchmark, demo, predict, processes, select
from cdal.version import VERSION

GROUPS = (select, processes, admin, predict, benchmark, demo)

PORTABLE = ("select", "benchmark")
"""Commands that do not need a system like Unix: the backend locks files, and gunicorn serves it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; 2 where its arguments are wrong."""
    parser = argparse.ArgumentParser(
        prog="cdal", description="Active learning for images by contextual diversity."
    )
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for group in GROUPS:
        group.add_commands(commands.add_parser)
    arguments = parser.parse_args(argv)
    if arguments.command not in PORTABLE and find_spec("fcntl") is None:
        sys.stderr.write(
            f"cdal {arguments.command} runs on Linux and macOS; on Windows, use Docker or WSL.\n"
        )
        return 1
    status: int = arguments.run(arguments)
    return status
