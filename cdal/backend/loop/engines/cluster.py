"""The Ray cluster: connecting to it, and what went wrong on it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, Full, Queue
from threading import Event, Lock, Thread
from typing import TypeVar

import ray
import torch
from ray.exceptions import RayError

from cdal.backend.errors import BackendError, ClusterError
from cdal.models import ModelError, Stopped

KNOWN = (BackendError, ModelError, Stopped, torch.OutOfMemoryError)
"""What our own code on the cluster raises."""

LOOK_SECONDS = 0.5

ANSWER_SECONDS = 5.0

_connecting = Lock()

Item = TypeVar("Item")


def connect(address: str) -> None:
    """Connect this process to the cluster, unless it is.

    Raises:
        ClusterError: it does not answer, or this machine is none of its nodes.
    """
    with _connecting:
        if ray.is_initialized():
            return
        try:
            _check_it_answers(address)
            ray.init(address=address, log_to_driver=False, logging_level="warning")
        except (OSError, RuntimeError, ValueError) as error:
            ray.shutdown()
            raise ClusterError(
                f"The Ray cluster at {address} cannot be used: {_first_line(error)}"
            ) from error


def _check_it_answers(address: str) -> None:
    """Raise an `OSError` if nothing answers at ``host:port``, for which Ray would wait for minutes.

    "auto" needs no check: Ray looks for the processes of a cluster on this machine.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()


def count_of(resource: str) -> int:
    """How many of a resource, such as "GPU", the cluster's nodes have."""
    return int(ray.cluster_resources().get(resource, 0))


def device_for(wanted: str) -> str:
    """The kind of device on which networks run on the cluster, given the server's setting."""
    return "cuda" if wanted != "cpu" and count_of("GPU") else "cpu"


@contextmanager
def our_errors() -> Iterator[None]:
    """Turns Ray's errors into those that our code raised on the cluster, or a `ClusterError`."""
    try:
        yield
    except RayError as error:
        raise _cause_of(error) from error


def _cause_of(error: BaseException) -> Exception:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KNOWN):
            return cause
        cause = getattr(cause, "cause", None) or cause.__cause__
    return ClusterError(f"A job on the Ray cluster failed: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def in_background(results: Iterator[Item], check_stop: Callable[[], None]) -> Iterator[Item]:
    """The results, which another thread waits for, so that the job can be stopped meanwhile.

    Args:
        results: what waits for the cluster.
        check_stop: called about twice per second; what it raises ends the job.
    """
    ahead: Queue[Item | BaseException | None] = Queue(maxsize=2)
    ended = Event()
    Thread(target=_wait, args=(results, ahead, ended), name="cdal-ray", daemon=True).start()
    try:
        while True:
            check_stop()
            try:
                item = ahead.get(timeout=LOOK_SECONDS)
            except Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        ended.set()


def _wait(results: Iterator[Item], ahead: Queue[Item | BaseException | None], ended: Event) -> None:
    """Put the results into the queue, then None or what went wrong, until nobody wants more."""

    def put(item: Item | BaseException | None) -> None:
        while not ended.is_set():
            with suppress(Full):
                ahead.put(item, timeout=LOOK_SECONDS)
                return

    try:
        for item in results:
            put(item)
            if ended.is_set():
                return
    except BaseException as error:  # noqa: BLE001 — it is raised in the job's thread
        put(error)
    put(None)
