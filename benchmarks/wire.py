"""Messages and bytes of reconciliation: the real store and the real codec, two sides in memory."""

import random

from tidings.docs_sync.model.entry import EntryId, Record, SignedEntry
from tidings.docs_sync.model.messages import Sync, encode_sync
from tidings.docs_sync.model.reconcile import answer, initial_message, limits_for, take_values
from tidings.docs_sync.store.put_rows import put_entries
from tidings.docs_sync.store.rows import EntryRows
from tidings.storage import schema
from tidings.storage.engine import writer_engine

NAMESPACE, AUTHOR = b"\x01" * 32, b"\x02" * 32
DIFFERENT = 0, 1, 10, 100, 1_000
FAR = 0.1

# Rounds (of two messages) and bytes, for 0, 1, 10, 100 and 1,000 differences.
NEGENTROPY = {
    10_000: [(1, 322), (2, 1_006), (2, 7_082), (2, 41_592), (2, 138_719)],
    100_000: [(1, 322), (2, 1_725), (2, 13_004), (2, 110_576), (2, 720_128)],
    1_000_000: [(1, 336), (3, 2_356), (3, 19_525), (3, 170_851), None],
}


def entry(n, timestamp):
    """Unsigned: signatures are checked before, and only their length counts here."""
    record = Record(5, n.to_bytes(32, "big"), timestamp)
    return SignedEntry(EntryId(NAMESPACE, AUTHOR, b"key/%08d" % n), record, bytes(64), bytes(64))


def put(connection, entries):
    return put_entries(connection, NAMESPACE, entries, now_us=1, history=False)


class Side:
    def __init__(self, size):
        self.engine = writer_engine(None)
        self.connection = self.engine.connect()
        schema.create(self.connection)
        with self.connection.begin():
            for start in range(0, size, 5_000):
                put(self.connection, [entry(n, 1_000) for n in range(start, min(start + 5_000, size))])

    def close(self):
        self.connection.close()
        self.engine.dispose()


def reconcile(sides, limits):
    message = initial_message(EntryRows(sides[0].connection, NAMESPACE), limits)
    messages = size = 0
    while message:
        messages, size = messages + 1, size + 4 + len(encode_sync(Sync(message)))
        connection = sides[messages % 2].connection
        taken = take_values(lambda entries, connection=connection: put(connection, entries), message)
        message = answer(EntryRows(connection, NAMESPACE), message, limits, taken.owed)
    return messages, size


def measure(sizes):
    """A row of text for each size and number of differences; half of these are newer on either side."""
    for size in sizes:
        sides = [Side(size), Side(size)]
        for index, different in enumerate(DIFFERENT):
            cells = []
            for limits in (limits_for(0.0, size, lists=True), limits_for(FAR, size, lists=True)):
                changes = [side.connection.begin() for side in sides]
                numbers = random.Random(different).sample(range(size), different)
                for side, mine in zip(sides, (numbers[::2], numbers[1::2]), strict=True):
                    put(side.connection, [entry(n, 2_000) for n in mine])
                cells.append("{} / {:,}".format(*reconcile(sides, limits)))
                for change in changes:
                    change.rollback()
            published = NEGENTROPY[size][index]
            theirs = f"{2 * published[0]} / {published[1]:,}" if published else "-"
            yield f"{size:,}", f"{different:,}", *cells, theirs
        for side in sides:
            side.close()
