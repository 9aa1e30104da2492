"""A small run of the simulator, as `make sim` runs a large one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gossip_sim.reliability import SCENARIOS


@pytest.mark.timeout(180)
def test_five_hundred_nodes_do_as_the_papers_say():
    command = [sys.executable, "-m", "benchmarks.gossip_sim", "--nodes", "500", "--seeds", "1", "--cycles", "10"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr

    def row(name):
        line = re.findall(rf"^{re.escape(name)} .*$", done.stdout, re.MULTILINE)[0]
        return re.split(r"\s{2,}", line.strip())[1:]

    assert row("Table 1: payloads, single sender")[0] == "499"
    assert float(row("RMR, single sender")[3]) < 0.05
    assert float(row("LDH, single sender")[3]) <= 9
    for senders in ("many senders", "many, ways of 10 to 50 ms"):
        assert float(row(f"RMR, {senders}")[3]) < 0.3 and float(row(f"LDH, {senders}")[3]) <= 17
    assert "deliveries missed in all of these: 0" in done.stdout
    assert float(row("Fig. 5: nodes with in-degree 5")[0].rstrip("%")) > 85
    assert float(row("20%")[0].rstrip("%")) > 99
    for name in SCENARIOS:
        assert row(name)[1] == "100 %"
    assert "alive at the end and not joined: 0;" in done.stdout
    for scenario in ("single sender", "many senders", "burst"):
        ldh, most_ldh, rmr, most_rmr, missed = map(float, row(scenario))
        assert ldh < most_ldh and rmr < most_rmr and missed == 0
