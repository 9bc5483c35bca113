"""Places for requests: what takes long never holds every thread of the web process.

Label Studio waits one second for an answer to `/health` and `/webhook` and three for `/setup`, so
these have threads of their own.
"""

from __future__ import annotations

from threading import BoundedSemaphore

from flask import Flask, Response, g, jsonify, request

SHORT = frozenset({"/health", "/setup", "/webhook", "/ready"})

BUSY = "The backend is busy with other requests; try again in a minute."


def limit_places(app: Flask, threads: int) -> None:
    """Refuse requests beyond the places that there are for their kind, with 503.

    Args:
        app: to which requests are sent.
        threads: calls of `/predict` at the same time; as many requests of other kinds are besides.
    """
    long = BoundedSemaphore(2 * threads)
    predictions = BoundedSemaphore(threads)

    @app.before_request
    def take() -> Response | None:
        rule = request.url_rule.rule if request.url_rule is not None else ""
        if rule in SHORT:
            return None
        needed = [long, predictions] if rule == "/predict" else [long]
        g.places = []
        for places in needed:
            if not places.acquire(blocking=False):
                answer = jsonify(error=BUSY)
                answer.status = "503 Service Unavailable"
                answer.headers["Retry-After"] = "10"
                return answer
            g.places.append(places)
        return None

    @app.teardown_request
    def give_back(_error: BaseException | None) -> None:
        for places in g.pop("places", []):
            places.release()
