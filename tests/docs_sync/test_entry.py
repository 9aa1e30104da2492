"""Entries and their keys: Appendix A, orders, codecs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidings.docs_sync.model.entry import EMPTY_HASH, EntryId, Record, SignedEntry, fingerprint_of, sign_entry
from tidings.docs_sync.model.keys import Author, AuthorId, NamespaceId, NamespaceSecret
from tidings.transport.errors import DecodeError, InvalidKey
from tidings.transport.postcard import Reader, Writer

NAMESPACE = NamespaceSecret(b"\xb2" * 32)
AUTHOR = Author(b"\xa1" * 32)
ENTRY = sign_entry(NAMESPACE, AUTHOR, b"wire-format-test", Record(0, EMPTY_HASH, 1_700_000_000_000_000))
SIGNED_ENTRY = bytes.fromhex(
    "4b523f1b6d9b00a4779fc9f8f105a9e36f062ceb7d511b632905782042ad30ac"
    "b6dd07bfced4ecd5f3aa58321e8ace63f48f988ed8461bfdcd8b0e902187a10e"
    "228ddc6998329b7faa64875fe80da36406ea8d87e3e57bb048323e9cb66c0b34"
    "3b60c4e709fb978b878e37d0c362edfc06c8cdc774c8b29d94e48eaa06cca60f"
    "5055154f42065ea5a1bea05463826be2684eb92df92c100027aabaae57ca554207"
    "bc7cbcb5636375fa1d82434d466724d92377f53b980695dd49d26d0ce12205a5"
    "776972652d666f726d61742d7465737400"
    "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f32628080f9c0c1c48203"
)


def encoded(entry: SignedEntry) -> bytes:
    out = Writer()
    entry.write(out)
    return out.finish()


def test_ids_of_the_vector_keys() -> None:
    assert str(NAMESPACE.id) == "55154f42065ea5a1bea05463826be2684eb92df92c100027aabaae57ca554207"
    assert str(AUTHOR.id) == "bc7cbcb5636375fa1d82434d466724d92377f53b980695dd49d26d0ce12205a5"


def test_signed_bytes() -> None:
    assert ENTRY.signed_bytes() == bytes(NAMESPACE.id) + bytes(AUTHOR.id) + b"wire-format-test" + bytes(
        8
    ) + EMPTY_HASH + (1_700_000_000_000_000).to_bytes(8, "big")


def test_signed_entry_is_the_upstream_snapshot() -> None:
    assert encoded(ENTRY) == SIGNED_ENTRY
    assert SignedEntry.read(Reader(SIGNED_ENTRY)) == ENTRY
    assert ENTRY.record.is_tombstone


def test_fingerprint() -> None:
    assert fingerprint_of(ENTRY.id, ENTRY.record).hex() == (
        "82633c86fc3982b032c8ca98e8d2be370cd46ecdc130a40397d7c98042587afc"
    )


def test_ids_are_hex_only() -> None:
    text = str(AUTHOR.id)
    assert AuthorId.parse(text) == AUTHOR.id
    with pytest.raises(InvalidKey):
        AuthorId.parse(AUTHOR.public.base32())
    with pytest.raises(InvalidKey):
        NamespaceId.parse(text.upper())


def test_secrets_do_not_print() -> None:
    assert "a1a1" not in repr(AUTHOR)
    assert "b2b2" not in repr(NAMESPACE)


def test_an_id_under_64_bytes() -> None:
    with pytest.raises(DecodeError, match="63 bytes"):
        EntryId.from_bytes(bytes(63))
    short = bytes(128) + b"\x3f" + bytes(63) + b"\0" + EMPTY_HASH + b"\0"
    with pytest.raises(DecodeError):
        SignedEntry.read(Reader(short))


@given(
    key=st.binary(max_size=80),
    size=st.integers(0, 2**64 - 1),
    timestamp=st.integers(0, 2**64 - 1),
    hash=st.binary(min_size=32, max_size=32),
    signatures=st.binary(min_size=128, max_size=128),
)
def test_round_trip(key: bytes, size: int, timestamp: int, hash: bytes, signatures: bytes) -> None:
    entry = SignedEntry(
        EntryId(bytes(32), bytes(32), key), Record(size, hash, timestamp), signatures[:64], signatures[64:]
    )
    assert SignedEntry.read(Reader(encoded(entry))) == entry


@given(st.binary(max_size=400))
def test_any_bytes_are_an_entry_or_a_decode_error(data: bytes) -> None:
    try:
        SignedEntry.read(Reader(data))
    except DecodeError:
        pass
