"""The lab's end of the processes that run in its namespaces: agents and relays, and their logs."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from .cable import ROOT
from .namespaces import LabError, end_with_parent
from .topology import RELAY_PORT, Device, Host

__all__ = ["Agent", "AgentError", "Relay"]

START_TIMEOUT = 20.0  # seconds; imports take one on a busy machine
MARGIN = 5.0  # seconds for the answer, beyond the time that the agent itself is given


class AgentError(Exception):
    """An agent could not do what it was told; ``kind`` is the name of its error."""

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text)
        self.kind = kind


class Process:
    """A child in a namespace. Its standard error is appended to a log."""

    def __init__(self, place: Device | Host, log: Path) -> None:
        self.place, self._log = place, log
        self._process: asyncio.subprocess.Process | None = None

    async def _start(self, *command: str) -> asyncio.subprocess.Process:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.place.namespace.command(sys.executable, *command),
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                preexec_fn=end_with_parent,
            )
        return self._process

    def signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def stop(self) -> None:
        """As a closed lid does."""
        self.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.signal(signal.SIGCONT)

    async def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.wait()
            process._transport.close()  # or its pipes complain of a closed loop


class Agent(Process):
    """``await agent.do("ping", peer=0)``: see `benchmarks.lab.agent`."""

    def __init__(self, place: Device, log: Path) -> None:
        super().__init__(place, log)
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future] = {}
        self._reading: asyncio.Task | None = None

    async def __aenter__(self) -> Agent:
        process = await self._start("-m", "benchmarks.lab.agent")
        self._reading = asyncio.create_task(self._read(process.stdout))
        try:
            self.features = await self.do("features", patience=START_TIMEOUT)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()
        await self._reading

    async def do(self, name: str, *, patience: float | None = None, **arguments):
        """Waits as long as the agent may take by its ``timeout``, and a little. Raises AgentError."""
        if self._process is None or self._reading.done():
            raise AgentError(f"the process of {self.place.name} has ended", "Ended")
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"n": number, "do": name, **arguments}).encode() + b"\n")
        try:
            async with asyncio.timeout(patience or arguments.get("timeout", 60) + MARGIN):
                return await future
        except TimeoutError:
            raise AgentError(f"{self.place.name} did not answer to {name} in time", "Timeout") from None
        finally:
            self._waiting.pop(number, None)

    async def _read(self, lines: asyncio.StreamReader) -> None:
        while line := await lines.readline():
            answer = json.loads(line)
            future = self._waiting.get(answer["n"])
            if future is None or future.done():
                continue
            if "error" in answer:
                future.set_exception(AgentError(answer["error"], answer["type"]))
            else:
                future.set_result(answer["ok"])
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(AgentError(f"the process of {self.place.name} ended", "Ended"))


class Relay(Process):
    """``tidings relay`` on a host, for everyone, with address discovery where it has that."""

    def __init__(self, place: Host, log: Path, folder: Path, *, both_families: bool) -> None:
        super().__init__(place, log)
        self._config = folder / f"{place.name}.toml"
        self._both = both_families
        self.discovery: bool | None = None

    @property
    def url(self) -> str:
        """By address where it serves IPv4 alone, by name where it serves both families."""
        return f"http://{self.place.name if self._both else self.place.v4}:{RELAY_PORT}/"

    async def __aenter__(self) -> Relay:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def start(self) -> None:
        """Also again after `kill`. LabError where it does not listen soon, for every family that it is to serve."""
        bind = "[::]" if self._both else "0.0.0.0"
        base = f'http_bind_addr = "{bind}:{RELAY_PORT}"\nenable_metrics = false\n'
        for discovery in [True, False] if self.discovery is None else [self.discovery]:
            self._config.write_text(base + ("enable_quic_addr_discovery = true\n" if discovery else ""))
            if await self._serve():
                self.discovery = discovery
                self._check_families(bind)
                return
        raise LabError(f"the relay does not start: see {self._log}")

    def _check_families(self, bind: str) -> None:
        for host, family in ((self.place.v4, socket.AF_INET), (self.place.v6, socket.AF_INET6))[: 1 + self._both]:
            with self.place.namespace.entered():
                trying = socket.socket(family)
            with trying:
                if trying.connect_ex((host, RELAY_PORT)):
                    raise LabError(f"the relay that listens at {bind} is not to be reached at {host}")

    async def _serve(self) -> bool:
        process = await self._start("-m", "tidings", "--json", "relay", "--config", str(self._config))
        try:
            async with asyncio.timeout(START_TIMEOUT):
                line = await process.stdout.readline()
        except TimeoutError:
            line = b""
        if not line:
            await self.kill()
        return bool(line)
