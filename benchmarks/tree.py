"""How fast the tree of a blob is computed, on one core: each form that is there, beside `blake3`'s plain hash."""

import os
import time

from blake3 import blake3
from tidings.blobs import tree

SIZE = 16 << 20
ROUNDS = 9

__all__ = ["tree_speed"]


async def tree_speed(report):
    data = os.urandom(SIZE)
    for form in tree.forms():
        tree.use(form)
        name = f"tree, {tree.tree_form()}"
        report.row(name, "MB/s", [_speed(lambda: tree.group_cvs(data, 0)) for _ in range(ROUNDS)])
    tree.use(tree.forms()[0])
    plain = [_speed(lambda: blake3(data, max_threads=1).digest()) for _ in range(ROUNDS)]
    report.row("plain hash of the blake3 package, no tree", "MB/s", plain)


def _speed(work):
    before = time.process_time()
    work()
    return SIZE / 1e6 / (time.process_time() - before)
