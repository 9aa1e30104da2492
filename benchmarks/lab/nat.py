"""What a home's router does to packets: NAT for IPv4, a firewall for IPv6, UDP blocked (RFC 4787's words).

| kind       | mapping              | filtering                  | how                                              |
|------------|----------------------|----------------------------|--------------------------------------------------|
| none       | no NAT               | no firewall                | public addresses behind the router               |
| cone       | endpoint-independent | endpoint-independent       | masquerade, and a map that lets anyone in        |
| restricted | endpoint-independent | address and port-dependent | masquerade, which keeps ports that are free      |
| symmetric  | address and port-dependent | address and port-dependent | masquerade with a random port for each flow |

Masquerade keeps a port only while its reverse flow is unknown to connection tracking. So a packet from outside that
nobody asked for must leave no trace: it is dropped on the way in, before its flow is confirmed. Were it answered with
an ICMP error, the port would be taken for this peer, and the next packet to the peer would leave from another port: the
router would turn symmetric exactly for those who punch. `nat_check` looks for that.

IPv6 is never translated. Behind every kind but none a firewall lets in only answers to what went out.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BLOCK_UDP", "KINDS", "UNBLOCK_UDP", "Behaviour", "goes_direct", "rules"]


@dataclass(frozen=True)
class Behaviour:
    mapping: str
    filtering: str


INDEPENDENT, DEPENDENT = "endpoint-independent", "address and port-dependent"
KINDS = {
    "none": Behaviour("none", INDEPENDENT),
    "cone": Behaviour(INDEPENDENT, INDEPENDENT),
    "restricted": Behaviour(INDEPENDENT, DEPENDENT),
    "symmetric": Behaviour(DEPENDENT, DEPENDENT),
}

BLOCK_UDP = """
table inet blocked {
  chain forward {
    type filter hook forward priority -10;
    meta l4proto udp drop
  }
}
"""
UNBLOCK_UDP = "delete table inet blocked"

FIREWALL = """
table inet filter {
  chain input {
    type filter hook input priority 0;
    iifname "wan" meta l4proto udp ct state new drop
  }
  chain forward {
    type filter hook forward priority 0;
    ct status dnat accept
    iifname "wan" ct state new drop
  }
}
"""
CONE = """
table ip nat {
  map open { type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; timeout 10m; size 65535; }
  chain prerouting {
    type nat hook prerouting priority dstnat;
    iifname "wan" meta l4proto udp dnat ip to udp dport map @open
  }
  chain postrouting {
    type nat hook postrouting priority srcnat;
    oifname "wan" meta l4proto udp update @open { udp sport : ip saddr . udp sport }
    oifname "wan" masquerade
  }
}
"""
MASQUERADE = """
table ip nat {
  chain postrouting {
    type nat hook postrouting priority srcnat;
    oifname "wan" masquerade OPTIONS
  }
}
"""


def rules(kind: str) -> str:
    """For nft, in the router's namespace, whose interface to the public network is ``wan``."""
    match kind:
        case "none":
            return ""
        case "cone":
            return FIREWALL + CONE
        case "restricted":
            return FIREWALL + MASQUERADE.replace("OPTIONS", "")
        case "symmetric":
            return FIREWALL + MASQUERADE.replace("OPTIONS", "fully-random")
    raise ValueError(f"no kind of NAT is called {kind}: {', '.join(KINDS)}")


def goes_direct(one: str, other: str) -> bool:
    """Whether two devices behind these can reach each other directly, once each knows how the other is seen.

    Who is symmetric is seen differently by everyone, so the other side must let in whoever comes.
    """
    return all(
        mine.mapping != DEPENDENT or theirs.filtering == INDEPENDENT
        for mine, theirs in ((KINDS[one], KINDS[other]), (KINDS[other], KINDS[one]))
    )
