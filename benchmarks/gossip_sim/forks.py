"""The same moment, gone on from several times: each continuation runs in a fork of its own."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["in_forks"]

_work: list[Callable[..., Any]] = []  # what a fork is to do: inherited, since a state is no message


def in_forks(work: Callable[..., Any], arguments: Iterable[tuple[Any, ...]], at_once: int) -> list[Any]:
    """``work(*each)`` for each of ``arguments``, in order; whatever it changes stays in its fork."""
    _work.append(work)
    gc.collect()
    gc.freeze()  # what is not touched is not copied
    try:
        with multiprocessing.get_context("fork").Pool(at_once, maxtasksperchild=1) as pool:
            return pool.map(_run, list(arguments), chunksize=1)
    finally:
        gc.unfreeze()
        _work.clear()


def _run(arguments: tuple[Any, ...]) -> Any:
    return _work[0](*arguments)
