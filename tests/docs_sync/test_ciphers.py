"""Both ciphers of encrypted documents: round trips, structure, and what no key holder wrote."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.docs_sync.access.content_cipher import CHUNK, HEADER, TAG, ContentCipher, opened, plain_size, sealed
from tidings.docs_sync.access.key_cipher import OVERHEAD, KeyCipher
from tidings.docs_sync.errors import BadKey, Undecipherable
from tidings.docs_sync.model.keys import NamespaceId
from tidings.docs_sync.model.validity import MAX_KEY_SIZE

DOCUMENT, ANOTHER = NamespaceId(bytes(32)), NamespaceId(bytes(31) + b"\1")
NAMES = KeyCipher(b"\7" * 32, DOCUMENT)
CONTENTS = ContentCipher(b"\7" * 32, DOCUMENT)
VECTOR_NAME = "0002176c39192d7d99c559da418b186b375a5b2a0001e0fc01271680f3e0cec8463a6279441822"
VECTOR_CONTENT = "01" + "09" * 32 + "881dc85a5f3cb0811218975d4e437820d22bbbc6ea"

paths = st.lists(st.sampled_from([b"a", b"ab", b"/", b"\0", b"\xff"]), max_size=8).map(b"".join) | st.binary(
    max_size=80
)


def components(key: bytes) -> list[bytes]:
    return [part for part in key.replace(b"/", b"/\n").split(b"\n") if part] if b"\n" not in key else [key]


@given(paths)
def test_a_key_comes_back(key) -> None:
    encrypted = NAMES.encrypt(key)
    assert NAMES.decrypt(encrypted) == key
    assert encrypted == NAMES.encrypt(key), "an entry is found again by its key"
    if b"\n" not in key:
        assert len(encrypted) == len(key) + OVERHEAD * len(components(key))


@given(paths, paths)
def test_one_key_is_a_prefix_of_another_where_its_path_is(a, b) -> None:
    is_above = a in (b, b"") or (b.startswith(a) and a.endswith(b"/"))
    assert NAMES.encrypt(b).startswith(NAMES.encrypt(a)) == is_above


@given(st.binary(max_size=200))
def test_any_bytes_are_an_encrypted_key_or_an_error(data) -> None:
    try:
        assert NAMES.encrypt(NAMES.decrypt(data)) == data
    except Undecipherable:
        pass


@given(paths.filter(bool), st.data())
def test_a_changed_key_is_noticed(key, data) -> None:
    encrypted = bytearray(NAMES.encrypt(key))
    encrypted[data.draw(st.integers(0, len(encrypted) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Undecipherable):
        NAMES.decrypt(bytes(encrypted))


def test_a_component_cannot_be_moved() -> None:
    first, second = NAMES.encrypt(b"a/"), NAMES.encrypt(b"b/")
    below = NAMES.encrypt(b"a/x")[len(first) :]
    with pytest.raises(Undecipherable):
        NAMES.decrypt(second + below)
    with pytest.raises(Undecipherable):
        NAMES.decrypt(below)
    with pytest.raises(Undecipherable):
        NAMES.decrypt(NAMES.encrypt(b"a") + NAMES.encrypt(b"b"))
    assert NAMES.encrypt(b"b/x")[len(second) :] != below, "equal names in different places do not look equal"


def test_another_document_or_key_cannot_read_it() -> None:
    for other in (KeyCipher(b"\7" * 32, ANOTHER), KeyCipher(b"\x08" * 32, DOCUMENT)):
        with pytest.raises(Undecipherable):
            other.decrypt(NAMES.encrypt(b"name"))
    for other in (ContentCipher(b"\7" * 32, ANOTHER), ContentCipher(b"\x08" * 32, DOCUMENT)):
        with pytest.raises(Undecipherable):
            other.decrypt(b"k", CONTENTS.encrypt(b"k", b"content"))


def test_the_longest_keys() -> None:
    longest = b"k" * (MAX_KEY_SIZE - OVERHEAD)
    assert len(NAMES.encrypt(longest)) == MAX_KEY_SIZE
    for key in (longest + b"k", b"/" * (MAX_KEY_SIZE // OVERHEAD)):
        with pytest.raises(BadKey):
            NAMES.encrypt(key)


sizes = st.sampled_from([0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1]) | st.integers(0, 300)


@settings(max_examples=30, deadline=None)
@given(sizes, st.integers(1, 90_000))
def test_a_content_comes_back_however_it_is_cut(size, piece) -> None:
    content = bytes(n % 256 for n in range(256)) * (size // 256) + bytes(size % 256)
    pieces = [content[at : at + piece] for at in range(0, size, piece)]
    encrypted = b"".join(sealed(CONTENTS.sealer(b"k"), pieces))
    assert plain_size(len(encrypted)) == size
    cut = [encrypted[at : at + piece] for at in range(0, len(encrypted), piece)]
    assert b"".join(opened(CONTENTS.opener(b"k"), cut)) == CONTENTS.decrypt(b"k", encrypted) == content
    assert CONTENTS.encrypt(b"k", content) != encrypted, "two writes of one content do not look equal"


@settings(max_examples=60, deadline=None)
@given(sizes, st.data())
def test_a_changed_content_is_noticed(size, data) -> None:
    encrypted = CONTENTS.encrypt(b"k", bytes(size))
    at = data.draw(st.integers(0, len(encrypted) - 1))
    changed = bytearray(encrypted)
    changed[at] ^= data.draw(st.integers(1, 255))
    shorter = encrypted[: data.draw(st.integers(0, len(encrypted) - 1))]
    for bad in (bytes(changed), shorter, encrypted + b"\0"):
        with pytest.raises(Undecipherable):
            CONTENTS.decrypt(b"k", bad)


def test_chunks_cannot_be_moved_doubled_or_left_out() -> None:
    encrypted = CONTENTS.encrypt(b"k", bytes(CHUNK) + b"\1" * CHUNK + b"\2" * CHUNK)
    head, step = encrypted[:HEADER], CHUNK + TAG
    a, b, c = (encrypted[HEADER + n * step : HEADER + (n + 1) * step] for n in range(3))
    assert CONTENTS.decrypt(b"k", head + a + b + c)
    for bad in (head + b + a + c, head + a + a + b + c, head + a + c, head + a + b, head + c, head):
        with pytest.raises(Undecipherable):
            CONTENTS.decrypt(b"k", bad)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_encrypted_content_or_an_error(data) -> None:
    with pytest.raises(Undecipherable):
        CONTENTS.decrypt(b"k", data)


def test_a_content_belongs_to_its_key() -> None:
    with pytest.raises(Undecipherable):
        CONTENTS.decrypt(b"other", CONTENTS.encrypt(b"k", b"content"))


@given(st.integers(0, 10 * CHUNK))
def test_no_other_size_is_an_encrypted_content_s(size) -> None:
    plain = plain_size(size)
    if plain is not None:
        assert HEADER + plain + max(1, -(-plain // CHUNK)) * TAG == size
    back = plain_size(HEADER + size + max(1, -(-size // CHUNK)) * TAG)
    assert back == size


def test_vectors() -> None:
    """The format may not change: what was written has to be read for ever."""
    assert NAMES.encrypt(b"a/b").hex() == VECTOR_NAME
    encrypted = b"".join(sealed(CONTENTS.sealer(b"k", salt=b"\x09" * 32), [b"hello"]))
    assert encrypted.hex() == VECTOR_CONTENT
