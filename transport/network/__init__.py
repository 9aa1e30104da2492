"""What network this machine is in, and when that changes."""

from .monitor import NetworkChange, NetworkWatch, watch
from .state import NetworkState

__all__ = ["NetworkChange", "NetworkState", "NetworkWatch", "watch"]
