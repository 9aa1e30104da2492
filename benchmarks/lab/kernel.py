"""What this machine can do: found out by trying, in namespaces of its own."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .cable import ROOT
from .namespaces import LabError, Namespaces, run, sweep

__all__ = ["Kernel", "check_origin", "look"]

TRIAL = """
table ip trial {
  map open { type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; timeout 1m; size 16; }
  chain in { type nat hook prerouting priority dstnat; dnat ip to udp dport map @open; }
  chain out { type nat hook postrouting priority srcnat; oifname "lo" masquerade fully-random; }
}
"""


@dataclass(frozen=True)
class Kernel:
    """``obstacle`` is why there can be no lab, None where there can."""

    release: str
    obstacle: str | None
    nft: str
    ipv6: bool
    tun: bool
    netem: bool
    tbf: bool

    def lines(self) -> list[str]:
        """For people, with what follows."""
        yes = {True: "yes", False: "no"}
        return [
            f"kernel {self.release}, {self.nft or 'no nft'}",
            f"namespaces and NAT: {self.obstacle or 'yes'}",
            f"ipv6: {yes[self.ipv6]}",
            f"tun: {yes[self.tun]}{'' if self.tun else ' (no bad cables: the ladder is skipped)'}",
            f"tc netem: {yes[self.netem]} (not used: delay and loss are made by a process, so results compare)",
            f"tc tbf: {yes[self.tbf]} (not used)",
        ]


def check_origin() -> None:
    """Raises LabError where ``import tidings`` gives other code than the tree that this lab is in: a table would then
    tell of one and name the commit of the other. Agents import what this process would."""
    import tidings

    if tidings.__file__ is None or not Path(tidings.__file__).samefile(ROOT / "__init__.py"):
        raise LabError(f"tidings would be imported from {tidings.__file__}, not from {ROOT}: see PYTHONPATH")


def look() -> Kernel:
    namespaces = Namespaces()
    obstacle, netem, tbf = None, False, False
    try:
        obstacle = _missing()
        if obstacle is None:
            sweep()
            trial = namespaces.make("trial")
            trial.exec("true")
            trial.ip(
                "link add bridge0 type bridge",
                "link add veth0 type veth peer name veth1",
                "link set veth0 master bridge0 up",
            )
            trial.nft(TRIAL)
            netem = _accepts(trial.command("tc", "qdisc", "add", "dev", "veth0", "root", "netem", "delay", "1ms"))
            limit = ["tbf", "rate", "1mbit", "burst", "10kb", "latency", "50ms"]
            tbf = _accepts(trial.command("tc", "qdisc", "replace", "dev", "veth0", "root", *limit))
    except LabError as error:
        obstacle = str(error).partition("\n")[0]
    finally:
        namespaces.close()
    return Kernel(
        release=platform.release(),
        obstacle=obstacle,
        nft=run("nft", "--version").strip() if shutil.which("nft") else "",
        ipv6=Path("/proc/sys/net/ipv6").exists(),
        tun=os.access("/dev/net/tun", os.R_OK | os.W_OK),
        netem=netem,
        tbf=tbf,
    )


def _missing() -> str | None:
    if platform.system() != "Linux":
        return "namespaces are Linux's"
    if os.geteuid():
        return "root is needed to make network namespaces"
    for command, package in (("ip", "iproute2"), ("nft", "nftables")):
        if not shutil.which(command):
            return f"the command {command} is missing: install {package}"
    return None


def _accepts(command: list[str]) -> bool:
    return not subprocess.run(command, capture_output=True, check=False).returncode if shutil.which("tc") else False
