"""The arguments of the commands that watch and steer a backend, whose libraries they leave be."""

from __future__ import annotations

import argparse
from collections.abc import Callable

Add = Callable[..., argparse.ArgumentParser]
Run = Callable[[argparse.Namespace], int]

ENVIRONMENT = (
    "It works on the data folder and database that the environment names (MODEL_DIR, "
    "CDAL_DATABASE_URL), as the backend's own processes do, whether these run or not."
)
STATES = ("pending", "running", "done", "failed", "cancelled")


def add_commands(add_parser: Add, run: Run) -> None:
    """Declare the commands.

    Args:
        add_parser: of the subparsers of ``cdal``.
        run: what runs any of them.
    """

    def add(name: str, text: str, description: str = "") -> argparse.ArgumentParser:
        parser = add_parser(
            name,
            help=text,
            description=f"{description or text[:1].upper() + text[1:] + '.'} {ENVIRONMENT}",
        )
        parser.set_defaults(run=run)
        return parser

    status = add("status", "what the backend is at: worker, projects, rounds, running jobs")
    _project(status, "of this project only", optional=True)
    _watch(status)
    _json(status)
    _json(add("projects", "list the projects, with the numbers that other commands take"))
    jobs = add("jobs", "list jobs, the newest first, with progress and time left")
    _project(jobs, "of this project only", optional=True)
    jobs.add_argument("--state", choices=STATES, help="in this state only")
    jobs.add_argument("--limit", type=_number, default=20, metavar="N", help="default: 20")
    _watch(jobs)
    _json(jobs)
    for name, text, description in (
        ("cancel", "end a job", "End a job: at once where it waits, within seconds where it runs. "
         "A cancelled training leaves the old model serving, a cancelled round the open one."),
        ("retry", "do again what failed", "Have done again what a job that failed or was cancelled "
         "was to do."),
    ):  # fmt: skip
        parser = add(name, text, description)
        parser.add_argument("job", type=_number, metavar="JOB", help="its number, see cdal jobs")
        _json(parser)
    for name, text, description in (
        ("retrain", "train on the labels of now", "Train a project's model on the labels of now."),
        ("rescore", "begin a new round with the serving model", "Score what the serving model has "
         "not seen, select and queue anew, as after a change of settings."),
        ("rollback", "let another model version serve", "Let another model version serve, an older "
         "one or a newer, and begin a round with it. The next training starts from it and is "
         "compared with it."),
        ("pause", "begin nothing new", "Let no training and no round begin by itself. What is "
         "under way ends, and what is queued goes on being served."),
        ("resume", "end a pause", "End a pause, and look what has become due meanwhile."),
        ("forget", "remove all that is kept of a project", "Remove all that the backend keeps of a "
         "project, its models too, as of one that was deleted in Label Studio. What is in Label "
         "Studio stays."),
    ):  # fmt: skip
        parser = add(name, text, description)
        _project(parser, "its number, see cdal projects")
        if name == "rollback":
            parser.add_argument(
                "version", type=_number, metavar="VERSION", help="its number, see cdal status"
            )
        _json(parser)


def _project(parser: argparse.ArgumentParser, text: str, optional: bool = False) -> None:
    if optional:
        parser.add_argument("--project", type=_number, metavar="PROJECT", help=text)
    else:
        parser.add_argument("project", type=_number, metavar="PROJECT", help=text)


def _watch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--watch", action="store_true", help="look again every 2 s, until Ctrl-C")


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON, as under /api/v1")


def _number(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) < 2**31:
        raise argparse.ArgumentTypeError(f'must be a number from 1, not "{text[:40]}"')
    return int(text)
