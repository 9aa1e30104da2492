"""A small run of the soak, as `make soak` is a large one."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.soak.census import LIMITS, growth
from benchmarks.soak.ledger import DUE, Ledger

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
def test_nothing_is_lost_left_or_grows_under_churn():
    options = ["--nodes", "8", "--processes", "2", "--minutes", "0.25", "--every", "1.5"]
    command = [sys.executable, "-m", "benchmarks.soak", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost 0" in done.stdout and "0 tasks, 0 connections, 0 descriptors" in done.stdout


def test_who_stayed_and_did_not_hear_is_found():
    ledger = Ledger()
    for member in range(4):
        ledger.enter(member, 0.0)
    ledger.hear(100, 1, 5.1)  # told before what was said
    ledger.say(100, 0, 5.0)
    ledger.say(101, 3, 5.0)
    ledger.enter(4, 6.0)  # came later
    ledger.leave(3, 7.0)  # is owed nothing, and neither is anybody what it said
    assert ledger.open(8.0)
    ledger.judge(4.0 + DUE)
    assert not ledger.lost
    ledger.judge(6.0 + DUE)
    assert ledger.lost == [(100, 2)]
    assert ledger.counts["owed"] == 2
    assert ledger.slowest == pytest.approx(0.1)


def test_what_grows_steadily_is_found_and_a_peak_is_not():
    flat = [dict.fromkeys(LIMITS, 1000.0) for _ in range(40)]
    for each in flat[30:34]:
        each["tasks"] = 5000.0
    assert not any(each.grew for each in growth(flat))
    leaking = [dict.fromkeys(LIMITS, 1000.0 + 50 * number) for number in range(40)]
    assert all(each.grew for each in growth(leaking))
