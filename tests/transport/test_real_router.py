"""Port mapping against miniupnpd, the daemon of many home routers, in network namespaces; where all that is there."""

import os
import shutil
import subprocess
import sys
import time

import pytest
from tidings.transport.network import upnp

DEVICE = """
import asyncio
from tidings.transport.network import port_mapping
from tidings.transport.network.port_mapping import PortMapping

async def main():
    changed = asyncio.Event()
    mapping = PortMapping(4433, changed.set)
    await mapping.tried()
    print(mapping.addr, mapping.problem)
    await mapping.aclose()

asyncio.run(main())
"""
INIT = """
table inet filter {
    chain forward { type filter hook forward priority 0; policy accept; jump miniupnpd; }
    chain miniupnpd { }
    chain prerouting { type nat hook prerouting priority -100; jump prerouting_miniupnpd; }
    chain postrouting { type nat hook postrouting priority 100; jump postrouting_miniupnpd; oifname "wan" masquerade; }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
}
"""
CONFIG = """
ext_ifname=wan
listening_ip=lan
http_port=5000
enable_upnp={upnp}
enable_natpmp={pmp}
upnp_table_name=filter
upnp_nat_table_name=filter
upnp_forward_chain=miniupnpd
upnp_nat_chain=prerouting_miniupnpd
upnp_nat_postrouting_chain=postrouting_miniupnpd
secure_mode=yes
system_uptime=yes
uuid=1f2c1b0a-0000-4000-8000-000000000001
allow 1024-65535 0.0.0.0/0 1024-65535
"""
ROUTER, HOST = "tidings-test-router", "tidings-test-host"


def run(*words, **options):
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=60, **options).stdout


@pytest.fixture
def network():
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "nft", "miniupnpd"))):
        pytest.skip("needs root, ip, nft and miniupnpd")
    try:
        for name in (ROUTER, HOST):
            run("ip", "netns", "add", name)
        run("ip", "link", "add", "lan", "netns", ROUTER, "type", "veth", "peer", "name", "eth0", "netns", HOST)
        run("ip", "-n", ROUTER, "link", "add", "wan", "type", "veth", "peer", "name", "provider")
        for where, what in (
            (ROUTER, "address add 11.22.33.44/24 dev wan"),
            (ROUTER, "address add 192.168.77.1/24 dev lan"),
            (ROUTER, "link set wan up"),
            (ROUTER, "link set provider up"),
            (ROUTER, "link set lan up"),
            (ROUTER, "link set lo up"),
            (ROUTER, "route add default via 11.22.33.1 dev wan"),
            (HOST, "address add 192.168.77.2/24 dev eth0"),
            (HOST, "link set eth0 up"),
            (HOST, "link set lo up"),
            (HOST, "route add default via 192.168.77.1"),
        ):
            run("ip", "-n", where, *what.split())
        run("ip", "netns", "exec", ROUTER, "nft", "-f", "-", input=INIT)
        yield
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no such network here: {error.stderr}")
    finally:
        for name in (ROUTER, HOST):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.mark.parametrize("protocol", ["pmp", "upnp"])
def test_a_router_gives_a_port_and_takes_it_back(network, tmp_path, protocol):
    if protocol == "upnp" and not upnp.available:
        pytest.skip("async-upnp-client is not installed")
    config = tmp_path / "miniupnpd.conf"
    config.write_text(CONFIG.format(**{name: "yes" if name == protocol else "no" for name in ("upnp", "pmp")}))
    command = ["ip", "netns", "exec", ROUTER, "miniupnpd", "-d", "-f", config, "-P", tmp_path / "pid"]
    with (tmp_path / "log").open("w") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        time.sleep(1.5)
        assert daemon.poll() is None, (tmp_path / "log").read_text()
        said = run("ip", "netns", "exec", HOST, sys.executable, "-c", DEVICE)
        assert said.startswith("11.22.33.44:4433"), said + (tmp_path / "log").read_text()
        rules = run("ip", "netns", "exec", ROUTER, "nft", "list", "table", "inet", "filter")
        assert "4433" not in rules  # it was given back
    finally:
        daemon.terminate()
        daemon.wait(10)
