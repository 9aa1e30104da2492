"""Puts this folder on the path, for its helper modules (docs_model, docs_net)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
