"""Folders: what goes in comes out, and no name leads anywhere else."""

import asyncio
import errno
import os
import random

import pytest
from docs_net import contents, node
from tidings.blobs import UnreadableFile
from tidings.docs_sync import errors
from tidings.docs_sync.bulk import folders
from tidings.docs_sync.model.paths import EMPTY_FILE
from tidings.storage import DiskFull


@pytest.fixture
async def doc(tmp_path):
    async with node(tmp_path / "node", in_memory=False) as a:
        yield await a.docs.create()


def names(folder):
    return [path.name for path in folder.iterdir()]


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_there_and_back(doc, tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "FILES_IN_BATCH", 7)
    source = tmp_path / "source"
    large = random.Random(1).randbytes(3_000_000)
    files = {f"many/{n}": b"%d" % n for n in range(20)}
    files |= {"a": b"file", "a.txt": b"beside", "b/c/d": b"deep", "grüße/größe": b"utf8", "empty": b"", "large": large}
    for name, data in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    (source / "no files").mkdir()
    seen = []
    done = await doc.import_folder(source, prefix="backup/", on_file=seen.append)
    assert (done.files, done.bytes, done.skipped) == (26, sum(map(len, files.values())), 0)
    assert sorted(file.path for file in seen) == sorted(files)
    assert await doc.entries(prefix="backup/").count() == 26
    assert (await doc.get(b"backup/b/c/d\0")).size == 4
    done = await doc.export_folder(tmp_path / "copy", prefix="backup/")
    assert (done.files, done.skipped, done.told) == (26, 0, [])
    assert tree(tmp_path / "copy") == files
    entry = await doc.get(b"backup/b/c/d\0")
    assert (tmp_path / "copy/b/c/d").stat().st_mtime_ns == entry.timestamp * 1000


async def test_an_encrypted_document(tmp_path):
    async with node(tmp_path / "node") as a:
        doc = await a.docs.create(encrypted=True)
        source = tmp_path / "source"
        (source / "b").mkdir(parents=True)
        files = {"a": b"x", "b/empty": b"", "b/large": random.Random(2).randbytes(300_000)}
        for name, data in files.items():
            (source / name).write_bytes(data)
        assert (await doc.import_folder(source)).files == 3
        assert (await doc.export_folder(tmp_path / "copy")).files == 3
        assert tree(tmp_path / "copy") == files


async def test_any_keys_are_exported_where_they_are_names(doc, tmp_path):
    values = {"notes/1": b"1", "notes/2\0": b"2", "other": b"o", "notes/../../evil": b"e", "notes//etc/passwd": b"e"}
    values |= {"notes/c:/x": b"e", "notes/.tidings/x": b"e", "notes/": b"e", "notes/a\\b": b"e", "notes/1\0": b"twice"}
    values |= {"notes/" + "n" * 300: b"e"}
    authors = [await doc._docs.create_author() for _ in values]  # so that none replaces what is below it
    for (key, value), author in zip(values.items(), authors, strict=True):
        await doc.set(key, value, author=author)
    await doc.set(b"notes/\xff", b"e")
    out = tmp_path / "a" / "out"
    done = await doc.export_folder(out, prefix="notes/")
    assert tree(tmp_path / "a") == {"out/1": b"1", "out/2": b"2"}
    assert (done.files, done.skipped) == (2, 9)
    assert all(told.skipped for told in done.told)
    [twice] = [told for told in done.told if told.path == "1"]
    assert "another entry" in twice.skipped


async def test_what_is_in_the_folder_stays_unless_told_otherwise(doc, tmp_path):
    out = tmp_path / "out"
    (out / "dir").mkdir(parents=True)
    for name in ("mine", "file"):
        (out / name).write_bytes(b"mine")
    await doc.set(b"mine\0", b"theirs")
    await doc.set(b"dir\0", b"theirs")
    await doc.set(b"file/below\0", b"theirs")
    await doc.set(b"new\0", b"theirs")
    done = await doc.export_folder(out)
    assert (done.files, done.skipped) == (1, 3)
    assert tree(out) == {"mine": b"mine", "file": b"mine", "new": b"theirs"}
    done = await doc.export_folder(out, replace=True)
    assert (done.files, done.skipped) == (2, 2)
    assert tree(out) == {"mine": b"theirs", "file": b"mine", "new": b"theirs"}
    assert not [name for name in names(out) if "tmp" in name]


async def test_symbolic_links_are_not_followed(doc, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(b"f")
    (source / "link").symlink_to(outside / "secret")
    (source / "folder").symlink_to(outside)
    (source / "back\\slash").write_bytes(b"x")
    (source / os.fsdecode(b"odd\xff")).write_bytes(b"x")
    (source / "stands for empty").write_bytes(EMPTY_FILE)
    os.mkfifo(source / "pipe")
    done = await doc.import_folder(source)
    assert (done.files, done.skipped) == (1, 6)
    assert await contents(doc) == {b"file\0": b"f"}
    # The other way: a link in the folder leads nothing out of it.
    await doc.set(b"folder/planted\0", b"x")
    await doc.set(b"link\0", b"x")
    done = await doc.export_folder(source, replace=True)
    assert names(outside) == ["secret"] and (outside / "secret").read_bytes() == b"secret"
    assert (source / "link").read_bytes() == b"x" and not (source / "link").is_symlink()
    assert [told.path for told in done.told] == ["folder/planted"]


async def test_a_content_that_is_not_here(doc, tmp_path):
    await doc.set_hash(b"missing\0", bytes(32), 5)
    await doc.set(b"there\0", b"x")
    done = await doc.export_folder(tmp_path / "out", timeout=0.1)
    assert (done.files, [told.path for told in done.told]) == (1, ["missing"])
    assert "did not come" in done.told[0].skipped


async def test_a_full_disk_ends_it(doc, tmp_path, monkeypatch):
    await doc.set(b"file\0", b"x")

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folders._NewFile, "write", full)
    with pytest.raises(DiskFull):
        await doc.export_folder(tmp_path / "out")
    assert names(tmp_path / "out") == []


async def test_what_cannot_be_used(doc, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    for place in ("missing", "file"):
        with pytest.raises(UnreadableFile):
            await doc.import_folder(tmp_path / place)
    with pytest.raises(UnreadableFile):
        await doc.export_folder(tmp_path / "file")
    with pytest.raises(errors.UnknownAuthor):
        from tidings.docs_sync import Author

        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "a").write_bytes(b"x")
        await doc.import_folder(tmp_path / "folder", author=Author.generate().id)


async def test_cancelled_anywhere(doc, tmp_path):
    async with doc.batch() as batch:
        for n in range(60):
            await batch.set(b"%d\0" % n, b"x" * 100)
    out = tmp_path / "out"
    for delay in (0.0, 0.003, 0.01, 0.03):
        export = asyncio.create_task(doc.export_folder(out, replace=True))
        await asyncio.sleep(delay)
        export.cancel()
        await asyncio.gather(export, return_exceptions=True)
        if out.exists():
            assert all(data == b"x" * 100 and "tmp" not in name for name, data in tree(out).items())
    await doc.export_folder(out, replace=True)
    assert len(tree(out)) == 60


async def test_files_that_are_swapped_after_they_were_listed(doc, tmp_path, monkeypatch):
    secret, source = tmp_path / "secret", tmp_path / "source"
    secret.write_bytes(bytes(100_000))
    source.mkdir()
    for name in ("linked", "emptied", "replaced"):
        (source / name).write_bytes(b"x" * 50_000)
    some = folders._some

    async def swapping(files):
        async for each in some(files):
            path = source / each.path
            path.unlink()
            if each.path == "linked":
                path.symlink_to(secret)
            else:
                path.write_bytes(b"" if each.path == "emptied" else b"y" * 60_000)
            yield each

    monkeypatch.setattr(folders, "_some", swapping)
    done = await doc.import_folder(source)
    assert (done.files, done.skipped) == (1, 2)
    assert await contents(doc) == {b"replaced\0": b"y" * 60_000}
    assert not any("/dev/fd" in told.skipped for told in done.told)
