"""Who is at the relay, and what is for whom: the relay's core, without I/O.

An id may have several connections. The newest gets what is sent to the id; older ones may send, are told so, and come
back in turn when newer ones leave. When the last one leaves, those to whom the id had sent datagrams are told that it
is gone: they wait for answers that will not come.

The board learns who talks to whom, which it needs to, and looks at no datagram.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from ..keys import EndpointId
from .frames import EndpointGone, Frame, Health, Status, StatusCode, Version, forward

__all__ = ["MAX_CORRESPONDENTS", "Client", "Switchboard", "say"]

MAX_CORRESPONDENTS = 1024  # ids that are told when one leaves: the latest that it sent to

_TEXTS = {
    StatusCode.HEALTHY: "",
    StatusCode.SAME_ID_ELSEWHERE: "another endpoint with this id is connected, and gets what is sent to it",
    StatusCode.RATE_LIMITED: "more was sent than this relay allows: it is slowed down",
}


class Client(Protocol):
    @property
    def id(self) -> EndpointId: ...
    @property
    def version(self) -> Version: ...


C = TypeVar("C", bound=Client)


class Switchboard(Generic[C]):
    """`join` and `leave` give what has to be said to whom; `route` is for every message of a client that has joined."""

    def __init__(self) -> None:
        self._clients: dict[bytes, list[C]] = {}  # the newest last
        self._correspondents: dict[bytes, OrderedDict[bytes, None]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._clients.values()))

    def __iter__(self) -> Iterator[C]:
        for clients in self._clients.values():
            yield from clients

    @property
    def ids(self) -> int:
        return len(self._clients)

    def join(self, client: C) -> list[tuple[C, Frame]]:
        clients = self._clients.setdefault(bytes(client.id), [])
        clients.append(client)
        return [(clients[-2], say(StatusCode.SAME_ID_ELSEWHERE, clients[-2].version))] if len(clients) > 1 else []

    def leave(self, client: C) -> list[tuple[C, Frame]]:
        """May be called again."""
        id = bytes(client.id)
        clients = self._clients.get(id, [])
        if client not in clients:
            return []
        was_active = clients[-1] is client
        clients.remove(client)
        if clients:
            return [(clients[-1], say(StatusCode.HEALTHY, clients[-1].version))] if was_active else []
        del self._clients[id]
        told = self._correspondents.pop(id, ())
        return [(self._clients[each][-1], EndpointGone(client.id)) for each in told if each in self._clients]

    def route(self, client: C, message: bytes) -> tuple[C | None, bytes] | None:
        """For datagrams of ``client``: to whom (None: nobody is there) and what. None: it is another frame.

        Raises DecodeError.
        """
        found = forward(message, bytes(client.id))
        if found is None:
            return None
        id, forwarded = found
        clients = self._clients.get(id)
        if clients is None:
            return None, forwarded
        known = self._correspondents.setdefault(bytes(client.id), OrderedDict())
        if id not in known:
            known[id] = None
            if len(known) > MAX_CORRESPONDENTS:
                known.popitem(last=False)
        return clients[-1], forwarded


def say(code: StatusCode, version: Version) -> Frame:
    """A status in the version's words."""
    return Status(code) if version == "iroh-relay-v2" else Health(_TEXTS[code])
