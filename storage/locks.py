"""Locks between the processes of a shared store, held to the end of a transaction.

A job of the writer that reads, decides and writes is alone with its store on SQLite: the one writer is the lock. On
PostgreSQL jobs of other processes run beside it, so it locks what it decides about first: a document, the authors.
"""

from __future__ import annotations

import hashlib

import sqlalchemy as sa

from .errors import Locked

__all__ = ["Contended", "begin_transaction", "lock"]

_HOLDS = "tidings holds a lock"  # in `connection.info`: this transaction may hold one

_WAIT = sa.select(sa.func.pg_advisory_xact_lock(sa.bindparam("number", type_=sa.BigInteger)))
_TRY = sa.select(sa.func.pg_try_advisory_xact_lock(sa.bindparam("number", type_=sa.BigInteger)))


class Contended(Locked):
    """Other processes were at the same things all the time: try again."""


def lock(connection: sa.Connection, key: bytes) -> None:
    """Wait until no other process is in a transaction that locked ``key``, and keep them out until this one ends.

    Every statement after it sees what those transactions committed. May be called again for the same key. Where the
    transaction, which a group of jobs shares, holds another lock already, it does not wait for this one, so that two
    processes never wait for each other: it raises `Contended`, and the writer runs the job again on its own.
    """
    if connection.dialect.name != "postgresql":
        return
    number = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big", signed=True)
    if not connection.info.get(_HOLDS):
        connection.execute(_WAIT, {"number": number})
        connection.info[_HOLDS] = True
    elif not connection.execute(_TRY, {"number": number}).scalar():
        raise Contended("other processes write the same documents all the time: try again")


def begin_transaction(connection: sa.Connection) -> None:
    """For the engine, at each BEGIN: nothing is held yet."""
    connection.info[_HOLDS] = False
