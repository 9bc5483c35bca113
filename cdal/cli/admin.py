"""The commands that watch and steer a backend: their arguments."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

AddParser = Callable[..., argparse.ArgumentParser]

ENVIRONMENT = (
    "The command works on the data folder and database that the environment names (MODEL_DIR, "
    "CDAL_DATABASE_URL), whether or not the backend is running."
)
FORMATS = ("onnx", "torchscript", "safetensors")
STATES = ("pending", "running", "done", "failed", "cancelled")

OF_A_JOB = {
    "cancel": (
        "cancel a job",
        "Cancel a job: at once if it is waiting, within seconds if it is running. After a "
        "cancelled training the old model keeps serving; after a cancelled round the old queue "
        "stays.",
    ),
    "retry": (
        "run a failed or cancelled job again",
        "Run a job that failed or was cancelled again.",
    ),
}
"""Help and description of each command that takes a job."""

OF_A_PROJECT = {
    "retrain": (
        "train a project's model on its current labels",
        "Train a project's model on its current labels.",
    ),
    "rescore": (
        "rank the pool again with the serving model",
        "Rank the pool again with the serving model, for example after a change of settings: score "
        "the images it has not seen, select and queue.",
    ),
    "rollback": (
        "make another model version serve",
        "Make another model version serve, older or newer, and rank the pool with it. The next "
        "training starts from it and is compared with it.",
    ),
    "pause": (
        "start nothing new automatically",
        "Start no training and no round automatically. Running jobs finish, and queued images "
        "are still served.",
    ),
    "resume": ("end a pause", "End a pause, and start what has become due."),
    "forget": (
        "delete everything the backend keeps of a project",
        "Delete everything the backend keeps of a project, including its models, for example "
        "after it was deleted in Label Studio. Nothing changes in Label Studio.",
    ),
}
"""Help and description of each command that takes a project."""


def add_commands(add_parser: AddParser) -> None:
    """Declare the commands."""
    add = partial(_add, add_parser)
    status = add("status", "show the worker, projects, rounds and running jobs")
    _add_project_option(status)
    _add_watch(status)
    add("projects", "list the projects, with the numbers that other commands take")
    jobs = add("jobs", "list jobs, newest first, with progress and time left")
    _add_project_option(jobs)
    jobs.add_argument("--state", choices=STATES, help="only jobs in this state")
    jobs.add_argument(
        "--limit", type=_number, default=20, metavar="N", help="at most N jobs; default: 20"
    )
    _add_watch(jobs)
    for name, (text, description) in OF_A_JOB.items():
        add(name, text, description).add_argument(
            "job", type=_number, metavar="JOB", help="its number, see cdal jobs"
        )
    for name, (text, description) in OF_A_PROJECT.items():
        parser = add(name, text, description)
        parser.add_argument(
            "project", type=_number, metavar="PROJECT", help="its number, see cdal projects"
        )
        if name == "rollback":
            parser.add_argument(
                "version", type=_number, metavar="VERSION", help="its number, see cdal status"
            )
    _add_export(add)


def _add_export(add: Callable[..., argparse.ArgumentParser]) -> None:
    parser = add(
        "export",
        "write a model version for other programs",
        "Write a model version as ONNX, TorchScript or safetensors, with a description beside it, "
        "and check that it says what the model says. See docs/export.md.",
    )
    parser.add_argument(
        "project", type=_number, metavar="PROJECT", help="its number, see cdal projects"
    )
    parser.add_argument(
        "version",
        type=_number,
        nargs="?",
        metavar="VERSION",
        help="its number, see cdal status; default: the version that serves",
    )
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="default: onnx")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="the folder to create; default: project-PROJECT-version-VERSION-FORMAT",
    )


def _add(
    add_parser: AddParser, name: str, text: str, description: str = ""
) -> argparse.ArgumentParser:
    description = description or f"{text[:1].upper()}{text[1:]}."
    parser = add_parser(name, help=text, description=f"{description} {ENVIRONMENT}")
    parser.add_argument("--json", action="store_true", help="print JSON, as /api/v1 returns it")
    parser.set_defaults(run=_run)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from cdal.backend.commands import control

    return control(arguments)


def _add_project_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--project", type=_number, metavar="PROJECT", help="only this project")


def _add_watch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--watch", action="store_true", help="refresh every 2 s until Ctrl-C")


def _number(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) < 2**31:
        raise argparse.ArgumentTypeError(f'must be a number from 1, not "{text[:40]}"')
    return int(text)
