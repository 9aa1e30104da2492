"""Puts this folder on the path, for its helper modules (nodes, program, kill_writer)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
