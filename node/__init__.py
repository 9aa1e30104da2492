"""Everything together: `Node` in one directory, and the command line."""

from .node import Node

__all__ = ["Node"]
