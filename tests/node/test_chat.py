"""``tidings chat`` between processes over pipes."""

import asyncio
from pathlib import Path

import pytest
from program import Program, running


async def finished(program: Program) -> int:
    """The exit status at the end of standard input."""
    program.finish_input()
    return await program.ended()


async def test_two_talk(tmp_path: Path) -> None:
    async with running(tmp_path / "a", "--json", "chat", "room", "--name", "ana") as ana:
        ticket = (await ana.hear("ticket"))["ticket"]
        async with running(tmp_path / "b", "--json", "chat", "room", ticket, "--name", "ben\x1b[31m") as ben:
            await asyncio.gather(ana.hear("up"), ben.hear("up"))
            await ana.say("hällo")
            assert (await ben.hear("message"))["said"] == "hällo"
            await ben.say("first\x07")
            await ben.say("")
            await ben.say("first")
            for _ in range(2):
                assert (await ana.hear("message")).items() >= {"name": "ben[31m", "said": "first"}.items()
            await ben.say("€" * 3000)
            said = ""
            while len(said) < 3000:
                said += (await ana.hear("message"))["said"]
            assert said == "€" * 3000
            assert await finished(ben) == 0 and ben.err == ""
            await ana.hear("down")
        assert await ana.interrupt() in (0, 130)
        assert "Traceback" not in ana.err


@pytest.mark.parametrize("source", ["file", "pipe"])
async def test_what_is_piped_in_is_heard(tmp_path: Path, source: str) -> None:
    """Lines wait for a peer of the ticket, are cut where they are long, and may be any bytes."""
    data = b"one\n\xff\xfe\n" + b"x" * 150_000 + b"\nlast"
    (tmp_path / "input").write_bytes(data)
    async with running(tmp_path / "a", "--json", "chat", "room") as ana:
        ticket = (await ana.hear("ticket"))["ticket"]
        with (tmp_path / "input").open("rb") as file:
            options = {"stdin": file} if source == "file" else {}
            async with running(tmp_path / "b", "chat", "room", ticket, "--name", "ben", **options) as ben:
                if source == "pipe":
                    await ben.send(data)
                    ben.finish_input()
                assert "Others join" in await ben.line()
                assert (await ana.hear("message"))["said"] == "one"
                assert (await ana.hear("message"))["said"] == "\N{REPLACEMENT CHARACTER}" * 2
                await ana.hear("message", lambda event: event["said"] == "last")
                assert sum(len(event["said"]) for event in ana.said if "said" in event) == 150_000 + 9
                assert await ben.ended() == 0
                assert ben.err == ""


async def test_no_input_at_all(tmp_path: Path) -> None:
    async with running(tmp_path / "a", "--json", "chat", "room", stdin=asyncio.subprocess.DEVNULL) as ana:
        await ana.hear("ticket")
        assert await ana.ended() == 0
        assert ana.err == ""
