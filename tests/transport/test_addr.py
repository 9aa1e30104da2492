import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidings.transport.addr import CustomAddr, EndpointAddr, IpAddr, RelayUrl
from tidings.transport.errors import DecodeError, InvalidAddress
from tidings.transport.keys import EndpointId
from tidings.transport.postcard import Reader, Writer

UPSTREAM_ID = "ae58ff8833241ac82d6ff7611046ed67b5072d142c588d0063e942d9a75502b6"

ip_addrs = st.builds(IpAddr, st.ip_addresses(), st.integers(0, 65_535))
relays = st.from_regex(r"https?://[a-z]{1,10}(\.[a-z]{1,5}){0,2}\.?(:[1-9][0-9]{0,3})?/", fullmatch=True).map(RelayUrl)
customs = st.builds(CustomAddr, st.integers(0, 2**64 - 1), st.binary(max_size=40))
addrs = st.builds(
    EndpointAddr.of,
    st.binary(min_size=32, max_size=32).map(EndpointId),
    st.lists(ip_addrs | relays | customs, max_size=8),
)


def encode(addr):
    out = Writer()
    addr.write(out)
    return out.finish()


@given(addrs)
def test_addresses_come_back(addr):
    reader = Reader(encode(addr))
    assert EndpointAddr.read(reader) == addr
    reader.end()


@given(st.binary(max_size=200))
def test_any_bytes_give_an_address_or_a_decode_error(data):
    try:
        EndpointAddr.read(Reader(bytes(32) + data))
    except DecodeError:
        pass


def test_upstream_vector():
    addr = EndpointAddr.of(
        EndpointId.parse(UPSTREAM_ID), [RelayUrl("http://derp.me./"), IpAddr.parse("127.0.0.1:1024")]
    )
    expected = UPSTREAM_ID + "02" + "0010687474703a2f2f646572702e6d652e2f" + "01007f0000018008"
    assert encode(addr).hex() == expected


def test_order_is_relay_then_ipv4_then_ipv6_then_port():
    texts = ["[::1]:80", "10.0.0.1:80", "10.0.0.1:79", "1.2.3.4:65535"]
    addr = EndpointAddr.of(
        EndpointId(bytes(32)), [CustomAddr(1, b""), *map(IpAddr.parse, texts), RelayUrl("https://r")]
    )
    assert [str(a) for a in addr.sorted()] == [
        "https://r/",
        "1.2.3.4:65535",
        "10.0.0.1:79",
        "10.0.0.1:80",
        "[::1]:80",
        "1_",
    ]
    assert [str(a) for a in addr.direct] == ["1.2.3.4:65535", "10.0.0.1:79", "10.0.0.1:80", "[::1]:80"]
    assert addr.relays == [RelayUrl("https://r/")]


@pytest.mark.parametrize(
    ("given_url", "url"),
    [
        ("https://example.com", "https://example.com/"),
        ("https://EXAMPLE.com:443/", "https://example.com/"),
        ("http://example.com.:80", "http://example.com./"),
        ("http://127.0.0.1:3340", "http://127.0.0.1:3340/"),
        ("https://[::1]:8443/x?y=1", "https://[::1]:8443/x?y=1"),
    ],
)
def test_relay_urls_are_normalised(given_url, url):
    assert str(RelayUrl(given_url)) == url


@pytest.mark.parametrize(
    "url", ["", "example.com", "ftp://x/", "https://", "https://x:99999/", "https://" + "a" * 3000]
)
def test_other_urls_are_refused(url):
    with pytest.raises(InvalidAddress):
        RelayUrl(url)


@pytest.mark.parametrize(
    "text", ["", "1.2.3.4", "1.2.3.4:", "1.2.3.4:x", "1.2.3.4:70000", ":1", "::1", "host:1", "1.2.3.4:٣"]
)
def test_text_that_is_no_address_is_refused(text):
    with pytest.raises(InvalidAddress):
        IpAddr.parse(text)


def test_mapped_ipv6_is_ipv4_and_scope_is_dropped():
    assert IpAddr.parse("[::ffff:1.2.3.4]:5") == IpAddr.parse("1.2.3.4:5")
    assert IpAddr(ipaddress.IPv6Address("fe80::1%eth0"), 1) == IpAddr.parse("[fe80::1]:1")


def test_a_million_promised_addresses_cost_nothing():
    with pytest.raises(DecodeError):
        EndpointAddr.read(Reader(bytes(32) + Writer().varint(1_000_000).finish()))
