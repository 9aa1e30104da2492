"""``tidings demo``, small: the same steps with few files."""

from pathlib import Path

from program import run
from tidings.node.demo import copy_sources, differences


async def test_a_small_demo() -> None:
    outcome = await run(None, "--json", "demo", "--files", "10")
    assert (outcome.code, outcome.err) == (0, ""), outcome
    said = [event["what"] for event in outcome.json()]
    assert sum(what.startswith("ok ") for what in said) == 5
    assert said[-1].startswith("laptop and phone agree in 12 files")


def test_sources_are_copied_with_their_folders(tmp_path: Path) -> None:
    size = copy_sources(tmp_path, 20)
    copied = list(tmp_path.rglob("*.py"))
    assert len(copied) == 20 and sum(path.stat().st_size for path in copied) == size


def test_what_differs_is_named() -> None:
    assert differences({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "x", "d": "4"}) == ["b", "c", "d"]
