"""The network's state, and its changes: made up, and real ones in a namespace."""

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
from ipaddress import ip_address

import pytest
from tidings.transport.network import monitor as monitor_module
from tidings.transport.network.monitor import NetworkMonitor, watch
from tidings.transport.network.state import (
    NetworkState,
    _default_routes_v4,
    _default_routes_v6,
    difference,
    read_state,
)

WIFI = ("wlan0", ip_address("192.168.1.7"))
LTE = ("wwan0", ip_address("10.20.30.40"))
ROUTE = (4, "wlan0", "0101A8C0")


def test_differences_in_words():
    old = NetworkState(frozenset([WIFI]), frozenset([ROUTE]))
    assert difference(old, old) == ""
    assert difference(old, NetworkState(frozenset([LTE]), old.routes)) == (
        "10.20.30.40 came to wwan0, 192.168.1.7 went from wlan0"
    )
    assert "the default route of IPv4 went" in difference(old, NetworkState(old.addresses))
    other = NetworkState(old.addresses, frozenset([(4, "wlan0", "0201A8C0"), (6, "wlan0", "fe80")]))
    assert difference(old, other) == "the default route of IPv4 is another, the default route of IPv6 came"


def test_routes_as_linux_writes_them():
    v4 = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
eth1\t00000000\t0101A8C0\t0002\t0\t0\t100\t00000000\t0\t0\t0
"""
    assert list(_default_routes_v4(v4.splitlines())) == [("eth0", "0101A8C0")]
    zero, router = "0" * 32, "fe80" + "0" * 27 + "1"
    v6 = f"""{zero} 00 {zero} 00 {router} 00000400 00000001 00000000 00000003     eth0
{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo
20010db8{"0" * 24} 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001     eth0
"""
    assert list(_default_routes_v6(v6.splitlines())) == [("eth0", router)]
    assert list(_default_routes_v4(["junk", ""])) == []


def test_this_machine_has_a_state():
    state = read_state()
    assert not any(ip.is_loopback or ip.is_link_local for ip in state.ips)


async def test_changes_are_told_once_and_not_after_the_end(monkeypatch):
    monkeypatch.setattr(monitor_module, "_open_netlink", lambda: None)
    states = [NetworkState(frozenset([WIFI]))]
    monitor = NetworkMonitor(read=lambda: states[-1], poll=0.02)
    told, others = [], []
    first, second = monitor.listen(told.append), monitor.listen(others.append)
    await asyncio.sleep(0.1)
    assert told == []
    states.append(NetworkState(frozenset([LTE])))
    await asyncio.sleep(0.2)
    assert len(told) == len(others) == 1
    assert "10.20.30.40 came" in told[0].why and not told[0].slept and told[0].state == states[-1]
    await first.aclose()
    states.append(NetworkState())
    await asyncio.sleep(0.2)
    assert (len(told), len(others)) == (1, 2)
    await second.aclose()
    await second.aclose()
    assert not monitor._tasks


async def test_a_listener_that_fails_costs_nobody_else(monkeypatch, caplog):
    monkeypatch.setattr(monitor_module, "_open_netlink", lambda: None)
    states = [NetworkState()]
    monitor = NetworkMonitor(read=lambda: states[-1], poll=0.02)
    told = []
    watches = [monitor.listen(lambda change: 1 / 0), monitor.listen(told.append)]
    await asyncio.sleep(0.05)
    states.append(NetworkState(frozenset([WIFI])))
    await asyncio.sleep(0.2)
    assert len(told) == 1 and "failed" in caplog.text
    for each in watches:
        await each.aclose()


async def test_sleep_is_noticed(monkeypatch):
    monkeypatch.setattr(monitor_module, "CLOCK_CHECK", 0.02)
    days = [0.0]
    monitor = NetworkMonitor(clock=lambda: days[-1])
    told = []
    listening = monitor.listen(told.append)
    await asyncio.sleep(0.1)
    assert told == []
    days.append(3600.0)
    await asyncio.sleep(0.1)
    assert [change.slept for change in told] == [True]
    await listening.aclose()


async def test_one_monitor_serves_all_of_a_loop():
    watches = [watch(print) for _ in range(20)]
    assert len({id(each._monitor) for each in watches}) == 1
    assert len([task for task in asyncio.all_tasks() if task.get_name() == "network monitor"]) == 2
    for each in watches:
        await each.aclose()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "network monitor"]


PROGRAM = """
import asyncio, json
from tidings.transport.network import watch
async def main():
    told = asyncio.Queue()
    listening = watch(told.put_nowait)
    await asyncio.sleep(0.2)
    print("ready", flush=True)
    while True:
        change = await told.get()
        print(json.dumps(change.why), flush=True)
asyncio.run(main())
"""


@pytest.mark.skipif(shutil.which("ip") is None, reason="needs the ip command")
async def test_real_changes_in_a_namespace():
    name = "tidings-netmon"

    def ip(*call):
        subprocess.run(["ip", *call], check=True, capture_output=True)

    with contextlib.suppress(subprocess.CalledProcessError):
        ip("netns", "del", name)
    try:
        ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    try:
        process = await asyncio.create_subprocess_exec(
            "ip", "netns", "exec", name, sys.executable, "-c", PROGRAM, stdout=-1
        )
        assert process.stdout is not None
        async with asyncio.timeout(20):
            assert await process.stdout.readline() == b"ready\n"
            ip("-n", name, "link", "add", "one", "type", "veth", "peer", "name", "two")
            ip("-n", name, "addr", "add", "192.0.2.7/24", "dev", "one")
            ip("-n", name, "link", "set", "one", "up")
            ip("-n", name, "link", "set", "two", "up")
            assert "192.0.2.7 came to one" in json.loads(await process.stdout.readline())
            ip("-n", name, "route", "add", "default", "via", "192.0.2.1")
            assert "the default route of IPv4 came" in json.loads(await process.stdout.readline())
            ip("-n", name, "addr", "del", "192.0.2.7/24", "dev", "one")
            assert "192.0.2.7 went from one" in json.loads(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()
        ip("netns", "del", name)
