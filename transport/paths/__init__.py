"""The ways by which datagrams reach a peer: finding them, proving them, choosing one of them."""

from .info import PathInfo

__all__ = ["PathInfo"]
