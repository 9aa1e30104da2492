"""Statements about who may read: signed by the document's secret, and of use to their holder alone."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidings.docs_sync.access.shares import (
    CONTEXT,
    MAX_STATEMENT,
    SHARE_ID_SIZE,
    Grant,
    Presentation,
    Restriction,
    Revocation,
    Share,
    decode_statement,
    present_secret,
)
from tidings.docs_sync.model.keys import NamespaceSecret
from tidings.transport.errors import DecodeError
from tidings.transport.keys import SecretKey

SECRET = NamespaceSecret(b"\xb2" * 32)
OTHER = NamespaceSecret(b"\xb3" * 32)
ALICE, BOB = SecretKey(b"\1" * 32).public, SecretKey(b"\2" * 32).public

times = st.integers(0, 2**62)
ends = st.none() | times
readers = st.sampled_from([None, ALICE, BOB])
statements = st.one_of(
    st.builds(lambda reader, issued, end: Share.issue(SECRET, reader, issued, end).share, readers, times, ends),
    st.builds(
        lambda share, issued, end: Revocation.issue(SECRET, share, issued, end),
        st.binary(min_size=SHARE_ID_SIZE, max_size=SHARE_ID_SIZE),
        times,
        ends,
    ),
    st.builds(lambda restricted, issued: Restriction.issue(SECRET, restricted, issued), st.booleans(), times),
)


@given(statements)
def test_a_statement_comes_back(statement) -> None:
    encoded = statement.encode()
    assert decode_statement(encoded) == statement
    assert len(encoded) <= MAX_STATEMENT


@given(readers, times, ends)
def test_a_grant_comes_back_and_lets_in_whom_it_is_for(reader, issued, end) -> None:
    grant = Share.issue(SECRET, reader, issued, end)
    decoded = Grant.decode(grant.encode())
    assert decoded.share == grant.share and (decoded.bearer is None) == (reader is not None)
    for endpoint in (ALICE, BOB):
        shown = decoded.present(SECRET.id, endpoint)
        assert (shown is not None) == decoded.is_for(endpoint) == (reader in (None, endpoint))
        if shown is None:
            continue
        presentation = Presentation.decode(shown)
        before = issued if end is None else end - 1
        assert presentation.admits(SECRET.id, endpoint, before, ())
        assert end is None or not presentation.admits(SECRET.id, endpoint, end, ())
        assert not presentation.admits(SECRET.id, endpoint, before, {grant.share.id})
        assert not presentation.admits(OTHER.id, endpoint, before, ())
        other = BOB if endpoint == ALICE else ALICE
        assert not presentation.admits(SECRET.id, other, before, ())


@given(st.binary(max_size=300) | statements.map(lambda each: each.encode()))
@settings(max_examples=200)
def test_any_bytes_are_a_statement_or_an_error(data) -> None:
    for decode in (decode_statement, Grant.decode, Presentation.decode):
        try:
            decode(data)
        except DecodeError:
            pass


@given(statements, st.data())
def test_a_changed_byte_is_noticed(statement, data) -> None:
    encoded = bytearray(statement.encode())
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    try:
        changed = decode_statement(bytes(encoded))
    except DecodeError:
        return
    if isinstance(changed, Share):
        assert not changed.is_valid(SECRET.id, 0)
    else:
        assert not changed.is_genuine(SECRET.id)


def test_the_secret_of_the_document_lets_in_its_holder_alone() -> None:
    shown = Presentation.decode(present_secret(SECRET, ALICE))
    assert shown.admits(SECRET.id, ALICE, 0, ())
    assert not shown.admits(SECRET.id, BOB, 0, ())
    assert not shown.admits(OTHER.id, ALICE, 0, ())


def test_a_statement_of_another_document_or_signer_counts_for_nothing() -> None:
    share = Share.issue(OTHER, ALICE, 1, None).share
    assert share.is_valid(OTHER.id, 2) and not share.is_valid(SECRET.id, 2)
    assert not Revocation.issue(OTHER, bytes(16), 1, None).is_genuine(SECRET.id)
    assert not Restriction.issue(OTHER, False, 1).is_genuine(SECRET.id)
    assert not replace(share, holder=BOB).is_valid(OTHER.id, 2)
    assert not replace(share, not_after_us=5).is_valid(OTHER.id, 2)


def test_a_bearer_s_record_without_its_secret_lets_nobody_in() -> None:
    grant = Share.issue(SECRET, None, 1, None)
    forged = Presentation(grant.share, SecretKey(b"\5" * 32).sign(b"whatever"))
    assert not forged.admits(SECRET.id, ALICE, 2, ())
    stolen = grant.present(SECRET.id, ALICE)
    assert stolen is not None and not Presentation.decode(stolen).admits(SECRET.id, BOB, 2, ())
    with pytest.raises(DecodeError, match="holder"):
        Grant.decode(grant.share.encode() + b"\5" * 32)


def test_no_signature_over_an_entry_passes_for_a_statement() -> None:
    """An entry's bytes begin with the id of its document, which no chosen key makes equal to the context."""
    assert len(CONTEXT) < 32 and not bytes(SECRET.id).startswith(CONTEXT[:8])
    for statement in (Share.issue(SECRET, ALICE, 1, None).share, Restriction.issue(SECRET, True, 1)):
        assert statement._signed(SECRET.id).startswith(CONTEXT + bytes(SECRET.id))


def test_no_secret_in_words() -> None:
    grant = Share.issue(SECRET, None, 1, None)
    assert grant.bearer is not None
    for words in (repr(grant), repr(Presentation.decode(grant.present(SECRET.id, ALICE) or b""))):
        assert grant.bearer.to_bytes().hex() not in words and repr(grant.bearer.to_bytes())[2:-1] not in words
