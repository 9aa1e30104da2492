"""A 32-byte secret in a file of its own: raw bytes, mode 0600, created once and never replaced."""

from __future__ import annotations

import secrets
from pathlib import Path

from .errors import Damaged, from_os_error
from .files import make_private, make_private_dir, write_durably

__all__ = ["SECRET_SIZE", "read_or_create_secret"]

SECRET_SIZE = 32


def read_or_create_secret(path: Path) -> bytes:
    """The secret at ``path``; a new random one is written there first where there is no file.

    Rights of group and others are taken away with a warning. Raises `Damaged` where the file is not 32 bytes long.
    Two callers that create the same file at once must exclude each other (a node holds its database's lock).
    """
    try:
        make_private(path)
        with path.open("rb") as file:
            secret = file.read(SECRET_SIZE + 1)
    except FileNotFoundError:
        secret = secrets.token_bytes(SECRET_SIZE)
        make_private_dir(path.parent)
        write_durably(path, secret)
        return secret
    except OSError as error:
        raise from_os_error(error, path) from error
    if len(secret) != SECRET_SIZE:
        raise Damaged(
            f"{path} should hold a secret key of {SECRET_SIZE} bytes and does not: restore it from a backup, "
            "or move it away to get a new identity"
        )
    return secret
