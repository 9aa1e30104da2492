"""A pull from a peer that answers with everything at once: its messages are bounded, and both sides converge."""

from docs_model import OurPeer, RustPeer, entry, merged, run_session
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tidings.docs_sync.model.reconcile import ENTRY_OVERHEAD, entries_of
from tidings.docs_sync.sync import pull
from tidings.docs_sync.sync.pull import Pull

entries = st.builds(
    entry,
    key=st.integers(0, 200).map(lambda n: b"%03d" % n),
    timestamp=st.integers(1, 8),
    content=st.sampled_from([None, 1, 2]),
    author=st.integers(0, 1),
)
histories = st.lists(entries, max_size=60)


class PullingPeer(OurPeer):
    def __init__(self, entries=(), size=1 << 20):
        super().__init__(entries)
        self.pull = Pull(size)

    def start(self):
        return self.pull.take(super().start())[1]

    def handle(self, message):
        while message:
            message, probes = self.pull.take(message)
            if reply := super().handle(message) + probes:
                return reply
            message = self.pull.next()
        return []


@settings(max_examples=200, deadline=None)
@given(histories, histories, st.integers(1, 64 << 20), st.booleans())
@example(
    [entry(b"000", 1, 1, author=0), entry(b"000", 2, None, author=1), entry(b"001", 1, 1, author=1)],
    [entry(key, 1, None, author=1) for key in (b"000", b"001", b"002", b"003")]
    + [entry(key, 1, None, author=0) for key in (b"000", b"001")],
    2097153,
    False,
)
def test_converges_with_the_rust_rule(mine: list, theirs: list, size: int, we_dial: bool) -> None:
    rust = RustPeer()
    for e in sorted(theirs, key=lambda e: e.record.order):
        rust._put(e)
    ours = PullingPeer(mine, size)
    expected = merged([*ours.held, *rust.held])
    for _ in range(5):  # its deletes that do not hold come back for a session or two; four were seen to be needed
        run_session(*((ours, rust) if we_dial else (rust, ours)))
        ours.pull = Pull(size)
    assert ours.held == rust.held == expected


def test_messages_of_the_peer_are_bounded(monkeypatch) -> None:
    monkeypatch.setattr(pull, "PIECE", 20 * ENTRY_OVERHEAD)
    history = [entry(b"%05d" % n, n) for n in range(1, 1500)]
    for mine in ([], history[::100], history[:700]):
        for we_dial in (True, False):
            ours, rust = PullingPeer(mine, len(history) * ENTRY_OVERHEAD), RustPeer(history)
            most = 0

            def note(message) -> None:
                nonlocal most
                most = max(most, len(entries_of(message)))

            run_session(*((ours, rust) if we_dial else (rust, ours)), note)
            assert ours.held == rust.held == set(history)
            assert most <= 80
