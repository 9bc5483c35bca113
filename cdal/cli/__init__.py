"""The command ``cdal``: its groups of commands, each of which declares its own arguments.

What runs a command is imported when it is called: the parser needs none of the backend's libraries.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from cdal.cli import admin, benchmark, demo, predict, processes, select
from cdal.version import VERSION

GROUPS = (select, processes, admin, predict, benchmark, demo)

PORTABLE = ("select", "benchmark")
"""Commands that do not need a system like Unix: the backend locks files, and gunicorn serves it."""


INTERRUPTED = 130
"""The exit status of a command ended by Ctrl-C, as in shells."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; 2 where its arguments are wrong.

    What the system refuses, such as a full disk or a name that is too long, ends in one sentence on
    standard error, and so does a library that is not installed.
    """
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
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output, such as `head`, wants no more of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        sys.stderr.write(f"cdal {arguments.command}: {where}{error.strerror or error}.\n")
        return 1
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "cdal":
            raise
        extra = "demo" if arguments.command == "demo" else "backend"
        sys.stderr.write(
            f"cdal {arguments.command} needs the library {error.name}, which is not installed: "
            f"pip install 'label-studio-cdal[{extra}]'\n"
        )
        return 1
    return status
