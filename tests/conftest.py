"""Puts this folder on the path, for `postgres_server`, and gives its fixtures to every test."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from postgres_server import postgres, postgres_url

__all__ = ["postgres", "postgres_url"]
