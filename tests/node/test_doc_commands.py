"""``tidings doc`` in processes, as scripts use it."""

import asyncio
import json
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
    assert [row.split()[-1] for row in here("doc", "ls", doc, "--prefix", "a/").text().splitlines()] == [
        "a/stdin",
        "a/text",
    ]
    rows = here("--json", "doc", "ls", doc).json()
    assert [row["key"] for row in rows] == ["a/stdin", "a/text", "odd\\xff"]
    assert here("doc", "rm", doc, "a/").text() == "2 deleted"
    assert here("--json", "doc", "rm", doc, "a/").json() == [{"deleted": 0}]
    assert "nothing at 'a/text'" in here("doc", "get", doc, "a/text").refused()
    assert here("--json", "doc", "ls", doc).json() == [rows[2]]


def test_all_the_ways_to_list(here: Callable[..., Outcome]) -> None:
    doc = here("doc", "new").text()
    lines = "".join(json.dumps({"key": key, "text": key}) + "\n" for key in ("b/1", "b/2", "a", "gone"))
    assert here("doc", "import", doc, "-", stdin=lines.encode()).text() == "4 written"
    here("doc", "rm", doc, "gone")

    def keys(*options: str) -> list[object]:
        return [row["key"] for row in here("--json", "doc", "ls", doc, *options).json()]

    author = str(here("--json", "doc", "ls", doc).json()[0]["author"])
    assert keys() == ["a", "b/1", "b/2"]
    assert keys("--prefix", "b/", "--descending") == ["b/2", "b/1"]
    assert keys("--author", author, "--limit", "1", "--offset", "1") == ["b/1"]
    assert keys("--author", "0" * 64) == []
    assert keys("--newest", "--sort", "author") == ["a", "b/1", "b/2"]
    assert keys("--tombstones") == ["a", "b/1", "b/2", "gone"]
    assert here("doc", "ls", doc, "--tombstones").text().splitlines()[3].split()[0] == "deleted"
    assert "64 hexadecimal" in here("doc", "ls", doc, "--author", "me").refused()
    assert here("doc", "ls", doc, "--sort", "time").code == 2
    assert here("doc", "ls", doc, "--limit", "-1").code == 2


def test_history(here: Callable[..., Outcome]) -> None:
    doc = here("doc", "new").text()
    here("doc", "set", doc, "k", "lost")
    here("doc", "set", doc, "k", "one")
    assert here("doc", "history", doc, "k").out == b""
    assert here("doc", "history", doc, "--keep", "7").out == b""
    here("doc", "set", doc, "k", "two")
    here("doc", "rm", doc, "k")
    deleted = here("--json", "doc", "history", doc, "k").json()
    assert [row["size"] for row in deleted] == [3, 3]
    assert deleted[0]["until"] > deleted[1]["until"] >= deleted[1]["timestamp"]
    first = here("doc", "history", doc, "k").text().splitlines()[1]
    assert "until" in first and first.split()[-1] == deleted[1]["hash"][:10]
    assert here("doc", "get", doc, "k", "--hash", first.split()[-1]).out == b"one"
    assert "nothing at" in here("doc", "get", doc, "k", "--hash", "00ff").refused()
    here("doc", "history", doc, "--off")
    assert here("doc", "history", doc, "k").out == b""
    for wrong in ([], ["--off", "--keep", "1"], ["--keep", "-1"], ["--keep", "nan"], ["--keep", "1e300"]):
        here("doc", "history", doc, *wrong).refused()


def test_export_and_import(here: Callable[..., Outcome], tmp_path: Path) -> None:
    doc, file = here("doc", "new").text(), tmp_path / "entries.jsonl"
    lines = "".join(json.dumps({"key": key, "text": f"value of {key}"}) + "\n" for key in ("a/1", "a/2", "b"))
    here("doc", "import", doc, "-", stdin=lines.encode())
    assert here("doc", "export", doc, file).text() == "3 entries"
    assert here("--json", "doc", "export", doc, file, "--no-contents").json() == [{"entries": 3, "named": 3}]
    out = here("doc", "export", doc, "-", "--prefix", "a/").out
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["value of a/1", "value of a/2"]
    other = here("doc", "new").text()
    assert here("doc", "import", other, "-", stdin=out).text() == "2 written"
    [done] = here("--json", "doc", "import", other, "-", stdin=out).json()
    assert done == {"lines": 2, "written": 2, "kept": 0, "known": 0, "skipped": 0}
    assert "line 3: " in here("doc", "import", other, "-", stdin=out + b"{").refused()
    # Signed, and back into the same document.
    here("doc", "rm", doc, "b")
    here("doc", "export", doc, file, "--signatures", "--tombstones")
    assert here("doc", "import", doc, file).text() == "0 written, 3 known"
    assert "cannot read" in here("doc", "import", doc, tmp_path / "missing").refused()


def test_folders(here: Callable[..., Outcome], tmp_path: Path) -> None:
    doc, source, copy = here("doc", "new").text(), tmp_path / "source", tmp_path / "copy"
    (source / "b").mkdir(parents=True)
    (source / "a").write_bytes(b"a")
    (source / "b" / "c").write_bytes(b"")
    (source / "link").symlink_to("/etc/passwd")
    said = here("doc", "import", doc, source, "--prefix", "files/").text().splitlines()
    assert said == ["skipped   'link' is a symbolic link", "2 files, 1 bytes, 1 left out"]
    assert here("doc", "export", doc, copy, "--folder", "--prefix", "files/").text() == "2 files, 1 bytes"
    assert (copy / "a").read_bytes() == b"a" and (copy / "b" / "c").read_bytes() == b""
    said = here("--json", "doc", "export", doc, copy, "--folder", "--prefix", "files/").json()
    assert [event.get("path") for event in said] == ["a", "b/c", None]
    assert said[-1] == {"files": 0, "bytes": 0, "skipped": 2}
    assert here("doc", "export", doc, copy, "--folder", "--prefix", "files/", "--replace").text() == "2 files, 1 bytes"
    for wrong in (["export", doc, "x", "--folder", "--signatures"], ["export", doc, "x", "--replace"]):
        assert "--folder" in here("doc", *wrong).refused()
    assert "--prefix is for a folder" in here("doc", "import", doc, "-", "--prefix", "x").refused()


def test_status_of_a_document_that_nobody_has(here: Callable[..., Outcome]) -> None:
    doc = here("doc", "new").text()
    here("doc", "set", doc, "k", "v")
    [status] = here("--json", "doc", "status", doc, "--timeout", "0.1").json()
    assert (status["entries"], status["peers"]) == (1, []) and status["error"]
    said = here("doc", "status", doc, "--timeout", "0.1").text().splitlines()
    assert said[0].startswith("1 entries, deletions included") and said[1].startswith("not synced now")


async def test_watch_says_what_is_there_and_goes_on(tmp_path: Path) -> None:
    doc = (await ask(tmp_path, "doc", "new")).decode().strip()
    for key in ("a", "b"):
        await ask(tmp_path, "doc", "set", doc, key, key)
    async with running(tmp_path, "--json", "doc", "watch", doc) as watch:
        caught_up = await watch.hear("caught-up")
        assert [event["key"] for event in watch.said if event["event"] == "present"] == ["a", "b"]
        assert await watch.interrupt() == 130
    await ask(tmp_path, "doc", "set", doc, "c", "c")
    async with running(tmp_path, "--json", "doc", "watch", doc, "--since", str(caught_up["cursor"])) as watch:
        later = await watch.hear("caught-up")
        assert [event.get("key") for event in watch.said] == ["c", None]
        assert watch.said[0]["cursor"] == later["cursor"] > caught_up["cursor"]


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
        [said] = (await run(tmp_path / "c", "--json", "doc", "join", ticket, "--prefix", "fi")).json()
        assert said == {"id": doc, "keys": 1}
        assert "part" in (await run(tmp_path / "c", "doc", "set", doc, "large", "v")).refused()
        async with running(b, "--json", "doc", "watch", doc, "--prefix", "f") as watch:
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
    assert "within 0.3 s" in said and "goes on trying" in said
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
