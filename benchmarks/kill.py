"""``python -m benchmarks.kill --rounds 200``: kill a process that writes, again and again.

The long form of ``tests/node/test_kill.py``; with ``--documents`` of ``tests/docs_sync/test_crash.py``: batches,
deletes and entries of others, then migrations, a quarter of the rounds; with ``--blobs`` of
``tests/blobs/test_kill.py``: imports, fetches, exports and collections. Exit status 1 at the first loss; the directory
is kept then.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS / "node"), str(TESTS / "docs_sync"), str(TESTS / "blobs")]
from blob_kills import kill_and_resume, kill_blobs
from crash_rounds import kill_documents, kill_migrations
from kill_rounds import kill_rounds


async def node(directory: Path, rounds: int, rng: random.Random) -> str:
    count = await kill_rounds(directory, rounds, rng)
    return f"{rounds} kills, {count} acknowledged steps"


async def documents(directory: Path, rounds: int, rng: random.Random) -> str:
    kills, count = await kill_documents(directory, rounds - rounds // 4, rng)
    words = await kill_migrations(directory, rounds // 4, rng)
    phases = ", ".join(f"{number} after '{word}'" for word, number in Counter(words).most_common())
    return (
        f"{kills} kills of writers of documents, {count} acknowledged operations; "
        f"{len(words)} kills of migrations ({phases}); every aggregate equal to a scan"
    )


async def blobs(directory: Path, rounds: int, rng: random.Random) -> str:
    done = await kill_blobs(directory, rounds, rng)
    steps = ", ".join(f"{count} {step}" for step, count in done.most_common())
    again, lost = [], []
    for number in range(max(1, rounds // 20)):
        resumed = await kill_and_resume(directory / f"half{number}", 64_000_000, rng)
        again.append(resumed.sent_after - resumed.least_after)
        lost.append(resumed.sent_before - resumed.found)
    return (
        f"{rounds} kills among {sum(done.values())} steps ({steps}); every blob called complete verified; {len(again)} "
        f"fetches of 64 MB killed half way: at most {max(again)} bytes of what was kept sent again, and "
        f"{max(lost)} that had been sent and not been kept"
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=200)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--documents", action="store_true", help="the documents' store alone, and its migrations")
    options.add_argument("--blobs", action="store_true", help="the store of blobs alone")
    args = options.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="tidings-kill-"))
    began = time.monotonic()
    work = documents if args.documents else blobs if args.blobs else node
    try:
        done = asyncio.run(work(directory, args.rounds, random.Random(args.seed)))
    except AssertionError:
        traceback.print_exc()
        sys.exit(f"LOST, seed {args.seed}, see {directory}")
    shutil.rmtree(directory)
    print(f"{done}, nothing lost, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
