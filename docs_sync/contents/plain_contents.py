"""Policies and contents of encrypted documents, as their programs see them: with plain keys and sizes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from ..access.encryption import DocumentCipher
from ..errors import BadPolicy
from ..model.policy import DownloadPolicy, Exact, Filter, Prefix
from ..store.content_store import Content

__all__ = ["plain_contents", "plain_policy", "stored_policy"]


def stored_policy(policy: DownloadPolicy, cipher: DocumentCipher | None) -> DownloadPolicy:
    """The same over keys as they are stored. Raises BadPolicy, BadKey."""

    def stored(filter: Filter) -> Filter:
        assert cipher is not None
        if isinstance(filter, Exact):
            return Exact(cipher.encrypt_key(filter.key))
        raw, is_wider = cipher.prefix_of(filter.key)
        if is_wider:
            raise BadPolicy(f"{filter}: in an encrypted document a prefix is empty or ends in '/'")
        return Prefix(raw)

    return policy if cipher is None else replace(policy, filters=tuple(map(stored, policy.filters)))


def plain_policy(policy: DownloadPolicy, cipher: DocumentCipher | None) -> DownloadPolicy:
    """What `stored_policy` was made of; filters that were made without the document's key stay as they are."""

    def plain(filter: Filter) -> Filter:
        assert cipher is not None
        key = cipher.decrypt_key(filter.key)
        return filter if key is None else type(filter)(key)

    return policy if cipher is None else replace(policy, filters=tuple(map(plain, policy.filters)))


async def plain_contents(contents: AsyncIterator[Content], cipher: DocumentCipher | None) -> AsyncIterator[Content]:
    async for content in contents:
        if cipher is None:
            yield content
            continue
        key = None if content.key is None else cipher.decrypt_key(content.key)
        yield replace(content, key=key, size=cipher.plain_size(content.size))
