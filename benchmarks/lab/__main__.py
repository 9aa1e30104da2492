"""``python -m benchmarks.lab``: two devices in networks of many kinds, see docs/lab.md.

Exit status 0 where all was as expected, and where there can be no lab here; 1 where something failed; 3 where nothing
failed, but something that was asked for is not available in this version.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from . import nat
from .cable import LADDER
from .kernel import check_origin, look
from .namespaces import LabError, sweep
from .nat_check import check_kinds, check_pairs
from .report import FAILED, NOT_AVAILABLE, Report
from .scenarios import SCENARIOS, Options

NOTHING_FAILED = 3
LUCK = 8  # the level of the ladder where it is luck whether a connection comes about


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lab", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--only", type=names(SCENARIOS), default=list(SCENARIOS), help=f"of {', '.join(SCENARIOS)}")
    add("--repeat", type=int, default=3, help="attempts in each cell of the matrix")
    add("--kinds", type=names(nat.KINDS), default=list(nat.KINDS), help=f"of NAT: {', '.join(nat.KINDS)}")
    add("--levels", type=levels, default=list(range(LUCK)), help="of the ladder, such as 0-3 or 2,8")
    add("--seed", type=int, default=1, help="of what links lose")
    add("--save", type=Path, help="write the table as plain text, too")
    add("--check", action="store_true", help="only measure what the NATs do")
    add("--sweep", action="store_true", help="only take away what labs left that were killed")
    return parser.parse_args(arguments)


def names(known):
    def split(text: str) -> list[str]:
        found = text.split(",")
        if unknown := set(found) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose from {', '.join(known)}")
        return found

    return split


def levels(text: str) -> list[int]:
    found = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    if not found <= set(range(len(LADDER))):
        raise argparse.ArgumentTypeError(f"levels go from 0 to {len(LADDER) - 1}")
    return sorted(found)


async def check_nats(report: Report) -> None:
    """Raises LabError where a router does not behave as it is said to: then nothing that follows means anything."""
    wrong = []
    for kind, measured in (await check_kinds()).items():
        port = "keeps ports" if measured.keeps_port else "changes ports"
        early = {True: ", early packets harmless", False: ", EARLY PACKETS SPOIL IT", None: ""}[measured.survives_early]
        line = f"NAT {kind}: mapping {measured.mapping}, filtering {measured.filtering}, {port}{early}"
        report.facts.append(line)
        report.note(line)
        if not measured.agrees(kind):
            wrong.append(line)
    pairs = await check_pairs()
    wrong += [
        f"plain UDP, {pair.one} and {pair.other}: {'direct' if pair.direct else 'not direct'}, against expectation"
        for pair in pairs
        if pair.direct != pair.expected
    ]
    line = f"plain UDP gets through between {sum(pair.direct for pair in pairs)} of {len(pairs)} pairs of kinds"
    report.facts.append(line)
    report.note(line)
    if wrong:
        raise LabError("this kernel does not do what the lab claims:\n" + "\n".join(wrong))


async def run(arguments: argparse.Namespace, report: Report, folder: Path) -> None:
    await check_nats(report)
    if arguments.check:
        return
    options = Options(report, folder, arguments.repeat, arguments.seed, arguments.levels, arguments.kinds)
    for name in arguments.only:
        await SCENARIOS[name](options)
    for failed in options.failed:
        report.note(f"logs: {failed}")


def main() -> int:
    arguments = parse(sys.argv[1:])
    if arguments.sweep:
        print("\n".join(sweep()) or "nothing was left")
        return 0
    # A terminated lab cleans up as an interrupted one does.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    console = Console(width=None if sys.stdout.isatty() else 150)
    kernel = look()
    for line in kernel.lines():
        console.print(line, style="dim", highlight=False)
    if kernel.obstacle:
        console.print(f"skipped: {kernel.obstacle}", highlight=False)
        return 0
    if not kernel.tun:
        arguments.levels = []
        arguments.only = [name for name in arguments.only if name not in ("cables", "ladder")]
    if not kernel.ipv6:
        arguments.only = [name for name in arguments.only if name != "uplink"]
        console.print("skipped: uplink, which needs IPv6", highlight=False)
    report = Report(console, kernel.lines(), f"python -m benchmarks.lab {shlex.join(sys.argv[1:])}".strip())
    folder = Path(tempfile.mkdtemp(prefix="tidings-lab-"))
    try:
        check_origin()
        asyncio.run(run(arguments, report, folder))
    except LabError as error:
        console.print(f"no lab: {error}", style="red", highlight=False, markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted")
        return 1
    finally:
        if report.rows:
            report.show(console)
        if arguments.save:
            with arguments.save.open("w") as file:
                report.save(file)
        if not any(folder.iterdir()):
            shutil.rmtree(folder)
    verdicts = {row.verdict for row in report.rows}
    return 1 if FAILED in verdicts else NOTHING_FAILED if NOT_AVAILABLE in verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
