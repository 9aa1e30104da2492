from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidings.blobs import BlobFormat, BlobTicket, Hash
from tidings.transport import EndpointAddr, EndpointTicket, IpAddr, PublicKey, RelayUrl
from tidings.transport.errors import InvalidTicket

ID = PublicKey.parse("ae58ff8833241ac82d6ff7611046ed67b5072d142c588d0063e942d9a75502b6")
HASH = Hash.parse("0b84d358e4c8be6c38626b2182ff575818ba6bd3f4b90464994be14cb354a072")
PAYLOAD = bytes.fromhex(f"00{ID}000000{HASH}")
TEXT = "blob" + base64.b32encode(PAYLOAD).decode().rstrip("=").lower()

addresses = st.lists(
    st.one_of(
        st.builds(IpAddr, st.ip_addresses(), st.integers(0, 65535)),
        st.just(RelayUrl("https://relay.example./")),
    ),
    max_size=5,
)


def test_vector() -> None:
    assert str(BlobTicket(EndpointAddr(ID), HASH)) == TEXT
    assert BlobTicket.parse(f" {TEXT.upper()}\n") == BlobTicket(EndpointAddr(ID), HASH)


@given(addresses, st.sampled_from(BlobFormat))
def test_round_trip(addrs: list[IpAddr | RelayUrl], format: BlobFormat) -> None:
    ticket = BlobTicket(EndpointAddr.of(ID, addrs), HASH, format)
    assert BlobTicket.parse(str(ticket)) == ticket


@given(st.one_of(st.text(max_size=80), st.binary(max_size=80).map(lambda b: "blob" + base64.b32encode(b).decode())))
def test_any_text_gives_a_ticket_or_invalid_ticket(text: str) -> None:
    try:
        assert BlobTicket.parse(text)
    except InvalidTicket:
        pass


@pytest.mark.parametrize(
    "text", ["", "blob", TEXT[:-1], TEXT + "a", TEXT + "aaaaaaaa", TEXT[4:], str(EndpointTicket(EndpointAddr(ID)))]
)
def test_damage_is_refused(text: str) -> None:
    with pytest.raises(InvalidTicket):
        BlobTicket.parse(text)
