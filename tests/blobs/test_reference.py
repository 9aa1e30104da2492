from __future__ import annotations

import json
from pathlib import Path

import pytest
from tidings.blobs.reference import tree_cv
from tree import pattern

# The official vectors of the BLAKE3 repository; the first 32 bytes of `hash` are the plain hash.
CASES = json.loads((Path(__file__).parent / "blake3_vectors.json").read_text())["cases"]


@pytest.mark.parametrize("case", [c for c in CASES if c["input_len"] <= 8193], ids=lambda c: c["input_len"])
def test_official_vectors(case: dict[str, object]) -> None:
    assert tree_cv(pattern(int(str(case["input_len"]))), root=True).hex() == str(case["hash"])[:64]
