"""Encrypted documents, from the program's side: everything as in any other, and nothing of it in what is stored."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from docs_net import contents, eventually, node
from hypothesis import given
from hypothesis import strategies as st
from tidings.blobs.errors import UnreadableFile
from tidings.docs_sync import CaughtUp, Changed, DocTicket, InsertLocal, InsertRemote, Present, errors
from tidings.docs_sync.access.encryption import DocumentCipher, new_document_key, whole_paths
from tidings.docs_sync.model.keys import NamespaceId


@pytest.fixture
async def a(tmp_path):
    async with node(tmp_path / "a", in_memory=False) as a:
        yield a


@pytest.fixture
async def doc(a):
    return await a.docs.create(encrypted=True)


async def keys(entries) -> list[bytes]:
    return sorted([entry.key async for entry in entries])


async def test_a_program_sees_plain_keys_sizes_and_contents(doc):
    assert doc.is_encrypted
    entry = await doc.set("photos/cat", b"meow")
    assert (entry.key, entry.size, await entry.content()) == (b"photos/cat", 4, b"meow")
    assert await doc.get("photos/cat") == entry
    assert await doc.get("photos/") is None and await doc.get("cat") is None
    assert (await doc.get("photos/cat", author=entry.author)).size == 4
    value = await doc.set_value("v", {"n": [1, None]})
    assert await value.value() == {"n": [1, None]}
    long = bytes(range(256)) * 5000
    assert await (await doc.set("long", long)).content() == long
    assert await contents(doc) == {b"photos/cat": b"meow", b"v": value.signed and await value.content(), b"long": long}


async def test_nothing_plain_is_stored(tmp_path, monkeypatch):
    async with node(tmp_path / "a", in_memory=False) as a:
        doc = await a.docs.create(encrypted=True)
        await doc.set("VERY-SECRET-NAME/of", b"VERY-SECRET-WORD " * 3)
        await doc.set("VERY-SECRET-NAME/long", b"VERY-SECRET-WORD " * 10_000)
        async with doc.batch() as batch:
            await batch.set("VERY-SECRET-NAME/batch", b"VERY-SECRET-WORD")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"VERY-SECRET" not in path.read_bytes(), path


async def test_queries_below_a_prefix(doc):
    for key in ("a", "ab", "ab/c", "abc/d", "b/x", "b/xy", "b/y"):
        await doc.set(key, key.encode())
    assert await keys(doc.entries(prefix="a")) == [b"a", b"ab", b"ab/c", b"abc/d"]
    assert await keys(doc.entries(prefix="b/")) == [b"b/x", b"b/xy", b"b/y"]
    assert await keys(doc.entries(prefix="b/x")) == [b"b/x", b"b/xy"]
    assert await keys(doc.entries(prefix="", key="ab")) == [b"ab"]
    assert await keys(doc.entries(prefix="abc", key="ab")) == []
    assert await doc.entries(prefix="ab").count() == 3
    assert await doc.entries(prefix="ab", limit=2).count() == 2
    assert await doc.entries(prefix="ab", offset=2).count() == 1
    assert await doc.entries(prefix="ab", offset=9).count() == 0
    assert await doc.entries(prefix="ab", limit=0).first() is None
    assert (await doc.entries(prefix="b/xy").first()).key == b"b/xy"
    everything = [entry.key async for entry in doc.entries(newest=True)]
    assert everything == [entry.key async for entry in doc.entries(newest=True)] and len(everything) == 7
    pages = [entry.key for at in range(0, 8, 2) for entry in await doc.entries(newest=True, limit=2, offset=at).list()]
    assert pages == everything
    with pytest.raises(errors.EncryptedDocument, match="order"):
        doc.entries(descending=True)


async def test_deleting(doc):
    for key in ("a", "ab", "ab/c", "ab/d", "abc/d", "b/x", "b/xy"):
        await doc.set(key, b"1")
    assert await doc.delete("b/") == 2
    assert await keys(doc.entries()) == [b"a", b"ab", b"ab/c", b"ab/d", b"abc/d"]
    assert await doc.delete("ab") == 4
    assert await keys(doc.entries()) == [b"a"]
    assert await doc.delete("ab") == 0
    assert await keys(doc.entries(tombstones=True)) == [b"a", b"ab", b"ab/", b"abc/", b"b/"]
    assert await doc.delete("") == 1
    assert await doc.entries().count() == 0


async def test_a_write_replaces_what_is_below_its_path(doc):
    for key in ("a/b", "ab", "a"):
        await doc.set(key, b"1")
    assert await keys(doc.entries()) == [b"a", b"a/b", b"ab"]
    await doc.set("a/", b"2")
    assert await keys(doc.entries()) == [b"a", b"a/", b"ab"]


async def test_batches(doc):
    await doc.set("old/1", b"1")
    async with doc.batch() as batch:
        await batch.set("new/1", b"1")
        await batch.set("newer", b"2")
        await batch.delete("old/")
        await batch.delete("new")  # what the batch itself wrote, too
        await batch.set("new/2", b"3")
        await batch.delete("nothing at all")
    assert await contents(doc) == {b"new/2": b"3"}
    with pytest.raises(errors.EncryptedDocument, match="set_path"):
        async with doc.batch() as batch:
            await batch.set_hash("h", b"\1" * 32, 5)


async def test_files_of_any_size(doc, tmp_path):
    for size in (1, 65_536, 3_000_001):
        path = tmp_path / "file"
        path.write_bytes(bytes(n % 251 for n in range(251)) * (size // 251) + b"x" * (size % 251))
        entry = await doc.set_path(f"file {size}", path)
        assert entry.size == size
        pieces = [piece async for piece in entry.pieces()]
        assert b"".join(pieces) == path.read_bytes()
        async with doc.batch() as batch:
            await batch.set_path("again", path)
        assert await (await doc.get("again")).content() == path.read_bytes()
    (tmp_path / "empty").touch()
    with pytest.raises(errors.EmptyValue):
        await doc.set_path("empty", tmp_path / "empty")
    with pytest.raises(UnreadableFile):
        await doc.set_path("gone", tmp_path / "gone")
    with pytest.raises(errors.EncryptedDocument):
        await doc.set_hash("h", b"\1" * 32, 5)


async def test_files_where_nothing_is_encrypted(a, tmp_path):
    doc = await a.docs.create()
    (tmp_path / "file").write_bytes(b"plain" * 50_000)
    (tmp_path / "empty").touch()
    entry = await doc.set_path("k", tmp_path / "file")
    assert b"".join([piece async for piece in entry.pieces()]) == b"plain" * 50_000
    with pytest.raises(errors.EmptyValue):
        await doc.set_path("k", tmp_path / "empty")
    with pytest.raises(UnreadableFile):
        await doc.set_path("k", tmp_path / "gone")
    await doc.delete("k")
    tombstone = (await doc.entries(tombstones=True).list())[0]
    assert [piece async for piece in tombstone.pieces()] == []


async def test_watching_and_events(doc):
    await doc.set("in/1", b"1")
    await doc.set("in/x", b"1")
    await doc.set("out/1", b"1")
    events, watch = doc.events(), doc.watch("in/1")
    assert isinstance(seen := await anext(watch), Present) and seen.entry.key == b"in/1"
    assert isinstance(await anext(watch), CaughtUp)
    await doc.set("out/2", b"2")
    await doc.set("in/2", b"2")
    await doc.set("in/11", b"3")
    assert isinstance(seen := await anext(watch), Changed) and seen.entry.key == b"in/11"
    await doc.delete("in/")
    assert isinstance(seen := await anext(watch), Changed)
    assert seen.entry.key == b"in/" and seen.entry.is_tombstone
    await watch.aclose()
    event = await anext(events)
    assert isinstance(event, InsertLocal) and event.entry.key == b"out/2"


async def test_a_key_that_grows_too_long(doc):
    await doc.set("k" * 4000, b"1")
    with pytest.raises(errors.BadKey, match="too long"):
        await doc.set("k" * 4090, b"1")
    with pytest.raises(errors.BadKey):
        await doc.set("/" * 300, b"1")


async def test_who_joins_with_the_ticket_reads_and_writes(tmp_path):
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        ours = await a.docs.create(encrypted=True)
        await ours.set("k/1", b"from a")
        text = str(ours.ticket(write=True))
        assert text.startswith("tdoc")
        theirs = await b.docs.join(text)
        assert theirs.is_encrypted
        assert await contents(theirs) == {b"k/1": b"from a"}
        events = ours.events()
        await theirs.set("k/2", b"from b")
        async with asyncio.timeout(15):
            event = await anext(event async for event in events if isinstance(event, InsertRemote))
        assert event.entry.key == b"k/2" and await event.entry.content() == b"from b"
        assert str(theirs.ticket(write=True).key) == str(ours.ticket().key)


async def test_who_has_no_key_carries_what_it_cannot_read(tmp_path):
    """A writes, a carrier with iroh's ticket has it, A goes; B reads it from the carrier."""
    async with node(tmp_path / "c") as carrier, node(tmp_path / "b") as b:
        async with node(tmp_path / "a") as a:
            ours = await a.docs.create(encrypted=True)
            await ours.set("diary/monday", b"dear diary")
            ticket = ours.ticket()
            carried = await carrier.docs.join(str(ours.ticket().iroh()))
            assert not carried.is_encrypted
            (entry,) = await carried.entries().list()
            assert b"diary" not in entry.key and b"diary" not in await entry.content(10)
        theirs = await b.docs.join(ticket.at(carrier.endpoint.addr()))
        assert await contents(theirs) == {b"diary/monday": b"dear diary"}


async def test_the_key_may_come_later(tmp_path):
    async with node(tmp_path / "a") as a, node(tmp_path / "b") as b:
        ours = await a.docs.create(encrypted=True)
        await ours.set("k", b"v")
        theirs = await b.docs.join(ours.ticket().iroh())
        assert await theirs.get("k") is None
        again = await b.docs.join(ours.ticket())
        assert again is theirs and theirs.is_encrypted
        assert await (await theirs.get("k")).content() == b"v"
        events = theirs.events()
        await ours.set("k2", b"v2")
        async with asyncio.timeout(15):
            event = await anext(event async for event in events if isinstance(event, InsertRemote))
        assert event.entry.key == b"k2"


async def test_what_no_holder_of_the_key_wrote(tmp_path):
    """Who may write but has no key can only delete what is its own, and is not shown."""
    async with node(tmp_path / "a") as a, node(tmp_path / "m") as m:
        ours = await a.docs.create(encrypted=True)
        entry = await ours.set("mine", b"secret")
        other = await ours.set("other", b"another secret")
        mallory = await m.docs.join(ours.ticket(write=True).iroh())
        await mallory.set("plain words", b"nonsense")
        await mallory.set_hash(entry.signed.id.key, other.hash, other.signed.record.size)

        async def arrived():
            return await ours._docs._store.count(ours.id, replace(ours.entries()._query)) == 4

        await eventually(arrived)
        assert await keys(ours.entries()) == [b"mine", b"mine", b"other"]
        forged = await ours.get("mine")
        assert forged.hash == other.hash
        with pytest.raises(errors.Undecipherable):
            await forged.content(10)
        with pytest.raises(errors.Undecipherable):
            [piece async for piece in forged.pieces(10)]
        assert await (await ours.get("mine", author=entry.author)).content() == b"secret"


async def test_after_a_restart(tmp_path):
    async with node(tmp_path / "a", in_memory=False) as a:
        doc = await a.docs.create(encrypted=True)
        await doc.set("k", b"v")
    async with node(tmp_path / "a", in_memory=False) as a:
        (listed,) = [each async for each in a.docs.list()]
        assert listed.is_encrypted and not listed.is_live
        assert await contents(listed) == {b"k": b"v"}
        assert await contents(await a.docs.open(doc.id)) == {b"k": b"v"}


async def test_no_key_in_words(doc, caplog):
    caplog.set_level("DEBUG")
    await doc.set("k", b"v")
    ticket = doc.ticket(write=True)
    for words in (repr(doc), repr(ticket), repr(doc._rules), repr(vars(doc)), caplog.text):
        assert ticket.key.hex() not in words and repr(ticket.key)[2:-1] not in words
        assert ticket.capability.secret.to_bytes().hex() not in words
    assert DocTicket.parse(str(ticket)).key == ticket.key


paths = st.lists(st.sampled_from([b"a", b"ab", b"/", b"b", b"\xff"]), max_size=6).map(b"".join)
CIPHER = DocumentCipher(new_document_key(), NamespaceId(bytes(32)))


@given(paths, st.lists(paths, max_size=8))
def test_whole_paths_delete_what_begins_with_the_prefix_and_nothing_else(prefix, stored):
    raw = [CIPHER.encrypt_key(key) for key in whole_paths(prefix, stored)]
    for key in stored:
        is_deleted = any(CIPHER.encrypt_key(key).startswith(tombstone) for tombstone in raw)
        assert is_deleted == key.startswith(prefix)


@given(paths, paths)
def test_a_prefix_finds_what_is_below(prefix, key):
    raw, others = CIPHER.prefix_of(prefix)
    is_found = CIPHER.encrypt_key(key).startswith(raw)
    assert is_found or not key.startswith(prefix)
    assert others or is_found == key.startswith(prefix)


@given(st.binary(max_size=120))
def test_any_bytes_are_a_key_or_not(data):
    key = CIPHER.decrypt_key(data)
    assert key is None or CIPHER.encrypt_key(key) == data


async def test_plain_sizes(tmp_path: Path):
    for size in (1, 65_535, 65_536, 65_537, 200_000):
        data = await CIPHER.encrypt(b"k", bytes(size))
        assert CIPHER.plain_size(len(data)) == size
        assert await CIPHER.decrypt(b"k", data) == bytes(size)
        with pytest.raises(errors.Undecipherable):
            await CIPHER.decrypt(b"l", data)
    assert CIPHER.plain_size(5) == 5
