"""``python -m benchmarks.soak --nodes 50 --minutes 10``: real endpoints on loopback in one topic with a log.

Half of the nodes stay; of the others one about every second leaves politely, vanishes without a word, or comes back, or
a new one comes, and five messages a second are said. After a warm-up of a quarter of the time memory and objects are
counted. In the end everybody leaves, and what is left is counted.

Exit status 1 where something grew more than its limit (the median of the last quarter against that of the second),
where a task, a connection or a descriptor was left, or where somebody who stayed did not hear what somebody who stayed
had said.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from .report import show
from .run import ROOT, Outcome, Plan, soak


def versions() -> str:
    packages = ", ".join(f"{package} {version(package)}" for package in ("aioquic", "cryptography", "PyNaCl"))
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    return f"python {platform.python_version()}, {packages}; commit {commit}"


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.splitlines()[0])
    options.add_argument("--nodes", type=int, default=Plan.nodes)
    options.add_argument("--minutes", type=float, default=Plan.seconds / 60)
    options.add_argument("--processes", type=int, default=Plan.processes, help="that the nodes are in")
    options.add_argument("--rate", type=float, default=Plan.rate, help="messages a second, of all nodes together")
    options.add_argument("--every", type=float, default=Plan.every, help="seconds until the next node comes or goes")
    options.add_argument("--seed", type=int, default=Plan.seed)
    options.add_argument("--save", type=Path, help="a file for what is printed in the end")
    args = options.parse_args()
    plan = Plan(args.nodes, 60 * args.minutes, args.processes, args.rate, args.every, args.seed)
    console = Console(width=118, highlight=False, record=True)
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("starting", total=1.0)

        def update(outcome: Outcome, done: float) -> None:
            known = outcome.samples()
            memory = f", {known[-1]['RSS, MB']:.0f} MB" if known else ""
            here = f"{outcome.here} nodes, {outcome.ledger.counts['heard']:,} heard{memory}"
            progress.update(bar, completed=done, description=here)

        outcome = asyncio.run(soak(plan, update))
    console.print(f"python -m benchmarks.soak {' '.join(sys.argv[1:])}", soft_wrap=True)
    console.print(versions())
    show(outcome, console)
    if args.save is not None:
        args.save.write_text(console.export_text())
    sys.exit(not outcome.good)


if __name__ == "__main__":
    main()
