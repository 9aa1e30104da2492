"""The examples as a user runs them: processes, terminals replaced by pipes."""

import asyncio
import sys
from contextlib import asynccontextmanager
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


class Program:
    def __init__(self, process):
        self._process = process

    async def say(self, line):
        self._process.stdin.write(line.encode() + b"\n")
        await self._process.stdin.drain()

    async def hear(self, start, timeout=20):
        """The rest of the next line that begins with ``start``."""
        async with asyncio.timeout(timeout):
            while line := await self._process.stdout.readline():
                if line.decode().startswith(start):
                    return line.decode()[len(start) :].strip()
        raise AssertionError(f"the program ended without saying {start!r}")


@asynccontextmanager
async def program(name, *args):
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLES / name), *args, stdin=-1, stdout=-1, limit=1 << 20
    )
    try:
        yield Program(process)
    finally:
        process.kill()
        await process.wait()
        process._transport.close()


def test_the_chat_example_is_short():
    assert len((EXAMPLES / "chat.py").read_text().splitlines()) < 60


async def test_three_chatters_hear_each_other():
    async with program("chat.py", "ana") as ana:
        ticket = await ana.hear("ticket:")
        async with program("chat.py", "ben", ticket) as ben:
            await ben.hear("*")
            async with program("chat.py", "cy", ticket) as cy:
                await cy.hear("*")
                await asyncio.sleep(1)
                await cy.say("hello from cy")
                assert await ana.hear("cy:") == "hello from cy"
                assert await ben.hear("cy:") == "hello from cy"
                await ana.say("and from ana")
                assert await cy.hear("ana:") == "and from ana"


async def test_notes_written_on_one_side_are_indexed_on_the_other(tmp_path):
    async with program("notes.py", str(tmp_path / "a")) as a:
        ticket = await a.hear("ticket:")
        await a.say("first written before anybody came")
        await a.hear("+ note/first:")
        async with program("notes.py", str(tmp_path / "b"), ticket) as b:
            assert await b.hear("1 notes") == ""
            await b.say("second from the other side")
            assert await a.hear("+ note/second:") == "from the other side"
            await a.say("third live")
            assert await b.hear("+ note/third:") == "live"
            await b.say("second")
            await a.hear("- note/second")
        async with program("notes.py", str(tmp_path / "b")) as again:
            assert await again.hear("2 notes") == ""
