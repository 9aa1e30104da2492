"""Puts this folder on the path, for its helper modules (nodes, program, kill_rounds)."""

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from program import Outcome
from tidings.node.cli import main


@pytest.fixture
def here(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> Callable[..., Outcome]:
    """The command line inside this process, with the node ``tmp_path/node``: quicker than a process for each call."""

    def call_main(*args: str | bytes | Path, stdin: bytes = b"") -> Outcome:
        options = ["--node", str(tmp_path / "node"), "--bind", "127.0.0.1:0"]
        monkeypatch.setattr("sys.argv", ["tidings", *options, *map(os.fsdecode, args)])
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsysbinary.readouterr()
        return Outcome(int(ended.value.code or 0), out, err.decode())

    return call_main
