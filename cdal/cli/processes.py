"""``cdal serve``, ``web``, ``worker`` and ``backup``: the backend's processes and its data."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path


def add_commands(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the commands."""
    serve = add_parser("serve", help="run the backend: web process and worker")
    serve.set_defaults(run=_serve)
    web = add_parser("web", help="run only the web process")
    web.set_defaults(run=_web)
    worker = add_parser("worker", help="run only the worker")
    worker.set_defaults(run=_worker)
    backup = add_parser(
        "backup", help="copy the data folder to a new folder, also while the backend runs"
    )
    backup.add_argument("path", type=Path, metavar="PATH", help="the folder to create")
    backup.set_defaults(run=_backup)


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
