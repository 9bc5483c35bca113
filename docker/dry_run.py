"""Runs the Dockerfile without a container engine, in a separate Debian system.

It creates a folder with a minimal Debian (debootstrap), executes each instruction there, and then
starts what the image would start: as the image's user, with only its environment, on a file system
that is read-only except for /data and /tmp. It waits for the health check, sends a request to the
backend, stops it, and checks what it left. It must run as root, and takes minutes.

Differences from an engine: Python is Debian's, not that of the Python image; there are no layers;
the network and the processes are this machine's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from dockerfile_parse import DockerfileParser
from pathspec import GitIgnoreSpec

CONTEXT = Path(__file__).parents[1]
BASE = "python:3.11-slim-bookworm"
DEBIAN = ("bookworm", "python3,python3-venv,ca-certificates")
PATIENCE = 300.0


@dataclass
class Image:
    """The image as built by the instructions so far."""

    root: Path
    arguments: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(
        default_factory=lambda: {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
        }
    )
    folder: str = "/"
    user: str = "0:0"
    volumes: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def inside(self, path: str) -> Path:
        """The location of a path in the image, absolute or relative to its working folder."""
        return self.root / str(Path(self.folder, path)).lstrip("/")


def build(image: Image, given: Mapping[str, str]) -> None:
    """Execute the Dockerfile, instruction by instruction."""
    with (CONTEXT / "docker" / "Dockerfile").open("rb") as file:
        steps = DockerfileParser(fileobj=file).structure
    for step in steps:
        name, value = step["instruction"], step["value"]
        if name == "COMMENT":
            continue
        say(f"{name} {value[:100]}")
        DOES[name](image, value, given)


def start_from(image: Image, value: str, _given: Mapping[str, str]) -> None:
    if value != BASE:
        raise SystemExit(f"This script stands in for {BASE}, not for {value}.")
    suite, packages = DEBIAN
    if not (image.root / "usr/bin/python3").exists():
        command = ["debootstrap", "--variant=minbase", f"--include={packages}", suite]
        subprocess.run([*command, str(image.root)], check=True, stdout=subprocess.DEVNULL)
    link = image.root / "usr/local/bin/python"
    link.unlink(missing_ok=True)
    link.symlink_to("/usr/bin/python3")
    # This machine decides how to reach the package index.
    for file in ("etc/pip.conf", "etc/resolv.conf", "etc/hosts"):
        if Path("/", file).exists():
            shutil.copy(Path("/", file), image.root / file)
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    shutil.copy(certificates, image.root / str(certificates).lstrip("/"))


def declare(image: Image, value: str, given: Mapping[str, str]) -> None:
    name, _, default = value.partition("=")
    image.arguments[name] = given.get(name, default)


def set_variables(image: Image, value: str, _given: Mapping[str, str]) -> None:
    for pair in value.split():
        name, _, text = pair.partition("=")
        image.environment[name] = Template(text).safe_substitute(image.environment)


def change_folder(image: Image, value: str, _given: Mapping[str, str]) -> None:
    image.folder = str(Path(image.folder, value))
    image.inside(".").mkdir(parents=True, exist_ok=True)


def copy_files(image: Image, value: str, _given: Mapping[str, str]) -> None:
    """Copy the sources, except what .dockerignore excludes."""
    lines = (CONTEXT / ".dockerignore").read_text().splitlines()
    # Unlike git's, its patterns begin at the context's root.
    patterns = [f"!/{line[1:]}" if line[0] == "!" else f"/{line}" for line in lines if line]
    ignored = GitIgnoreSpec.from_lines(patterns)
    *sources, target = value.split()
    for source in sources:
        path = CONTEXT / source
        into = image.inside(target) / ("" if path.is_dir() else path.name)
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        kept = [f for f in files if f.is_file() and not ignored.match_file(f.relative_to(CONTEXT))]
        if not kept:
            raise SystemExit(f"COPY {source}: .dockerignore leaves nothing of it.")
        for file in kept:
            to = into / file.relative_to(path) if path.is_dir() else into
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, to)


def run(image: Image, value: str, _given: Mapping[str, str]) -> None:
    began = time.monotonic()
    environment = {**image.arguments, **image.environment}
    inside = f"mount -t proc proc {image.root}/proc && exec chroot {image.root} /bin/sh -c"
    subprocess.run(
        ["unshare", "--mount", "sh", "-c", f'{inside} "$1"', "sh", f"cd {image.folder} && {value}"],
        check=True,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    say(f"  {time.monotonic() - began:.0f} s")


def change_user(image: Image, value: str, _given: Mapping[str, str]) -> None:
    image.user = value


def declare_volume(image: Image, value: str, _given: Mapping[str, str]) -> None:
    image.volumes.append(value)


def set_health_check(image: Image, value: str, _given: Mapping[str, str]) -> None:
    image.health = json.loads(value.partition(" CMD ")[2])


def set_entry_point(image: Image, value: str, _given: Mapping[str, str]) -> None:
    image.entrypoint = json.loads(value)


def set_command(image: Image, value: str, _given: Mapping[str, str]) -> None:
    image.command = json.loads(value)


DOES = {
    "FROM": start_from,
    "ARG": declare,
    "ENV": set_variables,
    "WORKDIR": change_folder,
    "COPY": copy_files,
    "RUN": run,
    "USER": change_user,
    "VOLUME": declare_volume,
    "EXPOSE": lambda *_: None,
    "HEALTHCHECK": set_health_check,
    "ENTRYPOINT": set_entry_point,
    "CMD": set_command,
}


def contained(image: Image, command: Sequence[str]) -> list[str]:
    """The command as a container would run it: read-only, unprivileged, in the working folder."""
    user, group = image.user.split(":")
    root = image.root
    mounts = [f"mount --bind {root} {root}"]
    mounts += [f"mount --bind {root}{volume} {root}{volume}" for volume in image.volumes]
    mounts += [f"mount -o remount,ro,bind {root}"]
    mounts += [f"mount -t tmpfs -o mode=1777 tmpfs {root}/tmp", f"mount -t proc proc {root}/proc"]
    mounts += [f"mount -t tmpfs tmpfs {root}/dev", f"mkdir {root}/dev/shm"]
    mounts += [f"touch {root}/dev/{name}" for name in ("null", "urandom")]
    mounts += [f"mount --bind /dev/{name} {root}/dev/{name}" for name in ("null", "urandom")]
    unprivileged = f"setpriv --reuid={user} --regid={group} --clear-groups --no-new-privs"
    unprivileged += " --bounding-set=-all --inh-caps=-all"
    enter = f"cd {root} && exec chroot . {unprivileged} /bin/sh -c 'cd {image.folder}; exec \"$@\"'"
    return [
        "unshare",
        "--mount",
        "sh",
        "-ec",
        f'{"; ".join(mounts)}; {enter} sh "$@"',
        "sh",
        *command,
    ]


def try_out(image: Image, port: int) -> None:
    """Start what the image starts, as a container would, and check that it works and ends well."""
    environment = {**image.environment, "PORT": str(port), "CDAL_HOST": "127.0.0.1"}
    volume = image.root / image.volumes[0].lstrip("/")
    command = [*image.entrypoint, *image.command]
    say(f"Starting: {' '.join(command)}")
    process = subprocess.Popen(contained(image, command), env=environment)
    try:
        wait_until_healthy(image, environment, process)
        status = Path(f"/proc/{process.pid}/status").read_text()
        expect("runs as the image's user", f"\nUid:\t{image.user.split(':')[0]}\t" in status)
        expect("no capabilities", "\nCapEff:\t0000000000000000" in status)
        code, body = ask(port, "/setup", {"project": "1.1", "schema": "<View/>"})
        expect("a labeling config is refused in a sentence", code == 400 and "no <Image>" in body)
    finally:
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        ended = process.wait(60)
    expect(f"ended after {time.monotonic() - began:.1f} s with code 0", ended == 0)
    kept = {path.name for path in volume.iterdir()}
    expect("data in the volume", {"cdal.sqlite", "jobs.sqlite", "worker.lock"} <= kept)
    private = all(path.stat().st_uid == int(image.user.split(":")[0]) for path in volume.iterdir())
    expect("files in the volume belong to the user", private)


def wait_until_healthy(
    image: Image, environment: Mapping[str, str], process: subprocess.Popen[bytes]
) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        if process.poll() is not None:
            raise SystemExit(f"Failed: the server ended with code {process.returncode}.")
        checked = subprocess.run(
            contained(image, image.health), env=environment, capture_output=True, check=False
        )
        if checked.returncode == 0:
            break
        if time.monotonic() > deadline:
            raise SystemExit(f"Failed: health check. {checked.stderr.decode()[-300:]}")
        time.sleep(1)
    expect("health check", True)


def ask(port: int, path: str, body: object) -> tuple[int, str]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def expect(what: str, fulfilled: bool) -> None:
    if not fulfilled:
        raise SystemExit(f"Failed: {what}")
    say(f"  passed: {what}")


def say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="the folder in which to create the system")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--port", type=int, default=19090)
    options = parser.parse_args()
    if os.getuid() != 0:
        raise SystemExit("It must run as root, to change the root folder.")
    if (options.root / "opt/cdal").exists():
        raise SystemExit(f"{options.root} was used before; give a new folder.")
    image = Image(options.root.resolve())
    build(image, dict(pair.split("=", 1) for pair in options.build_arg))
    used = subprocess.run(
        ["du", "-sxm", str(image.root)], capture_output=True, text=True, check=False
    ).stdout.split()[0]
    say(f"The whole system takes {used} MB.")
    try_out(image, options.port)
    say("All checks passed.")


if __name__ == "__main__":
    main()
