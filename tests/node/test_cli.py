"""The command line around the commands: identity, and errors as one sentence with an exit status."""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from nodes import LOOPBACK
from program import Outcome, ask, call, run, running
from tidings import BlobTicket, EndpointAddr, EndpointTicket, Hash, IpAddr, Node, SecretKey

DOC_TICKET = (
    "docaaacbn3fdiukqrbvevwjzitlxiyixpsgoii5yoisoontsvdsomtyvlokahafhllbyttoo5qlf3tiexmuydutscct3ilagtka6k42a3ozl4dbcaib"
    "ab7qaaabugcqg"
)


async def test_id(here: Callable[..., Outcome], tmp_path: Path) -> None:
    text = (await ask(tmp_path / "node", "id")).decode().strip()
    [said] = (await asyncio.to_thread(here, "--json", "id")).json()
    assert said["id"] == text and len(text) == 64
    assert said["addresses"][0].startswith("127.0.0.1:")


def test_a_wrong_call_is_status_2(here: Callable[..., Outcome], tmp_path: Path) -> None:
    for args in (["doc", "set"], ["nothing"], ["sync"], ["demo", "--files=x"]):
        assert here(*args).code == 2
    assert not (tmp_path / "node").exists()


def test_tickets_of_another_kind_damaged_or_empty(here: Callable[..., Outcome], tmp_path: Path) -> None:
    """Each command names the kind that it needs, and opens no node for it."""
    peer = EndpointAddr.of(SecretKey(bytes(32)).public, [IpAddr.parse("192.0.2.1:4433")])
    tickets = {"endpoint": str(EndpointTicket(peer)), "blob": str(BlobTicket(peer, Hash.of(b"x"))), "doc": DOC_TICKET}
    for command, kind in (
        (["doc", "join"], "doc"),
        (["sync", tmp_path / "folder"], "doc"),
        (["chat", "r"], "endpoint"),
    ):
        others = [text for other, text in tickets.items() if other != kind]
        for text in (*others, "", "hello", tickets[kind][:-3], tickets[kind] + "aa"):
            said = here(*command, text).refused()
            assert "ticket" in said and f"'{kind}'" in said, said
    assert not (tmp_path / "node").exists() and not (tmp_path / "folder").exists()


class TestDamagedNodes:
    @pytest.fixture
    def node(self, tmp_path: Path) -> Path:
        async def make() -> None:
            async with Node.open(tmp_path / "node", bind=LOOPBACK) as node:
                await (await node.docs.create()).set("k", b"v")

        asyncio.run(make())
        return tmp_path / "node"

    def refused(self, here: Callable[..., Outcome], node: Path) -> str:
        before = (node / "node.db").read_bytes()
        said = here("--json", "id").refused()
        assert (node / "node.db").read_bytes() == before
        return said

    def test_a_database_cut_short(self, here: Callable[..., Outcome], node: Path) -> None:
        whole = (node / "node.db").read_bytes()
        for size in (0, 4096, len(whole) // 2, len(whole) - 1):
            (node / "node.db").write_bytes(whole[:size])
            assert "restore it from a backup" in self.refused(here, node)
            assert "restore it from a backup" in here("sync", node.parent / "folder").refused()
        assert not (node.parent / "folder").exists()
        (node / "node.db").write_bytes(whole)
        assert here("doc", "list").text()

    def test_noise_in_place_of_a_database(self, here: Callable[..., Outcome], node: Path) -> None:
        (node / "node.db").write_bytes(bytes(range(256)) * 100)
        assert "is not a database" in self.refused(here, node)

    def test_a_newer_version(self, here: Callable[..., Outcome], node: Path) -> None:
        with contextlib.closing(sqlite3.connect(node / "node.db")) as connection, connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.close()
        assert "upgrade tidings" in self.refused(here, node)

    def test_a_damaged_identity(self, here: Callable[..., Outcome], node: Path) -> None:
        (node / "identity").write_bytes(b"short")
        assert "32 bytes" in self.refused(here, node)


async def test_one_process_at_a_time(tmp_path: Path) -> None:
    node = tmp_path / "node"
    async with running(node, "--json", "chat", "room") as other:
        await other.hear("ticket")
        said = (await run(node, "id")).refused()
        assert f"process {other.pid}" in said and "another directory" in said
        other.finish_input()
        assert await other.ended() == 0
    (node / "node.db").write_bytes(b"short")
    assert "cut off" in (await run(node, "id")).refused()


def test_places_and_addresses_that_cannot_be_used(here: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert "file" in here("--node", tmp_path / "file", "id").refused()
    assert "file" in here("--node", tmp_path / "file" / "below", "id").refused()
    assert "not an address" in here("--bind", "not an address", "id").refused()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
async def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        process = await asyncio.create_subprocess_exec(*call(tmp_path, "id"), stdout=full, stderr=-1)
        _, err = await process.communicate()
    finally:
        os.close(full)
    assert process.returncode
    assert b"Traceback" not in err and b"No space left" in err
