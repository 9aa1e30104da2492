"""``python -m benchmarks.kill --rounds 200``: kill a node that writes, again and again.

The long form of ``tests/node/test_kill.py``. Exit status 1 at the first loss; the directory is kept then.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "node"))
from kill_rounds import kill_rounds


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=200)
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="tidings-kill-"))
    began = time.monotonic()
    try:
        count = asyncio.run(kill_rounds(directory, args.rounds, random.Random(args.seed)))
    except AssertionError as error:
        sys.exit(f"LOST, seed {args.seed}, see {directory}: {error}")
    shutil.rmtree(directory)
    print(f"{args.rounds} kills, {count} acknowledged steps, nothing lost, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
