"""Chaining values of many chunks at once, in the fastest form that is there; 32 bytes each.

``kernel``: C over vector lanes, where it was built (a wheel, or a compiler when tidings was installed), by the widest
instructions that this processor has. ``numpy``: everywhere else. Both are held to `reference` by the tests. The
environment variable ``TIDINGS_TREE=numpy`` does without the kernel.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from types import ModuleType
from typing import TypeAlias

from .geometry import GROUP_CHUNKS, chunk_count

__all__ = [
    "CV",
    "batch_size",
    "forms",
    "group_cvs",
    "group_values",
    "pair_up",
    "parent_values",
    "subtree_value",
    "tree_form",
    "use",
]

Data: TypeAlias = bytes | bytearray | memoryview
CV = 32


class _Form:
    """The one in use."""

    name: str
    subtrees: Callable[[Data, int, int], bytes]
    parents: Callable[[Data], bytes]


_form = _Form()


def forms() -> tuple[str, ...]:
    """The forms that are there, the fastest first."""
    try:
        _kernel()
    except ImportError:
        return ("numpy",)
    return ("kernel", "numpy")


def _kernel() -> ModuleType:
    return importlib.import_module("._kernel", __package__)  # tools that read imports see no built module


def use(form: str) -> None:
    """Compute by ``kernel`` or ``numpy`` from now on."""
    if form == "kernel":
        kernel = _kernel()
        _form.subtrees, _form.parents = kernel.subtrees, kernel.parents
        _form.name = f"kernel, {kernel.use(16)}"
    else:
        _form.subtrees, _form.parents = _numpy_subtrees, _numpy_parents
        _form.name = form


def tree_form() -> str:
    """Which form is in use, and how wide."""
    return _form.name


def batch_size() -> int:
    """Bytes best computed in one go: with the kernel few enough for the processor's cache, numpy needs many."""
    return 1 << (20 if _form.name == "numpy" else 19)


def group_cvs(data: Data, first_chunk: int) -> bytes:
    """Of the consecutive chunk groups in ``data``, joined; only the last may be short.

    ``first_chunk`` is a multiple of 16. Never the root: a blob of one group has its hash there.
    """
    return _form.subtrees(data, first_chunk, GROUP_CHUNKS)


def group_values(data: Data, first_chunk: int) -> list[bytes]:
    """`group_cvs`, each by itself."""
    return _split(group_cvs(data, first_chunk))


def parent_values(pairs: Data) -> list[bytes]:
    """Of the nodes over the 64-byte pairs that are joined in ``pairs``."""
    return _split(_form.parents(pairs))


def pair_up(cvs: bytes) -> bytes:
    """One level up: neighbours become parents, an odd last one stays as it is.

    Repeated from any perfect alignment this is the left-full tree: a subtree's odd end waits for its sibling.
    """
    even = len(cvs) // (2 * CV) * 2 * CV
    return _form.parents(memoryview(cvs)[:even]) + cvs[even:]


def subtree_value(data: Data, first_chunk: int) -> bytes:
    """Of the subtree that has exactly these bytes."""
    return _form.subtrees(data, first_chunk, 1 << (chunk_count(len(data)) - 1).bit_length())


def _split(joined: bytes) -> list[bytes]:
    return [joined[at : at + CV] for at in range(0, len(joined), CV)]


# numpy takes 0.1 s to import, and small blobs need none of it.


def _numpy_subtrees(data: Data, first_chunk: int, chunks: int) -> bytes:
    from .vector import subtree_cvs

    return subtree_cvs(data, first_chunk, chunks).tobytes()


def _numpy_parents(pairs: Data) -> bytes:
    from .vector import joined_parents

    return joined_parents(pairs).tobytes()


use("numpy" if os.environ.get("TIDINGS_TREE") == "numpy" else forms()[0])
