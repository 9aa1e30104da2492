"""Every form of the tree that is there gives what the scalar reference gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import blake3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tidings.blobs import tree, tree_form
from tidings.blobs.reference import parent_cv, tree_cv
from tree import pattern

CASES = json.loads((Path(__file__).parent / "blake3_vectors.json").read_text())["cases"]
FORMS = [("numpy", 0)] + [("kernel", lanes) for lanes in (4, 8, 16) if "kernel" in tree.forms()]
FIXTURE = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=FORMS, ids=lambda form: f"{form[0]}{form[1] or ''}")
def form(request: pytest.FixtureRequest) -> Iterator[str]:
    """The kernel with at most so many lanes; on a processor with fewer it is tested twice."""
    name, lanes = request.param
    tree.use(name)
    if lanes:
        from tidings.blobs import _kernel

        _kernel.use(lanes)
    yield name
    tree.use(tree.forms()[0])


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1023, 1024, 1025, 16384, 16385, 40_000, 16384 * 33 + 5])
def test_groups_with_a_ragged_tail(form: str, size: int) -> None:
    if form == "numpy" and not size:
        return
    data = pattern(size)
    expected = [tree_cv(data[at : at + 16384], 32 + at // 1024) for at in range(0, max(size, 1), 16384)]
    assert tree.group_values(data, 32) == expected
    assert tree.group_cvs(memoryview(data), 32) == b"".join(expected)


@FIXTURE
@given(st.binary(min_size=1, max_size=20_000), st.integers(0, (1 << 50) - 1))
def test_subtrees_are_the_references(form: str, data: bytes, first: int) -> None:
    assert tree.subtree_value(data, 32 * first) == tree_cv(data, 32 * first)


@FIXTURE
@given(st.integers(0, 40), st.randoms(use_true_random=False))
def test_parents_are_the_references(form: str, count: int, random: object) -> None:
    data = random.randbytes(64 * count)  # type: ignore[attr-defined]
    expected = [parent_cv(data[at : at + 32], data[at + 32 : at + 64]) for at in range(0, len(data), 64)]
    assert tree.parent_values(data) == expected
    odd = b"o" * 32
    assert tree.pair_up(data + odd) == b"".join(expected) + odd


@pytest.mark.parametrize(
    "case", [case for case in CASES if case["input_len"] > 1024], ids=lambda c: str(c["input_len"])
)
def test_official_vectors(form: str, case: dict[str, object]) -> None:
    data = pattern(int(str(case["input_len"])))
    cvs = tree.group_cvs(data, 0) if len(data) > 16384 else b""
    if not cvs:
        left = 1 << (-(-len(data) // 1024) - 1).bit_length() - 1
        cvs = tree.subtree_value(data[: left * 1024], 0) + tree.subtree_value(data[left * 1024 :], left)
    while len(cvs) > 64:
        cvs = tree.pair_up(cvs)
    assert parent_cv(cvs[:32], cvs[32:], root=True).hex() == str(case["hash"])[:64]


def test_a_large_input_has_its_hash(form: str) -> None:
    data = os.urandom(3 << 20) + b"and a tail"
    cvs = tree.group_cvs(data, 0)
    while len(cvs) > 64:
        cvs = tree.pair_up(cvs)
    assert parent_cv(cvs[:32], cvs[32:], root=True) == blake3.blake3(data).digest()


def test_wrong_arguments_are_refused_by_the_kernel() -> None:
    kernel = pytest.importorskip("tidings.blobs._kernel")
    with pytest.raises(ValueError, match="power of two"):
        kernel.subtrees(b"x", 0, 3)
    with pytest.raises(ValueError, match="64 bytes"):
        kernel.parents(bytes(63))
    for wrong in [("text", 0, 1), (b"x", "0", 1), (b"x", 0)]:
        with pytest.raises(TypeError):
            kernel.subtrees(*wrong)


def test_the_kernel_can_be_done_without() -> None:
    code = "from tidings.blobs import tree_form; print(tree_form())"
    environment = {**os.environ, "TIDINGS_TREE": "numpy"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout == "numpy\n"
    assert tree_form().startswith(tree.forms()[0])
