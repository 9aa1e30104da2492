"""Collections: their form, folders in and out, and fetching thousands of blobs by one request."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidings.blobs import BlobFormat, Collection, FileExists, Hash, ProvidersExhausted, SequenceProgress, UnsafeName
from tidings.blobs.collection import split_sequence
from tidings.blobs.folders import safe_paths
from tidings.errors import UsageError
from tidings.transport import SecretKey
from tidings.transport.errors import DecodeError

from .peers import MakePeer

hashes = st.binary(min_size=32, max_size=32).map(Hash)
texts = st.text(max_size=30)


@given(st.lists(st.tuples(texts, hashes), max_size=6))
def test_a_collection_comes_back(entries: list[tuple[str, Hash]]) -> None:
    collection = Collection.of(entries)
    names = collection.encode_names()
    assert Collection.decode(names, collection.encode_sequence(Hash.of(names))) == collection


def test_the_form_is_irohs() -> None:
    """Reference 3.5: thirteen raw bytes, then a list of texts."""
    collection = Collection.of([("a", Hash.of(b"1")), ("b/c", Hash.of(b"2"))])
    assert collection.encode_names() == b"CollectionV0.\x02\x01a\x03b/c"


@given(st.binary(max_size=100))
def test_what_is_no_collection_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        Collection.decode(data, bytes(32))
    with pytest.raises(DecodeError):
        split_sequence(data + bytes(32 - len(data) % 32 + 1))


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/../../x",
        "/etc/passwd",
        "a//b",
        "a/",
        "x" * 256,
        "a/" * 2000 + "b",
        "con",
        "a/NUL.txt",
        "trailing.",
        "trailing ",
        "a\\b",
        "c:x",
        "a\0b",
        "line\nbreak",
        "\ud800",
    ],
)
def test_names_that_lead_elsewhere(name: str) -> None:
    with pytest.raises(UnsafeName):
        safe_paths(["good", name])


@pytest.mark.parametrize(
    "names", [["a", "A"], ["x/a", "X/A"], ["é", "e\u0301"], ["a", "a/b"], ["A/b", "a"], ["s", "s"]]
)
def test_names_that_are_one_file_somewhere(names: list[str]) -> None:
    with pytest.raises(UnsafeName):
        safe_paths(names)


@given(st.lists(st.text(), max_size=5))
def test_no_name_leads_out(names: list[str]) -> None:
    try:
        paths = safe_paths(names)
    except UnsafeName:
        return
    root = Path("/some/where")
    for path in paths:
        assert root in Path(os.path.normpath(root / path)).parents


def make_folder(folder: Path) -> dict[str, bytes]:
    rng = Random(3)
    files = {
        f"sub{number % 7}/file {number}.bin": rng.randbytes(rng.choice([0, 100, 4096, 30_000])) for number in range(60)
    }
    files["large"] = rng.randbytes(2_000_000)
    files["twice"] = files["large"]
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "link").symlink_to("/etc/passwd")
    return files


def read_folder(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_a_folder_goes_to_another_node(peers, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    files = make_folder(source)
    a, b = await peers(), await peers()
    steps: list[SequenceProgress] = []
    info = await a.blobs.add_folder(source, progress=steps.append)
    assert steps[-1].blobs_done == len(files)
    ticket = a.blobs.ticket(info.hash, BlobFormat.HASH_SEQ)
    requests = a.blobs.served.requests
    steps.clear()
    collection = await b.blobs.fetch_collection(str(ticket), progress=steps.append)
    assert a.blobs.served.requests - requests == 2, "the list, and all the rest"
    assert {name for name, _ in collection} == files.keys()
    assert steps[-1].blobs_done == steps[-1].blobs
    await b.blobs.export_collection(info.hash, target)
    assert read_folder(target) == files
    assert not (target / "link").exists()
    assert await b.blobs.export_collection(info.hash, target) == collection, "what is the same is left alone"
    (target / "large").write_bytes(b"mine")
    with pytest.raises(FileExists):
        await b.blobs.export_collection(info.hash, target)
    assert (target / "large").read_bytes() == b"mine"
    await b.blobs.export_collection(info.hash, target, overwrite=True)
    assert read_folder(target) == files
    assert (await b.blobs.collect(grace=0)).blobs == 0, "its tag keeps them all"


async def test_a_link_in_the_way_is_not_followed(peers, tmp_path: Path) -> None:
    a = await peers()
    info = await a.blobs.add_collection([("sub/file", (await a.blobs.add_bytes(b"x")).hash)])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeName):
        await a.blobs.export_collection(info.hash, tmp_path / "target")
    assert not list((tmp_path / "elsewhere").iterdir())


async def test_hostile_names_write_nothing(peers, tmp_path: Path) -> None:
    a = await peers()
    blob = (await a.blobs.add_bytes(b"x")).hash
    info = await a.blobs.add_collection([("good", blob), ("../bad", blob)])
    with pytest.raises(UnsafeName):
        await a.blobs.export_collection(info.hash, tmp_path / "target")
    assert not (tmp_path / "target").exists()


async def test_five_hundred_children_from_two_who_have_halves(peers) -> None:
    a, b, c = await peers(), await peers(), await peers()
    contents = [b"%d" % number * 100 for number in range(500)]
    found = [Hash.of(content) for content in contents]
    for number, content in enumerate(contents):
        await (a if number % 2 else b).blobs.add_bytes(content)
    names = Collection.of((str(number), hash) for number, hash in enumerate(found))
    for peer in (a, b):
        meta = await peer.blobs.add_bytes(names.encode_names())
        root = await peer.blobs.add_bytes(names.encode_sequence(meta.hash))
    with pytest.raises(ProvidersExhausted):
        await c.blobs.fetch_collection(root.hash, [a.endpoint.addr()], tag=False)
    before = len(await c.blobs.list())
    assert before >= 3, "what came stays"
    for peer in (a, b):
        for content in contents:
            await peer.blobs.add_bytes(content)
    collection = await c.blobs.fetch_collection(root.hash, [a.endpoint.addr(), b.endpoint.addr()])
    assert len(collection) == 500
    assert all([await c.blobs.has(hash) for hash in found])


async def test_a_broken_large_child_goes_on(peers) -> None:
    a, b = await peers(upload_rate=4_000_000), await peers()
    data = Random(5).randbytes(5_000_000)
    large = await a.blobs.add_bytes(data)
    info = await a.blobs.add_collection([("large", large.hash), ("small", (await a.blobs.add_bytes(b"x")).hash)])
    ticket = a.blobs.ticket(info.hash, BlobFormat.HASH_SEQ)
    fetching = asyncio.create_task(b.blobs.fetch_collection(ticket))
    while a.blobs.served.bytes_sent < 2_500_000:
        await asyncio.sleep(0.01)
    fetching.cancel()
    await asyncio.gather(fetching, return_exceptions=True)
    before = a.blobs.served.bytes_sent
    await b.blobs.fetch_collection(ticket)
    assert a.blobs.served.bytes_sent - before < 4_000_000
    assert await b.blobs.read(large.hash) == data


async def test_who_gives_no_collection(peers) -> None:
    a, b = await peers(), await peers()
    blob = await a.blobs.add_bytes(b"no collection")
    with pytest.raises(DecodeError):
        await b.blobs.fetch_collection(blob.hash, [a.endpoint.addr()])
    with pytest.raises(ProvidersExhausted):
        await b.blobs.fetch_collection(Hash.of(b"nobody has"), [a.endpoint.addr()])
    with pytest.raises(ProvidersExhausted):
        await b.blobs.fetch_collection(Hash.of(b"x"), [SecretKey.generate().public], stall_timeout=0.2)
    with pytest.raises(UsageError):
        await a.blobs.add_collection([("x" * 5000, blob.hash)])


async def test_sizes_come_without_the_blobs(peers: MakePeer) -> None:
    a, b, c = await peers(), await peers(), await peers()
    datas = [b"", b"small", b"g" * 16384, b"h" * 16385, b"large" * 1_000_000]
    hashes = [(await a.blobs.add_bytes(data)).hash for data in datas]
    folder = await a.blobs.add_collection([(str(number), hash) for number, hash in enumerate(hashes)])
    await b.blobs.add_bytes(datas[1])
    before = a.blobs.served.bytes_sent
    sizes = await b.blobs.sizes(folder.hash, [c.endpoint.addr(), a.endpoint.addr()])
    assert [(name, info.hash, info.size) for name, info in sizes] == [
        (str(number), hash, len(data)) for number, (hash, data) in enumerate(zip(hashes, datas, strict=True))
    ]
    assert a.blobs.served.bytes_sent - before < 70_000
    assert not await b.blobs.has(hashes[4])
    with pytest.raises(ProvidersExhausted):
        await b.blobs.sizes(folder.hash, [c.endpoint.addr()])


async def test_progress_of_a_large_file_in_a_collection(peers: MakePeer) -> None:
    a, b = await peers(), await peers()
    film = await a.blobs.add_bytes(b"film" * 2_000_000)
    folder = await a.blobs.add_collection([("film", film.hash)])
    seen: list[SequenceProgress] = []
    await b.blobs.fetch_collection(folder.hash, [a.endpoint.addr()], progress=seen.append)
    assert len({progress.bytes_done for progress in seen}) > 5
