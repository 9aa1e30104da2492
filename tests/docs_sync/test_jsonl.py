"""JSON Lines: what is written comes back, and what is not right costs nothing that was there."""

import asyncio
import base64
import io
import json
import random

import pytest
from docs_net import contents, node
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.blobs import UnreadableFile
from tidings.docs_sync import errors
from tidings.docs_sync.bulk import jsonl
from tidings.docs_sync.bulk.jsonl_lines import INLINE, MAX_LINE, BadLine, Line, decode_line, encode_line
from tidings.docs_sync.model.entry import EMPTY_HASH

binary32 = st.binary(min_size=32, max_size=32)
made = st.builds(
    lambda key, content, author, timestamp, named, proof: Line(
        key,
        (decode_line(b'{"key": "", "base64": "%s"}' % base64.b64encode(content)).hash if content else EMPTY_HASH),
        len(content),
        content if content and not named else None,
        author if proof is None else author or bytes(32),
        timestamp if proof is None else timestamp or 0,
        proof,
    ),
    st.binary(max_size=40) | st.text(max_size=40).map(str.encode),
    st.binary(max_size=50) | st.text(max_size=50).map(str.encode),
    st.none() | binary32,
    st.none() | st.integers(0, 2**63 - 1),
    st.booleans(),
    st.none() | st.tuples(binary32, st.binary(min_size=64, max_size=64), st.binary(min_size=64, max_size=64)),
)


@settings(max_examples=300, deadline=None)
@given(made)
def test_a_line_comes_back(line):
    data = encode_line(line)
    assert data.endswith(b"}\n") and data.count(b"\n") == 1
    assert decode_line(data) == line


names = ["key", "key_hex", "author", "timestamp", "size", "hash", "text", "base64", "deleted", "document", "x"]
values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("00" * 32)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=100)
    | st.dictionaries(st.sampled_from(names), values).map(lambda fields: json.dumps(fields).encode())
)
def test_any_bytes_are_a_line_or_bad(data):
    try:
        decode_line(data)
    except BadLine as error:
        assert str(error)


BAD = {
    b"{": "not JSON",
    b"\xff": "not JSON",
    b"[" * 100_000: "not JSON",
    b'{"key": "a", "size": 1' + b"0" * 5000 + b"}": "not JSON",
    b"[1]": "not an object",
    b'{"text": "x"}': "a key",
    b'{"key": "a", "key_hex": "61", "text": "x"}': "a key",
    b'{"key": 1, "text": "x"}': "key is not text",
    b'{"key_hex": "6", "text": "x"}': "hexadecimal",
    b'{"key": "\\ud800", "text": "x"}': "whole text",
    b'{"key": "a"}': "no content",
    b'{"key": "a", "text": ""}': "empty",
    b'{"key": "a", "text": "x", "base64": "eA=="}': "twice",
    b'{"key": "a", "base64": "?"}': "base64",
    b'{"key": "a", "text": "x", "size": 2}': "hash and size",
    b'{"key": "a", "text": "x", "hash": "' + b"0" * 64 + b'"}': "hash and size",
    b'{"key": "a", "text": "x", "deleted": true}': "not both",
    b'{"key": "a", "deleted": 1}': "true or false",
    b'{"key": "a", "text": "x", "timestamp": -1}': "timestamp",
    b'{"key": "a", "text": "x", "timestamp": true}': "timestamp",
    b'{"key": "a", "text": "x", "timestamp": 9223372036854775808}': "timestamp",
    b'{"key": "a", "hash": "00", "size": 1}': "of 32",
    b'{"key": "a", "text": "x", "document": "' + b"0" * 64 + b'"}': "signatures",
    b'{"key": "' + b"a" * 4097 + b'", "text": "x"}': "at most 4096",
    b'{"key": "a", "text": "' + b"x" * MAX_LINE + b'"}': "more than",
}


@pytest.fixture
async def doc(tmp_path):
    async with node(tmp_path / "node", in_memory=False) as a:
        yield await a.docs.create()


async def test_bad_lines_are_told_and_cost_nothing(doc):
    await doc.set("there", b"before")
    for bad, why in BAD.items():
        with pytest.raises(errors.BadImport, match=why) as told:
            await doc.import_jsonl(
                io.BytesIO(b'{"key": "good", "text": "x"}\n\n' + bad + b'\n{"key": "no", "text": "x"}')
            )
        assert told.value.line == 3 and "line 3: " in str(told.value)
        assert await contents(doc) == {b"there": b"before", b"good": b"x"}
        await doc.delete("good")
        with pytest.raises(errors.BadImport) as told:
            await doc.import_jsonl(io.BytesIO(bad))
        assert told.value.line == 1
    assert await contents(doc) == {b"there": b"before"}


async def test_an_export_is_written_anew_elsewhere(doc, tmp_path):
    large = random.Random(1).randbytes(INLINE + 1)
    values = {b"a/text": "grüße".encode(), b"a/bytes": b"\xff\0", b"\xff": b"odd key", b"a/16k": bytes(20_000)}
    for key, value in values.items():
        await doc.set(key, value)
    await doc.set("large", large)
    await doc.set("gone", b"x")
    await doc.delete("gone")
    counts = []
    done = await doc.export_jsonl(tmp_path / "all", progress=counts.append)
    assert (done.entries, done.named, counts[-1]) == (5, 1, 5)
    lines = [json.loads(line) for line in (tmp_path / "all").read_bytes().splitlines()]
    assert [line.get("key", line.get("key_hex")) for line in lines] == ["a/16k", "a/bytes", "a/text", "large", "ff"]
    assert (lines[1]["base64"], lines[2]["text"], lines[2]["size"]) == ("/wA=", "grüße", 7)
    assert {"text", "base64"} & lines[3].keys() == set()
    assert (tmp_path / "all").stat().st_mode & 0o777 == 0o600
    async with node(tmp_path / "other") as b:
        other = await b.docs.create()
        taken = await other.import_jsonl(tmp_path / "all", progress=counts.append)
        assert (taken.lines, taken.written, taken.kept, counts[-1]) == (5, 5, 0, 5)
        assert {entry.author async for entry in other.entries()} == {await b.docs.default_author()}
        held = {entry.key: entry async for entry in other.entries()}
        assert {key: await held[key].content(0.5) for key in values} == values
        assert held[b"large"].size == INLINE + 1
        with pytest.raises(errors.ContentMissing):
            await held[b"large"].content(0.1)


async def test_signed_entries_stay_what_they_are(doc, tmp_path):
    robot = await doc._docs.create_author()
    for n in range(5):
        await doc.set(f"{n}", b"%d" % n)
    await doc.set("robot", b"beep", author=robot)
    await doc.delete("3")
    done = await doc.export_jsonl(tmp_path / "copy", signatures=True, tombstones=True)
    assert done.entries == 6
    mine = {entry async for entry in doc.entries(tombstones=True)}
    async with node(tmp_path / "other", in_memory=False) as b:
        await b.docs._store.add_namespace(doc.ticket().capability)  # to read, and nobody is asked
        copy = await b.docs.open(doc.id)
        events = copy.events()
        taken = await copy.import_jsonl(tmp_path / "copy")
        assert (taken.lines, taken.kept, taken.written, taken.known) == (6, 6, 0, 0)
        assert {entry async for entry in copy.entries(tombstones=True)} == mine
        assert await contents(copy) == await contents(doc)
        assert (await anext(events)).entry in mine
        again = await copy.import_jsonl(tmp_path / "copy")
        assert (again.kept, again.known) == (0, 6)
        # A copy of another document is content like any other, and this one is to read.
        (tmp_path / "own").write_bytes(b'{"key": "a", "text": "x"}')
        with pytest.raises(errors.ReadOnly):
            await copy.import_jsonl(tmp_path / "own")
        third = await b.docs.create()
        taken = await third.import_jsonl(tmp_path / "copy")
        assert (taken.written, taken.kept, taken.skipped) == (5, 0, 1)
        # An older copy brings nothing back.
        assert await doc.delete("") == 4
        assert (await doc.import_jsonl(tmp_path / "copy")).known == 6
        assert await contents(doc) == {b"robot": b"beep"}


async def test_a_forged_entry_is_refused(doc, tmp_path):
    await doc.set("a", b"1")
    await doc.export_jsonl(tmp_path / "copy", signatures=True)
    line = json.loads((tmp_path / "copy").read_bytes())
    await doc.set("a", b"2")
    line["timestamp"] += 100_000_000
    with pytest.raises(errors.BadImport, match="signature does not hold") as told:
        await doc.import_jsonl(io.BytesIO(json.dumps(line).encode()))
    assert told.value.line == 1
    assert await contents(doc) == {b"a": b"2"}


async def test_nothing_behind_a_bad_line_is_kept(doc, tmp_path):
    for n in range(5):
        await doc.set(f"{n}", b"%d" % n)
    await doc.export_jsonl(tmp_path / "copy", signatures=True)
    lines = [json.loads(line) for line in (tmp_path / "copy").read_bytes().splitlines()]
    lines[2]["timestamp"] += 1
    async with node(tmp_path / "other") as b:
        await b.docs._store.add_namespace(doc.ticket().capability)
        copy = await b.docs.open(doc.id)
        with pytest.raises(errors.BadImport) as told:
            await copy.import_jsonl(io.BytesIO("\n".join(map(json.dumps, lines)).encode()))
        assert told.value.line == 3
        assert await contents(copy) == {b"0": b"0", b"1": b"1"}


async def test_an_entry_that_lies_about_its_size(doc, tmp_path):
    for size, content in ((3, b"longer"), (100, b"short"), (3, bytes(1 << 20))):
        hash = (await doc._docs._blobs.add_bytes(content)).hash
        await doc.set_hash("a", hash, size)
        with pytest.raises(errors.FalseSize):
            await (await doc.get("a")).content()
        await doc.export_jsonl(tmp_path / "copy")
        again = await doc._docs.create()
        await again.import_jsonl(tmp_path / "copy")
        copied = await again.get("a")
        assert (copied.hash, copied.size) == (hash, size)


async def test_of_several_authors_the_newest_is_written(doc, tmp_path):
    authors = [await doc._docs.create_author() for _ in range(4)]
    for n, author in enumerate(authors):
        await doc.set("k", b"%d" % n, author=author)
        await doc.set("k/below", b"%d" % n, author=author)
    await doc.export_jsonl(tmp_path / "all")
    async with node(tmp_path / "other") as b:
        other = await b.docs.create()
        taken = await other.import_jsonl(tmp_path / "all")
        assert taken.written + taken.skipped == 8
        assert await contents(other) == {b"k": b"3", b"k/below": b"3"}


async def test_deletions_only_where_they_are_asked_for(doc):
    await doc.set("a/1", b"x")
    lines = b'{"key": "a/", "deleted": true}\n'
    assert (await doc.import_jsonl(io.BytesIO(lines))).skipped == 1
    assert await contents(doc) == {b"a/1": b"x"}
    assert (await doc.import_jsonl(io.BytesIO(lines), tombstones=True)).written == 1
    assert await contents(doc) == {}


async def test_many_lines_in_steps_and_as_another_author(doc, monkeypatch):
    monkeypatch.setattr(jsonl, "LINES_AT_ONCE", 100)
    monkeypatch.setattr(jsonl, "READ_AT_ONCE", 1000)
    robot = await doc._docs.create_author()
    lines = b"\xef\xbb\xbf" + b"".join(b'{"key": "%03d", "text": "v"}\r\n' % n + b"\n" * 1500 for n in range(250))
    commits = doc._docs._store._database.commits
    taken = await doc.import_jsonl(io.BytesIO(lines), author=robot)
    assert (taken.lines, taken.written) == (250, 250)
    assert await doc.entries(author=robot).count() == 250
    assert doc._docs._store._database.commits - commits <= 260
    out = io.BytesIO()
    assert (await doc.export_jsonl(out, prefix="1", author=robot, contents=False)).named == 100
    assert out.getvalue().count(b"\n") == 100 and b"text" not in out.getvalue()


async def test_an_export_appears_whole_or_not_at_all(doc, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"before")
    for n in range(200):
        await doc.set(f"{n}", b"x")

    def stop(count):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        await doc.export_jsonl(tmp_path / "file", progress=stop)
    assert (tmp_path / "file").read_bytes() == b"before"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "node"}
    with pytest.raises(UnreadableFile):
        await doc.import_jsonl(tmp_path / "missing")
    with pytest.raises(UnreadableFile):
        await doc.import_jsonl(tmp_path)


async def test_a_content_that_comes_later_is_named(tmp_path):
    async with node(tmp_path / "a") as a:
        doc = await a.docs.create()
        await doc.set_hash("later", bytes(32), 10)
        out = io.BytesIO()
        assert (await doc.export_jsonl(out)).named == 1
        other = await a.docs.create()
        out.seek(0)
        assert (await other.import_jsonl(out)).written == 1
        assert bytes((await other.get("later")).hash) == bytes(32)


async def test_of_an_encrypted_document(tmp_path):
    async with node(tmp_path) as a:
        doc = await a.docs.create(encrypted=True)
        values = {b"a/small": b"1", b"a/large": bytes(30_000)}
        for key, value in values.items():
            await doc.set(key, value)
        assert (await doc.export_jsonl(tmp_path / "plain", prefix="a/")).named == 0
        with pytest.raises(errors.EncryptedDocument):
            await doc.export_jsonl(tmp_path / "signed", signatures=True)
        assert not (tmp_path / "signed").exists()
        for other in (await a.docs.create(), await a.docs.create(encrypted=True)):
            assert (await other.import_jsonl(tmp_path / "plain")).written == 2
            assert await contents(other) == values
        await doc.export_jsonl(tmp_path / "named", contents=False)
        with pytest.raises(errors.BadImport, match="line 1"):
            await other.import_jsonl(tmp_path / "named")


async def test_cancelled_anywhere(doc, tmp_path):
    """An export leaves nothing behind, an import whole steps."""
    async with doc.batch() as batch:
        for n in range(300):
            await batch.set(f"{n:03}", b"x")
    for delay in (0.0, 0.002, 0.01):
        export = asyncio.create_task(doc.export_jsonl(tmp_path / "file"))
        await asyncio.sleep(delay)
        export.cancel()
        await asyncio.gather(export, return_exceptions=True)
        assert {path.name for path in tmp_path.iterdir()} <= {"node", "file"}
        if (tmp_path / "file").exists():
            assert (tmp_path / "file").read_bytes().count(b"\n") == 300
    lines = b"".join(b'{"key": "new/%04d", "text": "x"}\n' % n for n in range(2_000))
    work = asyncio.create_task(doc.import_jsonl(io.BytesIO(lines)))
    await asyncio.sleep(0.1)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    await doc.set("after", b"x")
    assert await doc.entries(prefix="new/").count() in (0, 1_000, 2_000)
