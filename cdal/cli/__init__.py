"""The command ``cdal``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cdal.cli import admin
from cdal.cli import select as select_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and return the exit status: 2 where it was called wrongly."""
    parser = argparse.ArgumentParser(
        prog="cdal", description="Active learning for images by contextual diversity."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    select = commands.add_parser("select", help="pick images from a pool in a file")
    select_command.add_arguments(select)
    select.set_defaults(run=select_command.run)
    serve = commands.add_parser("serve", help="run the backend: web process and worker")
    serve.set_defaults(run=_serve)
    web = commands.add_parser("web", help="run the web process alone")
    web.set_defaults(run=_web)
    worker = commands.add_parser("worker", help="run the worker alone")
    worker.set_defaults(run=_worker)
    backup = commands.add_parser(
        "backup", help="copy the data folder to a new folder, also while the backend runs"
    )
    backup.add_argument("path", type=Path, metavar="PATH", help="the folder to be made")
    backup.set_defaults(run=_backup)
    admin.add_commands(commands.add_parser, _control)
    _add_benchmark(
        commands.add_parser("benchmark", help="simulate active learning: learning curves")
    )
    _add_demo(commands.add_parser("demo", help="a Label Studio with this backend, to try it out"))
    arguments = parser.parse_args(argv)
    status: int = arguments.run(arguments)
    return status


# Imported when called for: the rest of the package needs none of the backend's libraries.
def _serve(_arguments: argparse.Namespace) -> int:
    from cdal.backend.commands import serve

    return serve()


def _web(_arguments: argparse.Namespace) -> int:
    from cdal.backend.commands import web

    return web()


def _worker(_arguments: argparse.Namespace) -> int:
    from cdal.backend.commands import worker

    return worker()


def _backup(arguments: argparse.Namespace) -> int:
    from cdal.backend.commands import backup

    return backup(arguments.path)


def _control(arguments: argparse.Namespace) -> int:
    from cdal.backend.commands import control

    return control(arguments)


def _add_benchmark(benchmark: argparse.ArgumentParser) -> None:
    from cdal.cli.benchmark import add_arguments

    add_arguments(benchmark)
    benchmark.set_defaults(run=_benchmark)


def _benchmark(arguments: argparse.Namespace) -> int:
    from cdal.benchmark.command import run

    return run(arguments)


def _add_demo(demo: argparse.ArgumentParser) -> None:
    demo.add_argument(
        "--task",
        choices=("classification", "segmentation", "detection"),
        help="what is labelled; by default what the images are labelled for, or classification",
    )
    demo.add_argument(
        "--images",
        type=Path,
        metavar="PATH",
        help="a folder or zip of labelled images: class folders, images with masks, or VOC's "
        "layout; without it, the demo draws its own",
    )
    demo.add_argument("--limit", type=_positive, metavar="N", help="label at most N images")
    demo.add_argument("--budget", type=_positive, metavar="N", help="images a round asks for")
    demo.add_argument(
        "--once",
        action="store_true",
        help="label by itself through Label Studio's API, print what came of it, and end",
    )
    demo.add_argument(
        "--rounds", type=_positive, default=3, metavar="N", help="rounds to label with --once"
    )
    demo.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    from cdal.demo.run import Options, run

    return run(
        Options(
            images=arguments.images,
            task=arguments.task,
            limit=arguments.limit,
            rounds=arguments.rounds,
            once=arguments.once,
            budget=arguments.budget,
        )
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number
