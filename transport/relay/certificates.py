"""A TLS context over certificate files that are looked at again while it serves."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path

from ...errors import UsageError

__all__ = ["BadCertificate", "Certificates"]

logger = logging.getLogger(__name__)

LOOK_AGAIN = 60.0  # seconds


class BadCertificate(UsageError):
    """A certificate or its key cannot be read, or they do not belong together."""


class Certificates:
    """``context`` serves what the files held when they were last good. Raises BadCertificate.

    ``on_renewed``, once set, is called when others have taken their place.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self.files = certificate, key
        self.on_renewed: Callable[[], None] = lambda: None
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._seen = self._stamp()
        self._load(self.context)

    async def watch(self) -> None:
        """Take up renewed files, for ever. Files that are no good are told in the log, and the old ones go on."""
        while True:
            await asyncio.sleep(LOOK_AGAIN)
            try:
                self.look()
            except BadCertificate as error:
                logger.warning("the certificate of before goes on: %s", error)

    def look(self) -> bool:
        """Whether the files had changed, and are in use now. Raises BadCertificate; each state is told once."""
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp
        self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))  # half of a pair would spoil the one in use
        self._load(self.context)
        self.on_renewed()
        return True

    def _load(self, context: ssl.SSLContext) -> None:
        certificate, key = self.files
        try:
            context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise BadCertificate(
                f"{certificate} with {key} is no certificate to serve with: {error.strerror or error}"
            ) from error

    def _stamp(self) -> tuple[int, ...]:
        try:
            return tuple(file.stat().st_mtime_ns for file in self.files)
        except OSError:
            return ()
