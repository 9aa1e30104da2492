"""Network namespaces: made, used and taken away by name.

A name is ``tidlab-PID-NUMBER-WHAT``. The process id tells who made it, so several labs run side by side, and `sweep`
finds what a lab left behind that was killed: namespaces whose process is gone. Everything else of a lab (interfaces,
addresses, rules) lives inside its namespaces and goes with them; nothing is done to the machine's own network.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["LabError", "Namespace", "Namespaces", "end_with_parent", "run", "sweep"]

PREFIX = "tidlab"
NAME = re.compile(rf"{PREFIX}-(\d+)-\d+-[\w-]+")
RUN = Path("/run/netns")
ETC = Path("/etc/netns")  # `ip netns exec` mounts ETC/NAME/hosts over /etc/hosts
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
COMMAND_TIMEOUT = 30  # seconds; they take milliseconds

libc = ctypes.CDLL(None, use_errno=True)
_labs = itertools.count()


class LabError(Exception):
    """The lab itself cannot be built, or does not do what it claims: no statement about tidings."""


def run(*command: str, input: str | None = None) -> str:
    """What the command printed. Raises LabError with what it complained of."""
    try:
        done = subprocess.run(
            command, input=input, capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=False
        )
    except OSError as error:
        raise LabError(f"{command[0]} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(command)} did not end") from error
    if done.returncode:
        script = f"\n{input}" if input else ""
        raise LabError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}{script}")
    return done.stdout


def end_with_parent() -> None:
    """For a process just forked: be killed when the lab's process ends, however that ends; also while stopped."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Namespace:
    """One that exists; made by `Namespaces.make`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def ip(self, *lines: str) -> None:
        """Commands of ``ip``, without that word, in one process."""
        run("ip", "-n", self.name, "-batch", "-", input="\n".join(lines) + "\n")

    def exec(self, *command: str, input: str | None = None) -> str:
        return run(*self.command(*command), input=input)

    def command(self, *command: str) -> list[str]:
        """The command line that runs it in here; the process that it starts becomes the command."""
        return ["ip", "netns", "exec", self.name, *command]

    def nft(self, rules: str) -> None:
        self.exec("nft", "-f", "-", input=rules)

    def sysctl(self, **values: int) -> None:
        """Names under ``net`` with ``__`` for the dots."""
        lines = [f"echo {value} > /proc/sys/net/{name.replace('__', '/')}" for name, value in values.items()]
        self.exec("sh", "-ec", "\n".join(lines))

    def hosts(self, names: dict[str, list[str]]) -> None:
        """The names that programs in here can resolve, and their addresses."""
        folder = ETC / self.name
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"{addr} {name}" for name, addrs in names.items() for addr in addrs]
        (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", "::1 localhost", *lines]) + "\n")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Sockets that this thread opens meanwhile belong to the namespace, and stay there. Do not await in here."""
        with Path("/proc/thread-self/ns/net").open() as home, (RUN / self.name).open() as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())


def _enter(fd: int) -> None:
    if libc.setns(fd, CLONE_NEWNET):
        raise LabError(f"cannot enter a network namespace: {os.strerror(ctypes.get_errno())}")


class Namespaces:
    """Those of one lab; `close` takes them away, with every process in them."""

    def __init__(self) -> None:
        self._prefix = f"{PREFIX}-{os.getpid()}-{next(_labs)}"
        self._made: list[str] = []

    def make(self, name: str) -> Namespace:
        full = f"{self._prefix}-{name}"
        run("ip", "netns", "add", full)
        self._made.append(full)
        namespace = Namespace(full)
        # Addresses are usable at once: no duplicate address detection.
        namespace.sysctl(ipv6__conf__all__accept_dad=0, ipv6__conf__default__accept_dad=0)
        namespace.ip("link set lo up")
        return namespace

    def close(self) -> None:
        while self._made:
            _remove(self._made.pop())


def sweep() -> list[str]:
    """Take away the namespaces of labs that are no longer; returns their names."""
    if not RUN.is_dir():
        return []
    stale = []
    for path in sorted(RUN.iterdir()):
        found = NAME.fullmatch(path.name)
        if found and not Path(f"/proc/{found[1]}").exists():
            _remove(path.name)
            stale.append(path.name)
    return stale


def _remove(name: str) -> None:
    """Never raises: what cannot be removed now is found by the next sweep."""
    with suppress(LabError):
        for pid in run("ip", "netns", "pids", name).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    with suppress(LabError):
        run("ip", "netns", "del", name)
    shutil.rmtree(ETC / name, ignore_errors=True)
    with suppress(OSError):
        ETC.rmdir()  # ours only where nothing else is in it
