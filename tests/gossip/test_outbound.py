"""The queue of one peer: its bounds, and what goes first."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.gossip.core.messages import (
    Disconnect,
    IHave,
    Join,
    Message,
    Neighbor,
    Payload,
    Priority,
    Prune,
    ShuffleReply,
)
from tidings.gossip.net.outbound import Outbound, OutboundQueue

TOPIC = bytes(32)


def item(message: Message, size: int = 10) -> Outbound:
    return Outbound(TOPIC, message, bytes(size))


def test_announcements_go_first_then_the_oldest_payload_and_handshakes_last() -> None:
    queue = OutboundQueue(max_messages=4)
    first, second = item(Payload(b"1", b"", 0)), item(Payload(b"2", b"", 0))
    neighbor, disconnect = item(Neighbor(Priority.HIGH, None)), item(Disconnect(alive=True))
    for pushed in (item(IHave(())), first, neighbor, item(ShuffleReply(())), second, disconnect):
        queue.push(pushed, 1.0)
    assert queue.dropped == 2
    queue.push(item(Prune()), 2.0)
    assert queue.dropped == 3 and queue.full_since == 1.0
    assert [taken.message for taken in queue.take(1000)] == [
        neighbor.message,
        second.message,
        disconnect.message,
        Prune(),
    ]
    assert queue.full_since is None


def test_handshakes_alone_are_bounded_too() -> None:
    queue = OutboundQueue(max_messages=3)
    for _ in range(10):
        queue.push(item(Prune()), 0.0)
    assert len(queue) == 3 and queue.dropped == 7


def test_a_join_waits_once() -> None:
    queue = OutboundQueue()
    for _ in range(3):
        queue.push(item(Join(None)), 0.0)
    assert len(queue.take(1000)) == 1
    queue.push(item(Join(None)), 0.0)
    assert len(queue) == 1


def test_a_batch_has_a_size_but_never_none() -> None:
    queue = OutboundQueue()
    for _ in range(5):
        queue.push(item(Prune(), 40), 0.0)
    assert len(queue.take(100)) == 2
    assert len(queue.take(1)) == 1


messages = st.sampled_from(
    [Payload(b"", b"", 0), Prune(), IHave(()), ShuffleReply(()), Join(None), Disconnect(alive=True)]
)


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(messages, st.integers(1, 60)) | st.integers(1, 100) | st.none(), max_size=100))
def test_bounds_hold_and_nothing_is_invented(script: list[tuple[Message, int] | int | None]) -> None:
    queue = OutboundQueue(max_messages=10, max_bytes=200)
    pushed = taken = 0
    for step in script:
        match step:
            case (message, size):
                before = len(queue) + queue.dropped
                queue.push(item(message, size), 0.0)
                pushed += len(queue) + queue.dropped - before
            case int():
                taken += len(queue.take(step))
            case None:
                taken += len(queue)
                queue.clear()
        assert len(queue) <= 10 and queue.bytes <= 200
        assert pushed == taken + queue.dropped + len(queue)
    queue.take(10**6)
    assert queue.bytes == 0
