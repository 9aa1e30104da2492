"""The smallest of labs: two homes behind NATs that open ports for known peers alone, dialling through a relay."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="namespaces are made by root")
def test_two_homes_reach_each_other_directly():
    command = [sys.executable, "-m", "benchmarks.lab", "--only", "matrix", "--kinds", "restricted", "--repeat", "1"]
    lab = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    if "namespaces and NAT: yes" not in lab.stdout:
        pytest.skip("this kernel, or this container, does not let us make networks")
    assert lab.returncode == 0, lab.stdout + lab.stderr
    assert "restricted dials restricted: 1 direct, 0 relayed" in lab.stdout
