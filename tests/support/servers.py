"""Real database servers from Debian's packages, started on free ports."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import psycopg
import redis

from cdal.backend.store.database import Store
from cdal.demo.process import free_port
from support.processes import PATIENCE, children, is_alive, wait_until

UNPRIVILEGED = "nobody"  # PostgreSQL refuses to run as root


def find_program(name: str) -> str | None:
    """A program's path; Debian keeps PostgreSQL's in a folder per version."""
    own = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(own[-1]) if own else shutil.which(name)


class DatabaseServer:
    """A server in a folder of its own, which can be stopped, killed and started again."""

    def __init__(self) -> None:
        self.port = free_port()
        # Not below pytest's folder, which only its owner can open.
        self.folder = Path(tempfile.mkdtemp(prefix="cdal-server-"))
        if os.getuid() == 0:
            shutil.chown(self.folder, UNPRIVILEGED)
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                unprivileged(self.command()), stdout=log, stderr=log, cwd=self.folder
            )
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            said = (self.folder / "log").read_text()
            assert self._process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        if self._process is not None:
            # PostgreSQL does not start again before all of its processes are gone.
            others = children(self._process.pid)
            self._process.kill()
            self._process.wait()
            self._process = None
            wait_until("end", lambda: not any(map(is_alive, others)))

    def close(self) -> None:
        """Stop it and remove its folder."""
        if self._process is not None:
            self._process.send_signal(2)
            self._process.wait(PATIENCE)
        shutil.rmtree(self.folder, ignore_errors=True)


class PostgreSQL(DatabaseServer):
    """PostgreSQL, with a database per test where one is needed."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = count(1)
        initdb = [*self._program("initdb"), "--pgdata", str(self.folder / "data")]
        initdb += ["--username", "cdal", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"]
        subprocess.run(unprivileged(initdb), check=True, capture_output=True, cwd=self.folder)

    @staticmethod
    def _program(name: str) -> list[str]:
        found = find_program(name)
        assert found is not None, f"{name} is missing: install Debian's package postgresql"
        return [found]

    def command(self) -> Sequence[str]:
        options = {"port": self.port, "listen_addresses": "127.0.0.1", "fsync": "off"}
        options["unix_socket_directories"] = str(self.folder)
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [*self._program("postgres"), "-D", str(self.folder / "data"), *settings]

    def url(self, database: str) -> str:
        return f"postgresql://cdal@127.0.0.1:{self.port}/{database}"

    def answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True

    def run(self, statement: str) -> list[tuple[object, ...]]:
        """Run a statement as the server's administrator; returns its rows."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def new_database(self) -> str:
        """Create a database and return its address."""
        name = f"test_{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name}")
        return self.url(name)

    def new_store(self) -> str:
        """Create a database with all tables and return its address; migrations take a second."""
        if not self.run("SELECT 1 FROM pg_database WHERE datname = 'migrated'"):
            self.run("CREATE DATABASE migrated")
            Store(self.url("migrated")).close()
        name = f"test_{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE migrated")
        return self.url(name)

    def disconnect_all(self, database_url: str) -> None:
        """Close every connection to a database, as a restart or a firewall does."""
        name = database_url.rpartition("/")[2]
        self.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")


class RedisServer(DatabaseServer):
    """Redis, which keeps nothing on disk."""

    def command(self) -> Sequence[str]:
        program = find_program("redis-server")
        assert program is not None, "redis-server is missing: install Debian's package redis-server"
        return [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


def unprivileged(command: Sequence[str]) -> list[str]:
    """The command as a user other than root."""
    if os.getuid() != 0:
        return list(command)
    user = ["setpriv", f"--reuid={UNPRIVILEGED}", "--regid=nogroup", "--clear-groups"]
    return [*user, *command]
