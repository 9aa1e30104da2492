"""How ``tidings doc`` tells of entries and of what happens to a document."""

from __future__ import annotations

import time

from ..docs_sync import ContentReady, DocEvent, Entry, SyncFinished
from .output import Output, printable

__all__ = ["described", "row", "tell", "when"]


def described(entry: Entry) -> dict[str, object]:
    """An entry for a program: keys that are no UTF-8 carry escapes, ``key_hex`` is exact."""
    return {
        "key": entry.key.decode(errors="backslashreplace"),
        "key_hex": entry.key.hex(),
        "author": str(entry.author),
        "hash": str(entry.hash),
        "size": entry.size,
        "timestamp": entry.timestamp,
    }


def row(entry: Entry) -> str:
    """An entry for a person."""
    size = "deleted" if entry.is_tombstone else str(entry.size)
    key = printable(entry.key.decode(errors="replace"))
    return f"{size:>12}  {when(entry.timestamp)}  {entry.author.short()}  {key}"


def when(time_us: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_us / 1e6))


def tell(output: Output, event: DocEvent) -> None:
    """Syncs and contents; entries are told otherwise."""
    match event:
        case ContentReady(hash):
            output.event("content", f"content of {hash} is here", hash=str(hash))
        case SyncFinished():
            text = f"sync with {event.peer.short()}: " + (
                event.error or f"{event.received} received, {event.sent} sent"
            )
            fields = {"received": event.received, "sent": event.sent, "error": event.error}
            output.event("sync", text, peer=str(event.peer), **fields)
