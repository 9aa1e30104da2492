"""``tidings demo``: the main job for real, watched.

Two processes of this command, each with a node and a folder of its own, find each other by public key over QUIC, sync a
few hundred real files, carry live edits, survive a kill and a restart, and must agree to the byte.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import typer

from ..docs_sync.model.paths import is_temporary
from .output import Output

__all__ = ["demonstrate"]

STEP_TIMEOUT = 60.0  # seconds for one step before the demo gives up
LARGE = 24 << 20  # bytes of the one large file


async def demonstrate(output: Output, files: int) -> None:
    """Exit status 1 where the two folders differ in a byte at any step."""
    with tempfile.TemporaryDirectory(prefix="tidings-demo-") as scratch:
        demo = Demo(output, Path(scratch))
        try:
            await demo.run(files)
        finally:
            await demo.stop()


class Device:
    """One process of ``tidings sync`` with its folder, told apart by a name."""

    def __init__(self, name: str, scratch: Path) -> None:
        self.name = name
        self.folder = scratch / name
        self._node = scratch / f"{name}-node"
        self._process: asyncio.subprocess.Process | None = None
        self.log = scratch / f"{name}.log"

    async def start(self, ticket: str | None = None) -> dict[str, str]:
        """Start the process; what it says of itself: ``id``, ``document``, ``ticket``."""
        call = [sys.executable, "-m", "tidings", "--json", "--node", str(self._node), "--bind", "127.0.0.1:0"]
        call += ["sync", str(self.folder), *([ticket] if ticket else [])]
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(*call, stdout=-1, stderr=log)
        assert self._process.stdout is not None
        async with asyncio.timeout(STEP_TIMEOUT):
            while line := await self._process.stdout.readline():
                event = json.loads(line)
                if event["event"] == "started":
                    self._drain = asyncio.create_task(self._read(self._process.stdout))
                    return dict(event)
        raise RuntimeError(f"{self.name} did not start: {self.log.read_text()}")

    async def _read(self, stdout: asyncio.StreamReader) -> None:
        while await stdout.read(65_536):
            pass

    async def kill(self) -> None:
        """``kill -9``: no word to anybody."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
            await self._drain

    def digest(self) -> dict[str, str]:
        """SHA-256 of every file by its path."""
        out = {}
        for path in sorted(self.folder.rglob("*")):
            relative = path.relative_to(self.folder)
            if relative.parts[0].startswith(".tidings") or is_temporary(path.name) or not path.is_file():
                continue
            with suppress(FileNotFoundError), path.open("rb") as file:  # it may go just now: the next look tells
                out[str(relative)] = hashlib.file_digest(file, "sha256").hexdigest()
        return out


class Demo:
    def __init__(self, output: Output, scratch: Path) -> None:
        self._output = output
        self.laptop = Device("laptop", scratch)
        self.phone = Device("phone", scratch)
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        seconds = time.monotonic() - self._began
        self._output.event("demo", f"{seconds:5.1f} s  {text}", seconds=round(seconds, 3), what=text)

    async def run(self, count: int) -> None:
        size = await asyncio.to_thread(copy_sources, self.laptop.folder, count)
        files = len(self.laptop.digest())
        self.say(f"laptop: a folder with {files} source files of the Python standard library, {size / 1e6:.1f} MB")
        started = await self.laptop.start()
        self.say(f"laptop: process started, it is {started['id'][:10]}; document {started['document'][:10]}")
        joined = await self.phone.start(started["ticket"])
        self.say(
            f"phone:  another process, it is {joined['id'][:10]}; it dialled the laptop's key and joined the swarm"
        )
        await self.agree(f"phone has all {files} files")

        (self.laptop.folder / "live.txt").write_text("typed on the laptop\n")
        await self.agree("an edit on the laptop is on the phone")
        (self.phone.folder / "live.txt").write_text("typed on the laptop\nand on the phone\n")
        victim = next(iter(self.laptop.digest()))
        (self.laptop.folder / victim).unlink()
        await self.agree(f"an edit on the phone is on the laptop, and {victim} is deleted on both")
        (self.phone.folder / "film.bin").write_bytes(os.urandom(LARGE))
        await self.agree(f"a file of {LARGE >> 20} MiB, verified group by group")

        await self.phone.kill()
        self.say("phone:  killed (kill -9)")
        (self.laptop.folder / "while-away.txt").write_text("written while the phone was dead\n")
        (self.phone.folder / "offline.txt").write_text("written on the phone while its process was dead\n")
        another = sorted(self.laptop.digest())[1]
        (self.laptop.folder / another).unlink()
        await asyncio.sleep(2)
        await self.phone.start()
        self.say("phone:  started again, without a ticket: it remembers the document and the peers")
        await self.agree("both have what was written meanwhile, and what was deleted is gone")
        self.say(f"laptop and phone agree in {len(self.laptop.digest())} files, to the byte")

    async def agree(self, what: str) -> None:
        """Wait until both folders hold the same bytes, and go on holding them for a moment."""
        began = time.monotonic()
        same: Callable[[], bool] = lambda: self.laptop.digest() == self.phone.digest()  # noqa: E731
        while not await asyncio.to_thread(same):
            if time.monotonic() - began > STEP_TIMEOUT:
                self.say(f"FAILED: {what}: after {STEP_TIMEOUT:.0f} s the folders still differ")
                for path in differences(self.laptop.digest(), self.phone.digest()):
                    self.say(f"  {path}")
                for device in (self.laptop, self.phone):
                    if text := device.log.read_text():
                        self.say(f"{device.name} said: {text}")
                raise typer.Exit(1)
            await asyncio.sleep(0.05)
        self.say(f"ok     {what}  ({time.monotonic() - began:.2f} s)")

    async def stop(self) -> None:
        for device in (self.laptop, self.phone):
            await device.kill()


def copy_sources(folder: Path, count: int) -> int:
    """Copy ``count`` of the standard library's own sources with their folders; bytes copied."""
    library = Path(sysconfig.get_paths()["stdlib"])
    sources = (
        path
        for path in sorted(library.rglob("*.py"))
        if not {"site-packages", "test", "tests", "__pycache__"} & set(path.relative_to(library).parts)
    )
    size = 0
    for _, path in zip(range(count), sources, strict=False):
        target = folder / path.relative_to(library)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        size += target.stat().st_size
    return size


def differences(a: dict[str, str], b: dict[str, str]) -> list[str]:
    return [path for path in sorted(a.keys() | b.keys()) if a.get(path) != b.get(path)][:20]
