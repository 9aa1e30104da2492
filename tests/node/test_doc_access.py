"""``tidings doc`` for encrypted and restricted documents, and times as they are given."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from nodes import LOOPBACK
from program import Outcome, ask, running
from tidings import DocTicket, Node
from tidings.errors import UsageError
from tidings.node.doc_access import parse_expiry, through, ticket_of


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("90m", timedelta(minutes=90)),
        ("1s", timedelta(seconds=1)),
        ("12h", timedelta(hours=12)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(weeks=2)),
        ("2027-01-31T12:00Z", datetime(2027, 1, 31, 12, tzinfo=UTC)),
    ],
)
def test_times(text: str, meant: timedelta | datetime) -> None:
    assert parse_expiry(text) == meant


def test_a_date_without_a_zone_is_of_here() -> None:
    assert parse_expiry("2027-01-31") == datetime(2027, 1, 31).astimezone()


@pytest.mark.parametrize("text", ["", "7", "d", "soon", "-1d", "99999999d", "2027-13-01"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="give 90m"):
        parse_expiry(text)


def test_an_encrypted_document(here: Callable[..., Outcome], tmp_path: Path) -> None:
    doc, file, copy = here("doc", "new", "--encrypted").text(), tmp_path / "file", tmp_path / "copy"
    file.write_bytes(b"secret " * 50_000)
    here("doc", "set", doc, "diary/monday", "dear diary")
    assert here("doc", "set", doc, "diary/film", f"@{file}").text().endswith("  350000 bytes")
    assert here("doc", "get", doc, "diary/monday").out == b"dear diary"
    assert here("doc", "get", doc, "diary/film").out == file.read_bytes()
    rows = here("--json", "doc", "ls", doc, "--prefix", "diary/").json()
    assert {row["key"]: row["size"] for row in rows} == {"diary/monday": 10, "diary/film": 350_000}
    out = here("doc", "export", doc, "-").out
    assert {json.loads(line)["key"] for line in out.splitlines()} == {"diary/monday", "diary/film"}
    other = here("doc", "new", "--encrypted").text()
    here("doc", "import", other, "-", stdin=out)
    assert here("doc", "get", other, "diary/monday").out == b"dear diary"
    assert here("doc", "export", doc, copy, "--folder").text().startswith("2 files")
    assert (copy / "diary" / "film").read_bytes() == file.read_bytes()
    here("doc", "import", other, copy, "--prefix", "again/")
    assert (
        here("doc", "export", other, tmp_path / "back", "--folder", "--prefix", "again/").text().startswith("2 files")
    )
    assert (tmp_path / "back" / "diary" / "film").read_bytes() == file.read_bytes()
    assert "no order" in here("doc", "ls", doc, "--descending").refused()
    assert here("doc", "rm", doc, "diary/mon").text() == "1 deleted"


async def test_shares(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    async with Node.open(theirs, bind=LOOPBACK) as node:
        reader = str(node.id)
    doc = (await ask(ours, "doc", "new", "--restricted", "--encrypted")).decode().strip()
    async with Node.open(ours, bind=LOOPBACK) as node:
        await (await node.docs.open(doc)).set("k", b"v")
    async with running(ours, "--json", "doc", "share", doc, "--reader", reader, "--expires", "7d") as sharing:
        said = await sharing.hear("ticket")
        async with Node.open(theirs, bind=LOOPBACK) as node:
            entry = await (await node.docs.join(said["ticket"])).get("k")
            assert entry is not None and await entry.content() == b"v"
        await sharing.interrupt()
    [share] = [json.loads(line) for line in (await ask(ours, "--json", "doc", "shares", doc)).splitlines()]
    assert (share["id"], share["reader"], share["revoked"]) == (said["share"], reader, False)
    assert share["expires"] > share["issued"]
    assert (await ask(ours, "doc", "revoke", doc, share["id"])).strip() == b"revoked"
    assert b"  revoked  " in await ask(ours, "doc", "shares", doc)


def test_restricting(here: Callable[..., Outcome]) -> None:
    doc = here("doc", "new").text()
    assert here("doc", "restrict", doc).text() == "restricted"
    assert here("--json", "doc", "restrict", doc, "--off").json() == [{"restricted": False}]
    assert "shares()" in here("doc", "revoke", doc, "00" * 16).refused()


async def test_which_ticket_is_printed() -> None:
    async with Node.open(None, bind=LOOPBACK) as node:
        doc = await node.docs.create(restricted=True, encrypted=True)

        async def ticket(
            write: bool = False, carry: bool = False, reader: str | None = None, expires: str | None = None
        ) -> DocTicket:
            return await ticket_of(doc, write=write, carry=carry, reader=reader, expires=expires)

        plain, write, carry = await ticket(), await ticket(write=True), await ticket(carry=True)
        assert plain.grant and plain.key and plain.restricted and not plain.capability.can_write
        assert write.grant is None and write.key and write.capability.can_write
        assert carry == carry.iroh()
        assert through(plain, carry) == plain
        with pytest.raises(UsageError, match="different"):
            through(plain, (await node.docs.create()).ticket())
        await doc.restrict(False)
        assert (await ticket()).grant is None
        limited = await ticket(expires="7d")
        assert limited.grant is not None and limited.grant.share.not_after_us is not None
        for wrong in (
            ticket(write=True, reader=str(node.id)),
            ticket(carry=True, expires="1d"),
            ticket(carry=True, write=True),
            ticket(expires="soon"),
        ):
            with pytest.raises(UsageError):
                await wrong
