"""The second check: entries that were chosen so that their fingerprints cancel out, and which window is looked at."""

import random

import pytest
from native_net import ID, pair, run, signed
from test_sync import WHOLE
from tidings.docs_sync.model import keyed
from tidings.docs_sync.model.entry import fingerprint_of
from tidings.docs_sync.model.keyed import CheckTooLarge, KeyedRange, derive_key, random_window
from tidings.docs_sync.model.ranges import IdRange
from tidings.docs_sync.store.views import View

KEY = b"k" * 32


def colliding_pair():
    """Two sets of entries at the same keys, all different, whose fingerprints XOR to the same.

    257 keys with two candidates each: among 257 vectors over GF(2) of 256 bits some always sum to zero.
    """
    candidates = [(b"forged/%03d" % n, 2 * n + 1, 2 * n + 2) for n in range(257)]
    basis: dict[int, tuple[int, int]] = {}  # highest bit -> (vector, which candidates it is the sum of)
    for index, (key, one, other) in enumerate(candidates):
        vector, members = _fingerprint(key, one) ^ _fingerprint(key, other), 1 << index
        while vector and (known := basis.get(vector.bit_length())) is not None:
            vector, members = vector ^ known[0], members ^ known[1]
        if not vector:
            break
        basis[vector.bit_length()] = vector, members
    chosen = [each for index, each in enumerate(candidates) if members >> index & 1]
    return [signed(key, one) for key, one, _ in chosen], [signed(key, other) for key, _, other in chosen]


def _fingerprint(key, timestamp):
    """Signatures are no part of it."""
    id, record = TEMPLATE.id._replace(key=key), TEMPLATE.record._replace(timestamp=timestamp)
    return int.from_bytes(fingerprint_of(id, record), "big")


TEMPLATE = signed(b"", 0)
ONE, OTHER = colliding_pair()


async def test_forged_entries_that_cancel_out_are_found_and_repaired(monkeypatch):
    assert len(ONE) > 50 and not set(ONE) & set(OTHER)
    async with pair() as (a, b):
        for side, entries in ((a, ONE), (b, OTHER)):
            await side.store.insert(ID, [*run(0, 300), *entries])
        assert await a.store.summary(ID) == await b.store.summary(ID)
        assert await a.keys() != await b.keys()

        await b.speak(native=False, iroh=True)  # by iroh's protocol they are equal
        tally = await a.sync_with(b)
        assert (tally.sent, tally.received) == (0, 0)
        assert await a.keys() != await b.keys()

        await b.speak(native=True, iroh=True)
        kinds = await messages(a, b, monkeypatch)
        assert kinds[:2] == ["Init", "Check"] and len(kinds) <= 6
        assert len(a.stored) == len(OTHER)
        assert await a.keys() == await b.keys()
        assert {key: record.timestamp for key, record in (await a.keys()).items() if key.startswith(b"forged")} == {
            entry.id.key: entry.record.timestamp for entry in OTHER
        }


async def test_in_a_large_document_one_window_with_one_of_them_is_enough(monkeypatch):
    monkeypatch.setattr(keyed, "WINDOW", 32)
    monkeypatch.setattr(keyed, "MAX_HASHED", 128)
    async with pair() as (a, b):
        for side, entries in ((a, ONE), (b, OTHER)):
            await side.store.insert(ID, [*run(0, 300), *entries])
        for turn in range(200):
            await (a.sync_with(b) if turn % 2 else b.sync_with(a))
            if await a.keys() == await b.keys():
                break
        assert await a.keys() == await b.keys()


@pytest.fixture
async def rows():
    async with pair() as (a, _):
        await a.store.insert(ID, run(0, 300))

        async def look(read, view=View()):  # noqa: B008
            return await a.store.look(ID, view, read)

        yield look


async def test_fingerprints_depend_on_the_key_and_on_the_entries(rows):
    def summaries(key):
        return lambda store: [KeyedRange(store, key).summary(range) for range in ranges]

    ids = await rows(lambda store: store.ids_at(WHOLE, [0, 100, 200]))
    ranges = [WHOLE, IdRange(ids[0], ids[1]), IdRange(ids[1], ids[2]), IdRange(ids[2], ids[0])]
    one, other = await rows(summaries(KEY)), await rows(summaries(b"K" * 32))
    assert [each.size for each in one] == [300, 100, 100, 100]
    assert len({each.fingerprint for each in one + other}) == 8
    assert await rows(summaries(KEY)) == one
    empty = IdRange(ids[0] + b"\0", ids[0] + b"\1")
    assert await rows(lambda store: KeyedRange(store, KEY).summary(empty)) == await rows(
        lambda store: store.summary(empty)
    )


async def test_a_message_that_asks_for_too_much(rows, monkeypatch):
    monkeypatch.setattr(keyed, "MAX_HASHED", 700)

    def thrice(store):
        view = KeyedRange(store, KEY)
        view.summary(WHOLE), view.summary(WHOLE)
        with pytest.raises(CheckTooLarge):
            view.summary(WHOLE)

    await rows(thrice)


async def test_a_window_begins_at_any_entry_and_has_its_size(rows, monkeypatch):
    rng = random.Random(7)
    assert await rows(lambda store: random_window(store, rng)) == WHOLE
    monkeypatch.setattr(keyed, "WINDOW", 70)
    windows = [await rows(lambda store: random_window(store, rng)) for _ in range(100)]
    for window in windows:
        assert (await rows(lambda store, window=window: store.summary(window))).size == 70
    assert len({window.x for window in windows}) > 60
    assert any(window.x > window.y for window in windows)  # wraps


async def messages(a, b, monkeypatch):
    """The kinds of those of one sync, in order."""
    kinds = []
    for side in (a, b):
        encode = side.store.encode

        async def noted(message, encode=encode):
            kinds.append(type(message).__name__)
            return await encode(message)

        monkeypatch.setattr(side.store, "encode", noted)
    await a.sync_with(b)
    monkeypatch.undo()
    return kinds


async def test_what_the_check_costs(monkeypatch):
    """One message; it takes the way that the end of the first pass takes anyway."""
    async with pair() as (a, b):
        common = run(0, 1500)
        await a.store.insert(ID, common)
        await b.store.insert(ID, common)
        assert await messages(a, b, monkeypatch) == ["Init", "Check"]
        await a.store.insert(ID, [signed(b"key/%05d" % n, 5000) for n in range(0, 1500, 300)])
        await b.store.insert(ID, [signed(b"key/%05d" % n, 5000) for n in range(100, 1500, 300)])
        monkeypatch.setattr("tidings.docs_sync.model.reconcile.FAR", 0.0)
        kinds = await messages(a, b, monkeypatch)
        assert kinds[0] == "Init" and kinds[-1] == "Check" and len(kinds) <= 6
        assert await a.keys() == await b.keys()


async def test_no_check_where_entries_were_refused(monkeypatch):
    """They would differ in it again."""
    async with pair(hook=lambda who, namespace, kind: kind == "read") as (a, b):
        await a.store.insert(ID, run(0, 5))
        assert "Check" not in await messages(a, b, monkeypatch)
        assert "Check" not in await messages(b, a, monkeypatch)


async def test_a_part_is_checked_too():
    async with pair() as (a, b):
        for side, entries in ((a, ONE), (b, OTHER)):
            await side.store.insert(ID, [*run(0, 20), *entries])
        await a.sync_with(b, prefix=b"key/")
        assert await a.keys() != await b.keys()
        await a.sync_with(b, prefix=b"forged/")
        assert await a.keys() == await b.keys()


def test_keys_depend_on_all_that_they_come_of():
    rng = random.Random(5)
    parts = [rng.randbytes(32) for _ in range(3)]
    keys = {derive_key(*parts)}
    for index in range(3):
        changed = list(parts)
        changed[index] = bytes(32)
        keys.add(derive_key(*changed))
    assert len(keys) == 4 and all(len(key) == 32 for key in keys)
