"""``tidings doc`` in processes, as scripts use it."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

from nodes import LOOPBACK, until
from program import Outcome, ask, run, running
from tidings import DocTicket, Node

UNREACHABLE = (
    "docaaacbn3fdiukqrbvevwjzitlxiyixpsgoii5yoisoontsvdsomtyvlokahafhllbyttoo5qlf3tiexmuydutscct3ilagtka6k42a3ozl4dbcaib"
    "ab7qaaabugcqg"
)


def test_one_node_from_new_to_rm(here: Callable[..., Outcome], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(random.Random(1).randbytes(1_000_000))
    doc = here("doc", "new").text()
    assert len(doc) == 64
    assert here("doc", "list").text() == f"{doc}  write"
    assert here("doc", "set", doc, "a/text", "grüße").text().endswith("  7 bytes")
    [entry] = here("--json", "doc", "set", doc, "a/stdin", "-", stdin=b"\0\xff\n").json()
    assert (entry["key"], entry["size"], entry["key_hex"]) == ("a/stdin", 3, b"a/stdin".hex())
    assert here("doc", "set", doc, b"odd\xff", f"@{file}").text().endswith("  1000000 bytes")
    assert here("doc", "get", doc, "a/text").out == "grüße".encode()
    assert here("doc", "get", doc, "a/stdin").out == b"\0\xff\n"
    assert here("doc", "get", doc, b"odd\xff").out == file.read_bytes()
    assert here("--json", "doc", "get", doc, "a/stdin").json() == [entry]
    assert [row.split()[-1] for row in here("doc", "ls", doc, "a/").text().splitlines()] == ["a/stdin", "a/text"]
    rows = here("--json", "doc", "ls", doc).json()
    assert [row["key"] for row in rows] == ["a/stdin", "a/text", "odd\\xff"]
    assert here("doc", "rm", doc, "a/").text() == "2 deleted"
    assert here("--json", "doc", "rm", doc, "a/").json() == [{"deleted": 0}]
    assert "nothing at 'a/text'" in here("doc", "get", doc, "a/text").refused()
    assert here("--json", "doc", "ls", doc).json() == [rows[2]]


def test_what_cannot_be_set_or_found(here: Callable[..., Outcome], tmp_path: Path) -> None:
    doc = here("doc", "new").text()
    (tmp_path / "empty").touch()
    for args, hint in {
        (doc, "k", "-"): "empty value",
        (doc, "k", f"@{tmp_path}/empty"): "empty value",
        (doc, "k", f"@{tmp_path}/missing"): "cannot read",
        (doc, "k", f"@{tmp_path}"): "not a regular file",
        (doc, "k" * 5000, "v"): "key",
        ("zz", "k", "v"): "64 hexadecimal digits",
        ("0" * 64, "k", "v"): "join it with a ticket",
    }.items():
        assert hint in here("doc", "set", *args).refused()
    assert here("doc", "ls", doc).out == b""


async def test_share_join_and_watch(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    large = random.Random(2).randbytes(3_000_000)
    async with Node.open(a, bind=LOOPBACK) as node:
        document = await node.docs.create()
        await document.set("first", b"1")
        await document.set("large", large)
        doc = str(document.id)
    async with running(a, "doc", "share", doc) as share:
        ticket = (await share.line()).strip()
        assert await ask(b, "doc", "join", ticket) == f"{doc}  2 keys\n".encode()
        assert await share.interrupt() == 130
        assert share.err == ""
    assert "ticket" in (await run(b, "doc", "set", doc, "k", "v")).refused()  # the ticket was to read
    # Contents are there without the one who shared.
    assert await ask(b, "doc", "get", doc, "large") == large
    async with running(a, "--json", "doc", "share", "--write", doc) as share:
        ticket = (await share.hear("ticket"))["ticket"]
        [said] = (await run(b, "--json", "doc", "join", ticket)).json()
        assert said == {"id": doc, "keys": 2}
        async with running(b, "--json", "doc", "watch", doc, "f") as watch:
            await watch.hear("sync", lambda event: not event["error"])
            await share.kill()
            async with Node.open(a, bind=LOOPBACK) as node:
                document = await node.docs.open(doc)
                await document.set("other", b"unseen")
                await document.delete("first")
                await watch.hear("delete")
            assert (watch.said[-1]["key"], watch.said[-1]["size"]) == ("first", 0)
            assert not [event for event in watch.said if event.get("key") == "other"]


def test_a_join_that_nobody_answers(here: Callable[..., Outcome]) -> None:
    said = here("doc", "join", "--timeout", "0.3", UNREACHABLE).refused()
    assert "not synced within 0.3 s" in said and "check that" in said
    [doc] = here("--json", "doc", "list").json()  # kept, to be tried again
    assert str(DocTicket.parse(UNREACHABLE)) == UNREACHABLE and doc["id"] == str(DocTicket.parse(UNREACHABLE).id)


async def test_output_into_a_pipe_that_closes(tmp_path: Path) -> None:
    doc = (await ask(tmp_path, "doc", "new")).decode().strip()
    await ask(tmp_path, "doc", "set", doc, "k", "-", stdin=bytes(2_000_000))
    async with running(tmp_path, "doc", "get", doc, "k") as get:
        assert get._process.stdout is not None
        await get._process.stdout.read(1)
        get._process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
        await asyncio.wait_for(get._process.wait(), 40)
        await until(lambda: get._process.returncode is not None)
        assert "Traceback" not in get.err
