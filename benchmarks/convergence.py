"""``python -m benchmarks.convergence --seeds 100 --nodes 10``: whole nodes in virtual time, one run for each seed.

What befalls them and what must hold is said in ``tests/docs_sync/virtual_swarm.py``. Prints a line for each seed, and
the command that plays a failed one again. Exit status 1 where one failed.
"""

import argparse
import shlex
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "docs_sync"))
from virtual_swarm import Scenario, run


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, default=100, help="how many")
    options.add_argument("--first", type=int, default=0, help="the first seed")
    options.add_argument("--nodes", type=int, default=10)
    options.add_argument("--rust", type=int, default=2, help="how many of the nodes follow the Rust peer's rules")
    options.add_argument("--seconds", type=float, default=180.0, help="of edits and faults, virtual")
    options.add_argument("--edits", type=int, default=120)
    options.add_argument("--faults", type=int, default=24)
    options.add_argument("--log", type=Path, help="a file for everything that happens in the last run")
    args = options.parse_args()
    failed, began = [], time.monotonic()
    for seed in range(args.first, args.first + args.seeds):
        failed += [seed] * (not _play(seed, args))
    words = f"{args.seeds} seeds of {args.nodes} nodes ({args.rust} Rust-rule) in {time.monotonic() - began:.0f} s"
    if failed:
        sys.exit(f"{words}: {len(failed)} FAILED: {failed}")
    print(f"{words}: all converged")


def _play(seed: int, args: argparse.Namespace) -> bool:
    scenario = Scenario(seed, args.nodes, args.rust, args.seconds, args.edits, args.faults)
    began = time.monotonic()
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="tidings-convergence-", dir=place) as directory:
        lines: list[str] | None = None if args.log is None else []
        try:
            result = run(scenario, Path(directory), lines=lines)
        except AssertionError as error:
            again = [*sys.argv[1:], "--first", str(seed), "--seeds", "1"]
            print(f"seed {seed}: FAILED: {error}\n    python -m benchmarks.convergence {shlex.join(again)}", flush=True)
            return False
        finally:
            if lines is not None:
                args.log.write_text("\n".join(lines))
    faults = ", ".join(f"{count} {what}" for what, count in result.counts.items())
    print(
        f"seed {seed}: {result.digest}, {result.entries} entries of {result.acknowledged} writes; equal after "
        f"{result.repaired_after:.0f} s, without gossip after {result.gossip_repaired_after:.0f} s; {faults}; "
        f"{result.virtual_seconds:.0f} virtual s in {time.monotonic() - began:.0f} s",
        flush=True,
    )
    return True


if __name__ == "__main__":
    main()
