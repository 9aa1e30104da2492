from tidings.transport import EndpointAddr, EndpointId, IpAddr, MemoryLookup
from tidings.transport.lookup.memory import MAX_ADDRESSES, MAX_PEERS

A = EndpointId(bytes(32))


def addr(n):
    return EndpointAddr.of(A, [IpAddr.of("10.0.0.1", n)])


def test_addresses_add_up_and_go():
    lookup = MemoryLookup()
    assert lookup.get(A) is None
    lookup.add(EndpointAddr(A))
    assert lookup.get(A) is None
    lookup.add(addr(1))
    lookup.add(addr(2))
    assert lookup.get(A) == addr(1).merged(addr(2))
    lookup.remove(A)
    lookup.remove(A)
    assert lookup.get(A) is None


def test_the_newest_addresses_of_a_peer_stay():
    lookup = MemoryLookup()
    for n in range(1, MAX_ADDRESSES + 11):
        lookup.add(addr(n))
    ports = {place.port for place in lookup.get(A).direct}
    assert ports == set(range(11, MAX_ADDRESSES + 11))


def test_the_peer_unused_for_longest_is_forgotten_first():
    lookup = MemoryLookup()
    ids = [EndpointId(n.to_bytes(32, "big")) for n in range(MAX_PEERS + 1)]
    for id in ids[:-1]:
        lookup.add(EndpointAddr.of(id, addr(1).addrs))
    assert lookup.get(ids[0]) is not None
    lookup.add(EndpointAddr.of(ids[-1], addr(1).addrs))
    assert lookup.get(ids[0]) is not None
    assert lookup.get(ids[1]) is None
