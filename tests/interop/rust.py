"""The test's end of a `rust_peer` process."""

import asyncio
import itertools
import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PEER = Path(__file__).with_name("rust_peer.py")
PYTHON = os.environ.get("TIDINGS_RUST_PYTHON", sys.executable)  # another environment that has the Rust peers


class RustError(Exception):
    """The Rust peer answered with an error."""


class Rust:
    """``await rust.do("name", key=value)`` runs a command in the peer's process."""

    script = PEER

    def __init__(self, kind):
        self.kind = kind
        self._ids = itertools.count()
        self._waiting = {}

    async def __aenter__(self):
        self._process = await asyncio.create_subprocess_exec(
            PYTHON, str(self.script), self.kind, stdin=-1, stdout=-1, stderr=asyncio.subprocess.DEVNULL, limit=1 << 28
        )
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_):
        self._process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        self._process._transport.close()

    async def do(self, name, /, timeout=30, **arguments):
        id = next(self._ids)
        future = self._waiting[id] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"id": id, "do": name, **arguments}).encode() + b"\n")
        async with asyncio.timeout(timeout):
            return await future

    async def _read(self):
        while line := await self._process.stdout.readline():
            if not line.startswith(b"{"):
                continue
            answer = json.loads(line)
            future = self._waiting.pop(answer["id"], None)
            if future is None or future.done():
                continue
            if "error" in answer:
                future.set_exception(RustError(answer["error"]))
            else:
                future.set_result(answer["ok"])
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(RustError("the Rust peer's process ended"))


def needs(package):
    """Skip where the Rust peer is not installed, with the reason."""
    missing = sys.executable == PYTHON and find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed: pip install --group interop")
