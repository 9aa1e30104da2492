"""``python -m benchmarks.gossip_sim``: both papers' figures at 10,000 nodes, and iroh's own scenarios."""

from __future__ import annotations

import argparse
import time
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
    begun = time.monotonic()

    def say(what: str) -> None:
        print(f"[{time.monotonic() - begun:5.0f} s] {what}", flush=True)

    found = [run_seed(seed, arguments.nodes, arguments.cycles, say) for seed in range(1, arguments.seeds + 1)]
    text = tables(found, arguments.nodes) + "\n\n" + scenarios(iroh_scenarios(1))
    print("\n" + text)
    if arguments.save is not None:
        from .plots import plot

        arguments.save.mkdir(parents=True, exist_ok=True)
        (arguments.save / "tables.txt").write_text(text + "\n")
        plot(found, arguments.save)


if __name__ == "__main__":
    main()
