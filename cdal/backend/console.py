"""What the commands print: the JSON data of `status.py` as lines for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Data = dict[str, Any]


def status_text(data: Data) -> str:
    """The worker, then each project and what is done for it now."""
    blocks = [data["worker"]["text"]]
    blocks += [_project(project) for project in data["projects"]] or [_NONE]
    return "\n\n".join(blocks)


def projects_text(data: Data) -> str:
    """A line a project."""
    if not data["projects"]:
        return _NONE
    rows = [("project", "title", "labelled", "round", "model version", "state")]
    for project in data["projects"]:
        newest = project["rounds"][-1] if project["rounds"] else None
        rows.append(
            (
                str(project["id"]),
                _short(project["title"], 40) or "—",
                f"{project['labelled']} of {project['tasks']}",
                f"{newest['number']} ({newest['state']})" if newest else "—",
                str(project["serving_version"] or "—"),
                "paused" if project["paused_at"] else "problem" if project["problem"] else "well",
            )
        )
    return _table(rows)


def jobs_text(data: Data) -> str:
    """A line a job."""
    if not data["jobs"]:
        return "There are no such jobs."
    rows = [("job", "project", "kind", "state", "asked by", "what")]
    for job in data["jobs"]:
        rows.append(
            (
                str(job["id"]),
                str(job["project"]),
                job["kind"],
                job["state"],
                _short(job["asked_by"], 40),
                _what(job),
            )
        )
    return _table(rows)


_NONE = "No project is connected yet."


def _project(project: Data) -> str:
    lines = [
        f"Project {project['id']}: {_short(project['title'], 60) or 'without a title'} "
        f"(project {project['label_studio_id']} of {project['url']})",
        f"  {project['labelled']} of {project['tasks']} images labelled",
    ]
    if project["rounds"]:
        newest = project["rounds"][-1]
        lines.append(f"  round {newest['number']} is {newest['state']}, by {newest['selector']}")
    for version in project["versions"][-5:]:
        serves = ", serves" if version["number"] == project["serving_version"] else ""
        metric = f", {version['metric']} {version['value']:.3f}" if version["metric"] else ""
        lines.append(f"  model version {version['number']}{metric}{serves}")
    if project["paused_at"]:
        lines.append(f"  paused since {project['paused_at']}")
    if project["problem"]:
        lines.append(f"  problem: {project['problem']}")
    for job in reversed(project["jobs"]):
        if job["state"] in ("pending", "running"):
            lines.append(f"  job {job['id']} ({job['kind']}) {_doing(job)}")
    return "\n".join(lines)


def _doing(job: Data) -> str:
    return "waits" if job["state"] == "pending" else _what(job)


def _what(job: Data) -> str:
    """What a job does now, or what came of it."""
    if job["state"] == "running":
        left = "" if job["seconds_left"] is None else f", {_duration(job['seconds_left'])} left"
        ending = ", is being cancelled" if job["cancelled_by"] else ""
        message = f": {job['message']}" if job["message"] else ""
        return f"{job['progress']:.0%}{left}{ending}{message}"
    if job["state"] == "pending":
        return job["error"] or ""
    return _short(job["error"] or job["outcome"] or "", 100)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _short(text: str, most: int) -> str:
    """One line that holds nothing a terminal would obey."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= most else line[: most - 1] + "…"
