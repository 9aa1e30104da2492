"""How often each client may ask, by its address."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

from ...transport.bucket import Bucket

__all__ = ["Limiter"]

MAX_CLIENTS = 16_384  # the one not heard of for longest is forgotten first
SITE = 64  # bits of an IPv6 address that one client may have all addresses of


class Limiter:
    """``rate`` requests a second for each client, up to ``burst`` at once; time in seconds is a parameter."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def allows(self, host: str, now: float) -> bool:
        key = _client(host)
        bucket = self._buckets.pop(key, None) or Bucket(self._rate, self._burst, now)
        self._buckets[key] = bucket
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        if bucket.take(1, now):
            bucket.take(-1, now)  # what is refused costs nothing
            return False
        return True


def _client(host: str) -> str:
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if ip.version == 6 and ip.ipv4_mapped is None:
        return str(ipaddress.ip_network((ip, SITE), strict=False))
    return str(ip)
