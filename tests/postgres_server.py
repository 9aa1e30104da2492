"""A real PostgreSQL server for the tests: its own, on a free port, in a temporary directory, gone afterwards.

Its programs are looked for on the path and where Debian puts them (``apt-get install postgresql``). The server refuses
to run as root: then it runs as the user ``postgres`` or ``nobody``. `find` says why there can be none here.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

TIMEOUT = 30.0  # seconds for the server to start or to stop


class CannotStart(Exception):
    """There is no server on this machine, or it does not run; the message is for the report of skipped tests."""


def find(program: str) -> str:
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which(program) or next((str(p / program) for p in places if (p / program).exists()), None)
    if found is None:
        raise CannotStart("PostgreSQL is not installed: apt-get install postgresql")
    return found


class PostgresServer:
    """Made by `create`. It can be stopped and started again, on the same port."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.port = port
        self._databases = 0
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def create(cls) -> PostgresServer:
        initdb = find("initdb")
        directory = Path(tempfile.mkdtemp(prefix="tidings-pg-"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            server = cls(directory, free.getsockname()[1])
        try:
            if os.geteuid() == 0:
                os.chown(directory, *_somebody())
            options = ["--auth=trust", "--username=tidings", "--encoding=UTF8", "--no-locale", "--no-sync"]
            made = server._run([initdb, *options, str(directory / "data")])
            if made.wait(TIMEOUT):
                log = (directory / "log").read_text(errors="replace")
                raise CannotStart(f"initdb failed: {log[-500:]}")
            server.start()
        except BaseException:
            server.remove()
            raise
        return server

    def start(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.directory,
            "fsync": "off",  # nothing here is about the server's disk
            "shared_buffers": "16MB",
            "max_wal_size": "128MB",
        }
        options = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        # Where the tests are killed, the server ends with them.
        setpriv = shutil.which("setpriv")
        tied = [setpriv, "--pdeathsig=INT", "--"] if setpriv else []
        self._process = self._run([*tied, find("postgres"), "-D", str(self.directory / "data"), *options])
        end = time.monotonic() + TIMEOUT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                log = (self.directory / "log").read_text(errors="replace")
                raise CannotStart(f"PostgreSQL does not start: {log[-500:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """At once: clients lose their connections, what was committed stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(TIMEOUT)
            finally:
                self._process.kill()
                self._process.wait()
                self._process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def new_database(self) -> str:
        """The URL of a new empty database."""
        self._databases += 1
        name = f"test{self._databases}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://tidings@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement from outside of tidings, in a transaction of its own."""
        import psycopg

        conninfo = f"host=127.0.0.1 port={self.port} user=tidings dbname={database} connect_timeout=10"
        with psycopg.connect(conninfo, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _answers(self) -> bool:
        import psycopg

        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        identity: dict[str, object] = {}
        if os.geteuid() == 0:
            user, group = _somebody()
            identity = {"user": user, "group": group, "extra_groups": ()}
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=self.directory, **identity)  # type: ignore[call-overload, no-any-return]


def _somebody() -> tuple[int, int]:
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise CannotStart("PostgreSQL does not run as root, and there is no user postgres or nobody")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for the session. A test that stops it starts it again."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'psycopg[binary]'")
    try:
        server = PostgresServer.create()
    except CannotStart as reason:
        pytest.skip(str(reason))
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """The URL of an empty database of this test's own."""
    return postgres.new_database()
