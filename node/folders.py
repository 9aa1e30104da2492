"""Which document each folder is kept the same with: one JSON file in the node's directory."""

from __future__ import annotations

import json
from pathlib import Path

from ..storage import Damaged
from ..storage.files import write_durably

__all__ = ["bind_folder", "folder_document"]


def folder_document(node: Path, folder: Path) -> str | None:
    """The id of the document that ``folder`` belongs to. Raises Damaged where the list cannot be read."""
    return _read(node).get(str(folder.absolute()))


def bind_folder(node: Path, folder: Path, document: str) -> None:
    """Remember from now on that ``folder`` belongs to ``document``."""
    known = _read(node)
    name = str(folder.absolute())
    if known.get(name) != document:
        write_durably(_file(node), json.dumps({**known, name: document}, indent=1).encode())


def _file(node: Path) -> Path:
    return node / "folders.json"


def _read(node: Path) -> dict[str, str]:
    try:
        known = json.loads(_file(node).read_text())
        return {str(folder): str(document) for folder, document in known.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise Damaged(
            f"{_file(node)} cannot be read ({error}): restore it, or delete it and give each folder its ticket again"
        ) from error
