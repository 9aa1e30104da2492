"""``python -m benchmarks.gossip_sim``: both papers' figures at 10,000 nodes, and iroh's own scenarios."""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from .experiments import iroh_scenarios, run_seed
from .report import scenarios, tables


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gossip_sim", description=__doc__)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=3, help="runs, seeded 1, 2, ...")
    parser.add_argument("--cycles", type=int, default=100, help="broadcasts of each kind of sender")
    parser.add_argument("--save", type=Path, help="a folder for the tables and the plots (these need matplotlib)")
    arguments = parser.parse_args()
    gc.disable()  # looking through millions of objects again and again takes longer than all else; little is garbage
    cores = os.cpu_count() or 1
    run = partial(
        run_seed,
        seeds=arguments.seeds,
        nodes=arguments.nodes,
        cycles=arguments.cycles,
        at_once=max(1, cores // arguments.seeds),
        say=partial(_say, time.monotonic()),
    )
    with ProcessPoolExecutor(min(cores, arguments.seeds), multiprocessing.get_context("fork")) as pool:
        found = list(pool.map(run, range(1, arguments.seeds + 1)))
    text = tables(found, arguments.nodes) + "\n\n" + scenarios(iroh_scenarios(1))
    print("\n" + text)
    if arguments.save is not None:
        from .plots import plot

        arguments.save.mkdir(parents=True, exist_ok=True)
        (arguments.save / "tables.txt").write_text(text + "\n")
        plot(found, arguments.save)


def _say(begun: float, what: str) -> None:
    print(f"[{time.monotonic() - begun:5.0f} s] {what}", flush=True)


if __name__ == "__main__":
    main()
