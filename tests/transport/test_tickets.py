"""Vectors made by PyPI ``iroh`` 1.2.0 (``reference/iroh-transport.md`` 2f)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidings.transport.addr import EndpointAddr, IpAddr, RelayUrl
from tidings.transport.errors import InvalidKey, InvalidTicket
from tidings.transport.keys import PublicKey, SecretKey
from tidings.transport.tickets import EndpointTicket

KEY = SecretKey(bytes(32)).public
HEAD = "endpointaa5wuj54z23killcuounaktpbvzwkmqvo4o6eq5ghlaerimllhncs"
VECTORS = [
    ([], HEAD + "aa"),
    ([IpAddr.parse("127.0.0.1:1234")], HEAD + "aibab7qaaab2ieq"),
    ([IpAddr.parse("[2001:db8::1]:443")], HEAD + "aibaeqacdnyaaaaaaaaaaaaaaaaaaa3way"),
    ([RelayUrl("https://example.com")], HEAD + "aiacruhi5dqom5c6l3fpbqw24dmmuxgg33nf4"),
    (
        [
            RelayUrl("https://example.com."),
            *map(IpAddr.parse, ["10.0.0.1:80", "[::1]:80", "10.0.0.1:79", "1.2.3.4:65535"]),
        ],
        HEAD
        + "biacvuhi5dqom5c6l3fpbqw24dmmuxgg33nfyxqcaabaibqj777amaqacqaaaau6aiabiaaaakqaeaqaaaaaaaaaaaaaaaaaaaaaaaacua",
    ),
]


@pytest.mark.parametrize(("addrs", "text"), VECTORS)
def test_vectors(addrs, text):
    ticket = EndpointTicket(EndpointAddr.of(KEY, addrs))
    assert str(ticket) == text
    assert EndpointTicket.parse(text) == EndpointTicket.parse(f"  {text.upper()}\n") == ticket


def test_a_changed_letter_is_refused_or_names_another_peer():
    """Base32 has no checksum: a changed letter is either seen, or gives another key or address that will not answer."""
    text = VECTORS[1][1]
    seen = 0
    for at in range(len(text)):
        changed = text[:at] + ("b" if text[at] != "b" else "c") + text[at + 1 :]
        try:
            assert EndpointTicket.parse(changed) != EndpointTicket.parse(text)
        except InvalidTicket:
            seen += 1
    assert seen > len(text) // 3


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("doc" + VECTORS[0][1][8:], "'doc'"),
        ("blobaaaa", "'blob'"),
        ("hello", "not a ticket"),
        ("endpoint", "version"),
        (VECTORS[0][1][:-3], "damaged"),
        (VECTORS[0][1] + "aa", "damaged"),
        ("endpointae" + VECTORS[0][1][10:], "version"),
        ("endpoint" + "a" * 20_000, "too long"),
        ("endpoint!!", "damaged"),
    ],
)
def test_what_is_no_ticket_says_why(text, hint):
    with pytest.raises(InvalidTicket, match=hint):
        EndpointTicket.parse(text)


@given(st.text() | st.text("abcdefghijklmnopqrstuvwxyz234567").map(lambda text: "endpoint" + text))
def test_any_text_is_a_ticket_or_an_invalid_one(text):
    try:
        EndpointTicket.parse(text)
    except InvalidTicket:
        pass


def test_about_half_of_all_keys_are_seen_to_be_mistyped():
    refused = 0
    for n in range(64):
        try:
            PublicKey.parse(n.to_bytes(32, "big").hex())
        except InvalidKey:
            refused += 1
    assert 16 < refused < 48
