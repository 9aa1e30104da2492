"""Documents as JSON Lines: written and read as a stream, in constant memory (`jsonl_lines` is one line).

An export has the entries of a query in its order, with the contents that are here and not large. With signatures it is
a copy that proves itself: imported into a replica of the same document, read-only ones too, the entries are what they
were, and the put rule decides as if a peer had sent them. Everything else is written anew, as the importer's own.

An import goes on in steps of some lines, each a transaction. At the first line that is not right it stops: the lines
before it are in, it and what follows is not, and the same file, mended, can be imported again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from os import PathLike
from pathlib import Path
from typing import BinaryIO, Protocol

from blake3 import blake3

from ...blobs import BlobDamaged, Blobs, Hash, NotFound, UnreadableFile
from ...storage.files import new_file
from ..doc_entry import Entry
from ..errors import (
    BadImport,
    BadKey,
    ContentMissing,
    EmptyValue,
    EncryptedDocument,
    FalseSize,
    InvalidEntry,
    Undecipherable,
)
from ..model.entry import SignedEntry
from ..model.keys import NamespaceId
from ..model.put import Put
from ..tasks import in_thread
from .batch import Batch
from .jsonl_lines import INLINE, MAX_LINE, BadLine, Line, decode_line, encode_line

__all__ = ["Exported", "Imported", "Progress", "Source", "Target", "export_lines", "import_lines"]

WRITE_AT_ONCE = 1 << 20  # bytes of lines, and of contents that are read together
ENTRIES_AT_ONCE = 64  # whose contents are read together
LINES_AT_ONCE = 1000  # in one transaction of an import
READ_AT_ONCE = 4 << 20  # bytes of them

Source = str | PathLike[str] | BinaryIO
"""A path, or a file that is open in binary mode."""

Progress = Callable[[int], object]
"""Called on the event loop with the number of entries, or lines, so far."""


@dataclass(frozen=True, slots=True)
class Exported:
    """``named``: how many of the ``entries`` have their content not in the file, because it is large or not here."""

    entries: int = 0
    named: int = 0


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of the lines.

    ``written`` in the importer's name; ``kept`` as they were signed; ``known``: signed ones that were here already, or
    that something newer here supersedes; ``skipped``: deletions that were not asked for, and lines with the key of the
    line before and an older time.
    """

    lines: int = 0
    written: int = 0
    kept: int = 0
    known: int = 0
    skipped: int = 0


class Target(Protocol):
    """The document that takes an import."""

    @property
    def namespace(self) -> bytes: ...

    def batch(self) -> Batch: ...

    async def keep(self, entries: Sequence[SignedEntry], contents: Sequence[bytes]) -> Sequence[Put | InvalidEntry]:
        """Store ``contents``, then put entries that others signed."""
        ...


async def export_lines(
    entries: AsyncIterator[Entry],
    blobs: Blobs,
    place: Source,
    *,
    contents: bool,
    signatures: bool,
    progress: Progress | None = None,
) -> Exported:
    """Raises EncryptedDocument where signatures would be of no use."""

    async def line_of(entry: Entry, here: _Here) -> Line:
        signed = entry.signed
        stored = entry.key == signed.id.key and entry.size == signed.record.size
        proof = None
        if signatures:
            if not stored:
                raise EncryptedDocument("the entries of an encrypted document are signed as ciphertext: export without")
            proof = (signed.id.namespace, signed.author_signature, signed.namespace_signature)
        line = Line(
            entry.key, signed.record.hash, signed.record.size, None, signed.id.author, signed.record.timestamp, proof
        )
        if contents and 0 < entry.size <= INLINE:
            try:
                content = await entry.read_by(here).content()
            except (ContentMissing, FalseSize, Undecipherable, BlobDamaged, NotFound):
                return line
            line = replace(line, content=content)
            if not stored:
                line = replace(line, hash=blake3(content).digest(), size=len(content))
        return line

    count = named = 0
    async with _opened_to_write(place) as write:
        async for group in _groups(entries):
            here = _Here(blobs, await blobs.small([entry.hash for entry in group]) if contents else {})
            lines = [await line_of(entry, here) for entry in group]
            await write(b"".join(map(encode_line, lines)))
            count += len(lines)
            named += sum(line.content is None and not line.is_tombstone for line in lines)
            if progress is not None:
                progress(count)
    return Exported(count, named)


class _Here:
    """Reads contents without waiting for those that are not here; ``small`` were read already."""

    def __init__(self, blobs: Blobs, small: Mapping[Hash, bytes]) -> None:
        self._blobs = blobs
        self._small = small

    async def content(self, namespace: NamespaceId, hash: Hash, size: int, timeout: float) -> bytes:
        await self.arrival(namespace, hash, size, timeout)
        known = self._small.get(hash)
        return await self._blobs.read(hash, 0, size + 1) if known is None else known

    async def arrival(self, namespace: NamespaceId, hash: Hash, size: int, timeout: float) -> None:
        if hash not in self._small and not await self._blobs.has(hash):
            raise ContentMissing(f"content {hash.short()} is not here")

    async def pieces(self, hash: Hash) -> AsyncIterator[bytes]:
        yield await self._blobs.read(hash)


async def _groups(entries: AsyncIterator[Entry]) -> AsyncIterator[list[Entry]]:
    group: list[Entry] = []
    size = 0
    async for entry in entries:
        group.append(entry)
        size += entry.size if entry.size <= INLINE else 0
        if len(group) == ENTRIES_AT_ONCE or size > WRITE_AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group


async def import_lines(
    target: Target, place: Source, *, tombstones: bool, progress: Progress | None = None
) -> Imported:
    """Raises BadImport, UnreadableFile, and what writing raises (ReadOnly, UnknownAuthor, ClockBehind)."""
    work = _Import(target, tombstones)
    async with _opened_to_read(place) as file:
        reader = _Reader(file)
        while not reader.over:
            await work.take(await in_thread(reader.read))
            if progress is not None:
                progress(work.done.lines)
        if reader.bad is not None:
            raise reader.bad
    return work.done


class _Import:
    def __init__(self, target: Target, tombstones: bool) -> None:
        self.done = Imported()
        self._target = target
        self._tombstones = tombstones
        self._last: Line | None = None  # that was written

    async def take(self, lines: Sequence[tuple[int, Line]]) -> None:
        """Steps in the order of the lines, so that later ones meet what earlier ones left."""
        namespace = self._target.namespace
        for is_signed, group in groupby(lines, key=lambda each: each[1].signed(namespace) is not None):
            step = self._keep if is_signed else self._write
            await step(list(group))

    async def _write(self, lines: Sequence[tuple[int, Line]]) -> None:
        bad: BadImport | None = None
        written = skipped = 0
        async with self._target.batch() as batch:
            for number, line in lines:
                if self._is_skipped(line):
                    skipped += 1
                    continue
                try:
                    await _add(batch, line)
                except (BadKey, EmptyValue, EncryptedDocument) as error:
                    bad = BadImport(number, str(error))
                    break
                self._last = line
                written += 1
        self._count(lines=written + skipped, written=written, skipped=skipped)
        if bad is not None:
            raise bad

    def _is_skipped(self, line: Line) -> bool:
        last = self._last
        if line.is_tombstone and not self._tombstones:
            return True
        if last is None or last.key != line.key or last.timestamp is None or line.timestamp is None:
            return False
        return (line.timestamp, line.hash) < (last.timestamp, last.hash)  # another author's, as they lie in an export

    async def _keep(self, lines: Sequence[tuple[int, Line]]) -> None:
        signed = [entry for _, line in lines if (entry := line.signed(self._target.namespace)) is not None]
        contents = [line.content for _, line in lines if line.content]
        outcomes = await self._target.keep(signed, contents)
        kept = 0
        for (number, _), outcome in zip(lines, outcomes, strict=False):
            if isinstance(outcome, InvalidEntry):
                raise BadImport(number, str(outcome))
            kept += outcome.stored
        self._count(lines=len(lines), kept=kept, known=len(lines) - kept)

    def _count(self, **more: int) -> None:
        self.done = replace(self.done, **{name: getattr(self.done, name) + count for name, count in more.items()})


async def _add(batch: Batch, line: Line) -> None:
    if line.is_tombstone:
        await batch.delete(line.key)
    elif line.content is not None:
        await batch.set(line.key, line.content)
    else:
        await batch.set_hash(line.key, line.hash, line.size)


class _Reader:
    """``bad``: what is wrong with the line at which it stopped."""

    def __init__(self, file: BinaryIO) -> None:
        self.over = False
        self.bad: BadImport | None = None
        self._file = file
        self._number = 0

    def read(self) -> list[tuple[int, Line]]:
        """The next lines with their numbers; blocks. Of bounded size, so there may be none before the end."""
        lines: list[tuple[int, Line]] = []
        size = 0
        while len(lines) < LINES_AT_ONCE and size < READ_AT_ONCE and not self.over:
            try:
                raw = self._file.readline(MAX_LINE + 1)
            except OSError as error:
                raise UnreadableFile(f"the import cannot be read on: {error.strerror or error}") from error
            self._number += 1
            size += len(raw)
            text = raw.strip().removeprefix(b"\xef\xbb\xbf")
            try:
                if len(raw) > MAX_LINE:
                    raise BadLine(f"it has more than {MAX_LINE} bytes")
                if text:
                    lines.append((self._number, decode_line(text)))
            except BadLine as error:
                self.bad = BadImport(self._number, str(error))
            self.over = not raw or self.bad is not None
        return lines


@asynccontextmanager
async def _opened_to_read(place: Source) -> AsyncIterator[BinaryIO]:
    if not isinstance(place, str | PathLike):
        yield place
        return
    with ExitStack() as stack:

        def open_it() -> BinaryIO:
            return stack.enter_context(Path(place).open("rb"))

        try:
            file = await in_thread(open_it)
        except OSError as error:
            raise UnreadableFile(f"cannot read {place}: {error.strerror or error}") from error
        yield file


@asynccontextmanager
async def _opened_to_write(place: Source) -> AsyncIterator[Callable[[bytes], Awaitable[None]]]:
    """What writes to ``place``; a path gets its file when all is written, and keeps the old one otherwise."""

    def write_all(data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]

    async def write(data: bytes) -> None:
        await in_thread(write_all, data)

    if not isinstance(place, str | PathLike):
        file = place
        yield write
        await in_thread(file.flush)
        return
    stack = ExitStack()  # knows that the file was opened, also where this is cancelled meanwhile
    try:
        file = await in_thread(stack.enter_context, new_file(Path(place)))
        yield write
    except BaseException as error:
        await in_thread(stack.__exit__, type(error), error, error.__traceback__)
        raise
    await in_thread(stack.close)
