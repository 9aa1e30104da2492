"""``python -m tidings``: the same as the command ``tidings``."""

from .node.cli import main

main()
