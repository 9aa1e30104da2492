"""Which window of a document a session checks a second time, and where the next one with the same peer begins.

`keyed` has the fingerprints and says why. Whoever finds that the first pass is over chooses the window; both note where
it ended, so that the next session goes on from there, whichever side chooses then.
"""

from __future__ import annotations

import secrets

from .errors import SyncViolation
from .keyed import WINDOW, KeyedRange, KeyedSource, window_of
from .keys import NamespaceId
from .ranges import IdRange
from .reconcile import EMPTY_ID, Message, RangeFingerprint
from .store import WHOLE, DocsStore
from .validity import MAX_KEY_SIZE
from .views import View

__all__ = ["SecondCheck"]

MAX_CURSOR = 64 + MAX_KEY_SIZE  # bytes of an id that is kept


class SecondCheck:
    """Of one session; a `sync.SecondPass`."""

    def __init__(self, store: DocsStore, namespace: NamespaceId, peer: bytes, key: bytes, prefix: bytes | None) -> None:
        self.key = key
        self._store = store
        self._namespace = namespace
        self._peer = peer
        self._view = View(prefix=prefix)
        self._window: IdRange | None = None

    async def begin(self) -> Message:
        """Where the document fits no window: from where the last one ended, or anywhere if that is not known."""
        message = await self._store.look(self._namespace, self._view, self._whole)
        if message is None:
            cursor = None if self._is_part else await self._store.checked(self._namespace, self._peer)
            message = await self._store.look(self._namespace, self._view, lambda rows: self._from(rows, cursor))
        return message

    def begun(self, message: Message) -> None:
        if len(message) != 1 or not isinstance(message[0], RangeFingerprint):
            raise SyncViolation("a second check begins with one fingerprint")
        self._window = message[0].range

    async def passed(self) -> None:
        window = self._window
        if window is None or window.is_whole or self._is_part:
            return
        end = window.y
        if end.startswith(bytes(self._namespace)) and len(end) <= MAX_CURSOR:
            await self._store.note_checked(self._namespace, self._peer, end)

    @property
    def _is_part(self) -> bool:
        """Its windows begin anywhere: the cursor is the whole document's."""
        return self._view.prefix is not None

    def _whole(self, rows: KeyedSource) -> Message | None:
        if rows.summary(WHOLE).size > WINDOW:
            return None
        return self._compare(rows, WHOLE)

    def _from(self, rows: KeyedSource, cursor: bytes | None) -> Message:
        if cursor is None:
            size = rows.summary(WHOLE).size
            cursor = rows.ids_at(WHOLE, [secrets.randbelow(size)])[0] if size else EMPTY_ID
        return self._compare(rows, window_of(rows, cursor))

    def _compare(self, rows: KeyedSource, window: IdRange) -> Message:
        self._window = window
        return [RangeFingerprint(window, KeyedRange(rows, self.key).summary(window).fingerprint)]
