"""Document tickets: the upstream vector and damaged text."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidings.docs_sync.access.shares import Share
from tidings.docs_sync.access.tickets import DocTicket
from tidings.docs_sync.model.capability import Capability
from tidings.docs_sync.model.keys import NamespaceId, NamespaceSecret
from tidings.transport.addr import EndpointAddr, IpAddr
from tidings.transport.errors import InvalidTicket
from tidings.transport.keys import SecretKey
from tidings.transport.postcard import Writer
from tidings.transport.text import decode_base32
from tidings.transport.tickets import encode_ticket

ID = bytes.fromhex("ae58ff8833241ac82d6ff7611046ed67b5072d142c588d0063e942d9a75502b6")
NODE = EndpointAddr.of(SecretKey(b"\7" * 32).public, [IpAddr.of("127.0.0.1", 4433)])
WRITE = DocTicket(Capability(NamespaceSecret(b"\xb2" * 32).id, NamespaceSecret(b"\xb2" * 32)), (NODE,))


def test_the_upstream_vector() -> None:
    from tidings.transport.keys import EndpointId

    ticket = DocTicket(Capability(NamespaceId(ID)), (EndpointAddr(EndpointId(ID)),))
    assert decode_base32(str(ticket)[3:]) == b"\0\1" + ID + b"\1" + ID + b"\0"
    assert DocTicket.parse(str(ticket)) == ticket


def test_a_write_ticket() -> None:
    parsed = DocTicket.parse(str(WRITE))
    assert parsed.nodes == WRITE.nodes
    assert parsed.capability.secret.to_bytes() == b"\xb2" * 32
    assert "b2b2" not in repr(parsed)
    assert decode_base32(str(WRITE)[3:])[:3] == b"\0\0\x20"


@pytest.mark.parametrize(
    "text", ["", " ", "doc", "blob" + str(WRITE)[3:], str(WRITE)[:-1], str(WRITE) + "a", "docaa", str(WRITE)[:60]]
)
def test_not_a_ticket(text: str) -> None:
    with pytest.raises(InvalidTicket):
        DocTicket.parse(text)


def test_a_ticket_without_nodes() -> None:
    with pytest.raises(InvalidTicket, match="at least one"):
        DocTicket.parse(encode_ticket("doc", Writer().u8(1).raw(ID).varint(0)))


@given(st.integers(3, len(str(WRITE)) - 1), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_a_changed_letter_is_another_ticket_or_an_error(at: int, letter: str) -> None:
    text = str(WRITE)[:at] + letter + str(WRITE)[at + 1 :]
    try:
        assert (str(DocTicket.parse(text)) == str(WRITE)) == (text == str(WRITE))
    except InvalidTicket:
        assert text != str(WRITE)


GRANTS = [
    None,
    Share.issue(NamespaceSecret(b"\xb2" * 32), None, 5, None),
    Share.issue(NamespaceSecret(b"\xb2" * 32), NODE.id, 5, 2**40),
]


@given(st.booleans(), st.sampled_from(GRANTS), st.none() | st.binary(min_size=32, max_size=32), st.booleans())
def test_a_ticket_of_our_own_carries_all_of_it(write: bool, grant, key, restricted: bool) -> None:
    capability = WRITE.capability if write else WRITE.capability.read_only()
    ticket = DocTicket(capability, (NODE, NODE), grant, key, restricted)
    parsed = DocTicket.parse(str(ticket))
    assert str(parsed) == str(ticket)
    assert (parsed.key, parsed.restricted, parsed.nodes) == (key, restricted, ticket.nodes)
    assert (parsed.grant is None) == (grant is None)
    plain = grant is None and key is None and not restricted
    assert str(ticket).startswith("doc" if plain else "tdoc")
    assert str(ticket.iroh()) == str(DocTicket(capability, (NODE, NODE)))


def test_no_secret_in_words() -> None:
    grant = GRANTS[1]
    assert grant is not None and grant.bearer is not None
    ticket = DocTicket(WRITE.capability, (NODE,), grant, b"\xc3" * 32, True)
    for secret in (b"\xb2" * 32, b"\xc3" * 32, grant.bearer.to_bytes()):
        assert secret.hex() not in repr(ticket) and repr(secret)[2:-1] not in repr(ticket)
    assert repr(ticket).endswith("1 nodes, a share, the key, restricted)")


OWN = str(DocTicket(WRITE.capability, (NODE,), GRANTS[1], b"\xc3" * 32, True))


@given(st.integers(0, len(OWN) - 1), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_a_changed_letter_of_our_own_is_another_ticket_or_an_error(at: int, letter: str) -> None:
    text = OWN[:at] + letter + OWN[at + 1 :]
    try:
        assert (str(DocTicket.parse(text)) == OWN) == (text == OWN)
    except InvalidTicket:
        assert text != OWN


small = st.none() | st.booleans() | st.integers(0, 9) | st.binary(max_size=40) | st.text(max_size=4)
field = st.binary(max_size=40) | st.just(bytes(32)) | st.booleans() | st.lists(st.binary(max_size=70), max_size=2)
names = st.sampled_from(["id", "secret", "nodes", "share", "key", "restricted", "x"])


@given(st.recursive(small, st.lists) | st.dictionaries(names, field))
def test_any_msgpack_is_a_ticket_or_an_error(value) -> None:
    try:
        DocTicket.parse(encode_ticket("tdoc", Writer().raw(msgpack.packb(value))))
    except InvalidTicket:
        pass
