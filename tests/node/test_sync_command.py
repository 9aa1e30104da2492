"""``tidings sync`` in processes of its own: two real folders, odd files, and ``kill -9``."""

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from nodes import until
from program import Outcome, Program, running, without_root_rights
from tidings import DocTicket


def files(folder: Path) -> dict[str, bytes]:
    """What is in a folder by relative path, without links and what tidings keeps for itself."""
    found = {}
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if path.is_symlink() or not path.is_file() or relative.parts[0] == ".tidings":
            continue
        try:
            found[str(relative)] = path.read_bytes()
        except FileNotFoundError:  # renamed or deleted in between
            continue
    return found


class Sides:
    """Two folders below ``place``, ``a`` and ``b``, and the processes that keep them the same."""

    def __init__(self, place: Path) -> None:
        self.place, self.a, self.b = place, place / "a", place / "b"
        self.a.mkdir()
        self.b.mkdir()

    def sync(self, name: str, ticket: str | None = None, **options):
        args = [self.place / name, *([ticket] if ticket else [])]
        return running(self.place / f"node-{name}", "--json", "sync", *args, **options)

    async def same(self, expected: dict[str, bytes] | None = None) -> None:
        def agree() -> bool:
            found = files(self.a)
            return found == files(self.b) and expected in (None, found)

        await until(agree, explain=lambda: (sorted(files(self.a)), sorted(files(self.b))))


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    return Sides(tmp_path)


async def ticket_of(program: Program) -> str:
    return str((await program.hear("started"))["ticket"])


async def test_edits_and_deletes_both_ways_and_a_restart(sides: Sides) -> None:
    big = random.Random(3).randbytes(2_000_000)
    tree = {"a": b"1", "a.txt": b"2", "d/e/f": big, "d/empty": b"", "ü ñ": b"4"}
    for path, data in tree.items():
        (sides.a / path).parent.mkdir(parents=True, exist_ok=True)
        (sides.a / path).write_bytes(data)
    async with sides.sync("a") as a:
        ticket = await ticket_of(a)
        async with sides.sync("b", ticket) as b:
            await sides.same(tree)
            (sides.b / "a").write_bytes(b"edited there")
            (sides.a / "new").write_bytes(b"live")
            (sides.b / "a.txt").unlink()
            (sides.a / "d/empty").unlink()
            tree |= {"a": b"edited there", "new": b"live"}
            del tree["a.txt"], tree["d/empty"]
            await sides.same(tree)
            # Not before it has noted what it did: an edit of a file that it does not remember is a conflict.
            await b.hear_all(
                {("received", "new"), ("sent", "a"), ("deleted-there", "a.txt"), ("deleted-here", "d/empty")}
            )
            await b.kill()
        # Apart: each side edits and deletes.
        (sides.a / "d/e/f").unlink()
        (sides.b / "while away").write_bytes(b"5")
        (sides.b / "new").write_bytes(b"edited while away")
        (sides.a / "ü ñ").rename(sides.a / "renamed")
        tree |= {"while away": b"5", "new": b"edited while away", "renamed": b"4"}
        del tree["d/e/f"], tree["ü ñ"]
        async with sides.sync("b") as b:
            await sides.same(tree)
            assert not (sides.b / "d").exists()
            await b.hear("in-sync")
            for program in (a, b):
                assert await program.interrupt() == 130
                assert program.err == ""
                assert not [event for event in program.said if event["event"] in ("conflict", "failed", "skipped")]


async def test_a_kill_while_a_large_file_comes(sides: Sides) -> None:
    """No half file under its name, on either side, whoever is killed; and in the end both have it."""
    rng = random.Random(4)
    tree = {f"small {n}": rng.randbytes(rng.randint(1, 40_000)) for n in range(30)}
    tree["large"] = rng.randbytes(20_000_000)
    for path, data in tree.items():
        (sides.a / path).write_bytes(data)

    def whole(folder: Path) -> None:
        assert all(tree[path] == data for path, data in files(folder).items() if "tidings-tmp-" not in path)

    async with sides.sync("a") as a:
        ticket = await ticket_of(a)
        for _ in range(2):
            async with sides.sync("b", ticket) as b:
                await b.hear("received", lambda event: event["path"].startswith("small"))
                await asyncio.sleep(rng.uniform(0, 0.3))
                await b.kill()
            whole(sides.b)
            assert files(sides.a) == tree
        async with sides.sync("b", ticket) as b:
            await b.hear("started")
            await asyncio.sleep(rng.uniform(0, 0.3))
            await a.kill()
            whole(sides.b)
            async with sides.sync("a") as a:
                await sides.same(tree)
                assert not [path for side in (sides.a, sides.b) for path in side.rglob("*.tidings-tmp-*")]
                assert a.err == b.err == ""


def make_deep_folder(place: Path) -> None:
    """Deeper than a path may be long."""
    at = os.open(place, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 240, dir_fd=at)
        below = os.open("d" * 240, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("file", os.O_CREAT, 0o600, dir_fd=at))
    os.close(at)


async def test_odd_files_are_told_and_the_rest_goes_on(sides: Sides, tmp_path: Path) -> None:
    """Unreadable files and directories, links, names that are no UTF-8 or too long for a key, a pipe."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"not to be synced")
    good = {"plain": b"1", "new\nline": b"2", "ü" * 127: b"3", "d/below": b"4", "-rf *": b"5", "\x1b[31m": b"6"}
    (sides.a / "d").mkdir()
    for path, data in good.items():
        (sides.a / path).write_bytes(data)
    (sides.a / "link").symlink_to(tmp_path / "outside")
    (sides.a / "link to a file").symlink_to(tmp_path / "outside" / "secret")
    (sides.a / "loop").symlink_to(".")
    (sides.a / "dangling").symlink_to("nowhere")
    os.mkfifo(sides.a / "pipe")
    (sides.a / os.fsdecode(b"\xff\xfe")).write_bytes(b"no UTF-8")
    (sides.a / "back\\slash").write_bytes(b"x")
    (sides.a / "c:").write_bytes(b"x")
    (sides.a / "unreadable").write_bytes(b"x")
    (sides.a / "unreadable").chmod(0)
    (sides.a / "closed").mkdir()
    (sides.a / "closed" / "inside").write_bytes(b"x")
    (sides.a / "closed").chmod(0)
    make_deep_folder(sides.a)
    try:
        async with sides.sync("a", preexec_fn=without_root_rights) as a:
            ticket = await ticket_of(a)
            async with sides.sync("b", ticket) as b:
                await until(lambda: files(sides.b) == good, explain=lambda: files(sides.b))
                links = {"link", "link to a file", "loop", "dangling"}
                odd = links | {"pipe", "\\udcff\\udcfe", "back\\slash", "c:", "closed"}
                await a.hear_all({("failed", "unreadable")} | {("skipped", path) for path in odd})
                assert all(event["note"] for event in a.said if event["event"] in ("failed", "skipped"))
                (sides.b / "plain").write_bytes(b"still alive")
                await until(lambda: (sides.a / "plain").read_bytes() == b"still alive")
                assert a.err == b.err == ""
    finally:
        (sides.a / "closed").chmod(0o700)
    assert (tmp_path / "outside" / "secret").read_bytes() == b"not to be synced"


async def test_a_file_that_changes_while_it_is_read(sides: Sides) -> None:
    """A log that grows and a file that is rewritten: what arrives was there as a whole, and the end is the same."""
    log, rewritten = sides.a / "log", sides.a / "rewritten"
    async with sides.sync("a") as a:
        async with sides.sync("b", await ticket_of(a)) as b:
            for number in range(30):
                with log.open("ab") as file:
                    file.write(b"line %06d\n" % number * 10_000)
                rewritten.write_bytes(b"%d" % (number % 10) * (4_000_000 - number))
                await asyncio.sleep(0.05)
                if (copy := files(sides.b).get("rewritten")) is not None:
                    assert copy == copy[:1] * len(copy)
            await sides.same({"log": log.read_bytes(), "rewritten": b"9" * (4_000_000 - 29)})
            assert a.err == b.err == ""
            assert not [event for event in b.said if event["event"] == "conflict"]


def test_folders_that_cannot_be_synced(here: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        assert "choose another folder" in here("sync", folder).refused()
    assert here("doc", "list").out == b""  # no document was made for them


async def test_a_folder_stays_with_its_document(sides: Sides) -> None:
    async with sides.sync("a") as a:
        first = (await a.hear("started"))["document"]
        ticket = str(a.said[-1]["ticket"])
        async with sides.sync("b") as b:
            assert (await b.hear("started"))["document"] != first
        async with sides.sync("b", ticket) as b:
            assert await b.ended() == 1
            assert "another document" in b.err and b.err.count("\n") == 1


async def test_a_ticket_to_read_is_refused_and_leaves_the_folder_free(sides: Sides) -> None:
    async with sides.sync("a") as a:
        ticket = DocTicket.parse((await a.hear("started"))["ticket"])
        readable = DocTicket(ticket.capability.read_only(), ticket.nodes)
        async with sides.sync("b", str(readable)) as b:
            assert await b.ended() == 1
            assert "ticket to read" in b.err and b.err.count("\n") == 1
        async with sides.sync("b", str(ticket)) as b:
            await b.hear("started")


async def test_a_folder_that_lost_its_mark_is_not_taken_for_emptied(sides: Sides) -> None:
    (sides.a / "kept").write_bytes(b"x")
    async with sides.sync("a") as a:
        ticket = await ticket_of(a)
        async with sides.sync("b", ticket) as b:
            await sides.same({"kept": b"x"})
            await a.hear("in-sync")
            assert await a.interrupt() == 130
            sides.a.rename(sides.place / "elsewhere")
            sides.a.mkdir()  # as a disk that is not mounted leaves it
            async with sides.sync("a") as a:
                assert await a.ended() == 1
                assert "mounted" in a.err and a.err.count("\n") == 1
            assert files(sides.b) == {"kept": b"x"}
            assert await b.interrupt() == 130


async def test_what_a_person_reads(sides: Sides) -> None:
    (sides.a / "new\nline").write_bytes(b"2")
    (sides.a / os.fsdecode(b"\xff")).write_bytes(b"no UTF-8")
    async with running(sides.place / "node", "sync", sides.a) as program:
        said = ""
        while "in sync: 1 files" not in said:
            said += await program.line()
        assert "tidings sync DIR doc" in said and "skipped" in said
        assert "sent      new\N{REPLACEMENT CHARACTER}line\n" in said
        assert program.err == ""
