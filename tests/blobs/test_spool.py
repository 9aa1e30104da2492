from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.blobs.spool import Spool
from tidings.storage import NotWritable


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.integers(0, 100), st.randoms(use_true_random=False))
def test_bytes_come_back_in_memory_and_in_a_file(pieces: list[bytes], limit: int, random: object) -> None:
    with tempfile.TemporaryDirectory() as name:
        spool = Spool(Path(name), limit)
        offsets = [sum(map(len, pieces[:i])) for i in range(len(pieces))]
        writes = list(zip(offsets, pieces, strict=True))
        random.shuffle(writes)  # type: ignore[attr-defined]
        for offset, piece in writes:
            spool.write(offset, piece)
        whole = b"".join(pieces)
        assert spool.size == len(whole)
        assert spool.read(0, spool.size) == whole
        assert spool.in_memory == (len(whole) <= limit) == (not list(Path(name).iterdir()))
        spool.discard()
        assert not list(Path(name).iterdir())


def test_move_gives_it_its_name(tmp_path: Path) -> None:
    (tmp_path / "temp").mkdir()
    spool = Spool(tmp_path / "temp", 2)
    spool.write(0, b"abc")
    spool.move(tmp_path / "aa" / "blob")
    spool.discard()
    assert (tmp_path / "aa" / "blob").read_bytes() == b"abc"
    assert not list((tmp_path / "temp").iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(NotWritable):
        Spool(tmp_path, 0).write(0, b"a")
