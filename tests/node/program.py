"""The command line in processes of its own, as a user or a script runs it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT = 40.0  # seconds for whatever is waited for


def call(node: Path | None, *args: str | bytes | Path) -> list[Any]:
    options = ["--node", node, "--bind", "127.0.0.1:0"] if node is not None else []
    return [sys.executable, "-m", "tidings", *options, *args]


@dataclass(frozen=True)
class Outcome:
    code: int
    out: bytes
    err: str

    def json(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    def text(self) -> str:
        """Standard output of a command that succeeded without a word on standard error."""
        assert (self.code, self.err) == (0, ""), self
        return self.out.decode().strip()

    def refused(self) -> str:
        """The one sentence on standard error of a command that failed as it should."""
        assert self.code == 1, self
        assert self.err.startswith("tidings: ") and self.err.count("\n") == 1, self.err
        assert self.out == b""
        return self.err


async def run(node: Path | None, *args: str | bytes | Path, stdin: bytes = b"", **options: Any) -> Outcome:
    """A command to its end."""
    process = await asyncio.create_subprocess_exec(*call(node, *args), stdin=-1, stdout=-1, stderr=-1, **options)
    async with asyncio.timeout(TIMEOUT):
        out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return Outcome(process.returncode, out, err.decode())


async def ask(node: Path, *args: str | bytes | Path, stdin: bytes = b"") -> bytes:
    """Standard output of a command that succeeds without a word on standard error."""
    outcome = await run(node, *args, stdin=stdin)
    assert (outcome.code, outcome.err) == (0, ""), outcome
    return outcome.out


class Program:
    """A command that goes on until it is ended. ``said`` is every event so far, of one with ``--json``."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log
        self.said: list[dict[str, Any]] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def err(self) -> str:
        return self._log.read_text()

    async def line(self) -> str:
        """The next line of standard output."""
        assert self._process.stdout is not None
        async with asyncio.timeout(TIMEOUT):
            line = await self._process.stdout.readline()
        assert line, f"it ended: {self.err}"
        return line.decode()

    async def hear(self, event: str, fits: Callable[[dict[str, Any]], bool] = lambda event: True) -> dict[str, Any]:
        """The next event of a kind."""
        while True:
            said = await self.next()
            if said["event"] == event and fits(said):
                return said

    async def hear_all(self, wanted: set[tuple[str, str]]) -> None:
        """Of each pair of event and path at least one, in any order."""
        while wanted - {(said["event"], said.get("path", "")) for said in self.said}:
            await self.next()

    async def next(self) -> dict[str, Any]:
        self.said.append(json.loads(await self.line()))
        return self.said[-1]

    async def say(self, line: str) -> None:
        await self.send(line.encode() + b"\n")

    async def send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        await self._process.stdin.drain()

    async def interrupt(self) -> int:
        """Ctrl-C; the exit status."""
        self._process.send_signal(2)
        return await self.ended()

    def finish_input(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def ended(self) -> int:
        assert self._process.stdout is not None
        async with asyncio.timeout(TIMEOUT):
            await self._process.stdout.read()
            return await self._process.wait()

    async def kill(self) -> None:
        """``kill -9``."""
        if self._process.returncode is None:
            self._process.kill()
        await self.ended()


@asynccontextmanager
async def running(node: Path, *args: str | bytes | Path, **options: Any) -> AsyncIterator[Program]:
    """A command that is killed at the end of the block, if it has not ended by then."""
    log = node.with_name(node.name + ".log")
    with log.open("ab") as stderr:
        process = await asyncio.create_subprocess_exec(
            *call(node, *args), stdout=-1, stderr=stderr, limit=1 << 20, **({"stdin": -1} | options)
        )
    program = Program(process, log)
    try:
        yield program
    finally:
        await program.kill()
        transport = process._transport  # type: ignore[attr-defined]
        transport.close()


def without_root_rights() -> None:
    """In a child between fork and exec: root becomes a user for whom the modes of files count."""
    if os.geteuid() == 0:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
