"""``tidings chat``: a room is a gossip topic, a line is a message.

A message is JSON with the sender's name, its text and a nonce (the protocol swallows equal bytes). Gossip does not
prove who wrote a message: a name is what its sender claims.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from os import fstat

from ..gossip import NeighborDown, NeighborUp, Received
from ..gossip.errors import JoinTimeout
from ..transport import EndpointTicket
from .command import Context
from .output import printable

__all__ = ["talk"]

MAX_TEXT = 900  # characters, four bytes each at most: they fit one gossip message; a longer line is said in pieces
MAX_NAME = 40
JOIN_TIMEOUT = 10.0  # seconds until lines are read though nobody of the tickets has answered
MAX_WAITING = 65_536  # bytes of a line that are held until its end comes
READ = 65_536  # bytes


async def talk(context: Context, room: str, tickets: list[str], name: str) -> None:
    peers = [EndpointTicket.parse(ticket).addr for ticket in tickets]
    output = context.output
    async with context.open_node() as node:
        ticket = str(EndpointTicket(node.addr()))
        output.event("ticket", f"Others join with: tidings chat {room!r} {ticket}", ticket=ticket)
        async with await node.gossip.subscribe(f"tidings chat {room}", bootstrap=peers) as topic:

            async def listen() -> None:
                async for event in topic:
                    match event:
                        case NeighborUp(peer):
                            output.event("up", f"({peer.short()} is here)", peer=str(peer))
                        case NeighborDown(peer):
                            output.event("down", f"({peer.short()} is gone)", peer=str(peer))
                        case Received(content):
                            if (said := _read(content)) is not None:
                                output.event("message", f"{said[0]}: {said[1]}", name=said[0], said=said[1])

            listening = asyncio.create_task(listen())
            try:
                if peers:  # a line said before anybody is there is heard by nobody
                    with suppress(JoinTimeout):
                        await topic.joined(JOIN_TIMEOUT)
                async for line in _lines():
                    for start in range(0, len(line), MAX_TEXT):
                        await topic.broadcast(_message(name, line[start : start + MAX_TEXT]))
                await asyncio.sleep(0.2)  # the last line leaves before we do
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)


def _message(name: str, text: str) -> bytes:
    said = {"name": _printable(name)[:MAX_NAME], "text": text, "nonce": secrets.token_hex(4)}
    return json.dumps(said, ensure_ascii=False).encode()


def _read(content: bytes) -> tuple[str, str] | None:
    """Name and text of a message, without control characters; None for bytes that are none."""
    try:
        message = json.loads(content)
        name, text = message["name"], message["text"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(name, str) or not isinstance(text, str):
        return None
    return _printable(name)[:MAX_NAME], _printable(text)


def _printable(text: str) -> str:
    return printable(text, instead="")


async def _lines() -> AsyncIterator[str]:
    """The lines of standard input as they come, from a terminal, a pipe or a file, without control characters."""
    rest = b""
    async for data in _input():
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > MAX_WAITING:
            lines, rest = [*lines, rest], b""
        for line in lines:
            yield _printable(line.decode(errors="replace"))
    yield _printable(rest.decode(errors="replace"))


async def _input() -> AsyncIterator[bytes]:
    if sys.stdin is None:
        return
    mode = fstat(sys.stdin.fileno()).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or sys.stdin.isatty()):  # the event loop waits for no other
        while data := await asyncio.to_thread(sys.stdin.buffer.read, READ):
            yield data
        return
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        while data := await reader.read(READ):
            yield data
    finally:
        transport.close()
