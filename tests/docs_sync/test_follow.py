"""The queue of one follower."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.docs_sync.model.entry import EMPTY_HASH, EntryId, Record, SignedEntry
from tidings.docs_sync.model.native_messages import MAX_NEWS, News, SyncAgain, decode_news, encode_news
from tidings.docs_sync.model.reconcile import ContentStatus, Value
from tidings.docs_sync.sync.follow import MAX_MISSING, MAX_WAITING, FollowQueue

HASH = b"h" * 32


def value(key: bytes, status: ContentStatus = ContentStatus.COMPLETE, hash: bytes = HASH) -> Value:
    id = EntryId(b"n" * 32, b"a" * 32, key)
    record = Record(0 if hash == EMPTY_HASH else 5, hash, 1)
    return Value(SignedEntry(id, record, b"s" * 64, b"t" * 64), status)


def started(prefix: bytes = b"p/") -> FollowQueue:
    queue = FollowQueue(prefix)
    assert isinstance(queue.take(), SyncAgain)
    return queue


def test_a_queue_begins_with_a_sync() -> None:
    queue = FollowQueue(b"p/")
    assert queue
    assert queue.offer(value(b"p/1"))  # in the sync that is to come
    assert isinstance(queue.take(), SyncAgain)
    assert not queue
    assert queue.take() is None


def test_the_part_and_what_deletes_there() -> None:
    queue = started()
    assert [queue.offer(value(key)) for key in (b"p/1", b"q", b"p", b"", b"p0", b"p/")] == [
        True, False, True, True, False, True,
    ]  # fmt: skip
    news = queue.take()
    assert isinstance(news, News)
    assert [each.entry.id.key for each in news.values] == [b"p/1", b"p", b"", b"p/"]


def test_frames_are_bounded_and_in_order() -> None:
    queue = started()
    values = [value(b"p/%d" % n) for n in range(MAX_NEWS + 5)]
    for each in values:
        queue.offer(each)
    first, second = queue.take(), queue.take()
    assert isinstance(first, News)
    assert isinstance(second, News)
    assert [*first.values, *second.values] == values
    assert queue.take() is None
    largest = [value(b"p/" + b"k" * 4094) for _ in range(MAX_NEWS)]
    for each in largest:
        queue.offer(each)
    frame = queue.take()
    assert isinstance(frame, News)
    assert decode_news(encode_news(frame)) == replace(frame, values=largest, contents=[])


def test_one_that_is_too_far_behind_syncs() -> None:
    queue = started()
    for n in range(MAX_WAITING + 1):
        assert queue.offer(value(b"p/%d" % n))
    assert isinstance(queue.take(), SyncAgain)
    assert queue.take() is None
    queue.offer(value(b"p/later"))
    assert isinstance(queue.take(), News)


def test_contents_are_announced_behind_their_entries() -> None:
    queue = started()
    assert not queue.content_here(HASH, None)  # never named to this follower
    for n in range(MAX_NEWS + 1):
        queue.offer(value(b"p/%d" % n, ContentStatus.MISSING))
    assert queue.content_here(HASH, None)
    first, second = queue.take(), queue.take()
    assert isinstance(first, News)
    assert isinstance(second, News)
    assert (list(first.contents), list(second.contents)) == ([], [HASH])
    assert not queue.content_here(HASH, b"q")
    assert queue.content_here(HASH, b"p/3")
    assert queue.take() == News([], [HASH])


def test_missing_contents_are_bounded() -> None:
    queue = started()
    hashes = [n.to_bytes(32, "big") for n in range(MAX_MISSING + 1)]
    for hash in hashes:
        queue.offer(value(b"p/", ContentStatus.INCOMPLETE, hash))
    assert not queue.content_here(hashes[0], None)
    assert queue.content_here(hashes[-1], None)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.integers(1, 400), st.just("take")), max_size=20))
def test_nothing_is_lost_unless_a_sync_follows(steps: list) -> None:
    queue = started()
    owed: list[Value] = []
    for step in steps:
        if step == "take":
            frame = queue.take()
            if isinstance(frame, SyncAgain):
                owed.clear()
            elif frame is not None:
                assert list(frame.values) == owed[: len(frame.values)]
                del owed[: len(frame.values)]
            else:
                assert not owed
        else:
            for n in range(step):
                owed.append(value(b"p/%d" % n))
                queue.offer(owed[-1])
