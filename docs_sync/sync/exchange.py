"""One request and its answer on a stream of ``tidings/docs/1``, from either side, each wait with its limit."""

from __future__ import annotations

import asyncio

from ...transport import BiStream, EndpointId, frame
from ...transport.errors import ConnectionClosed, DecodeError
from ...transport.framing import read_frame
from ..model.native_messages import (
    MAX_REQUEST,
    Answer,
    Request,
    decode_answer,
    decode_request,
    encode_answer,
)
from .connections import Connections, Use

__all__ = ["ask", "give_up", "read_request", "write_answer"]

REQUEST_TIMEOUT = 10.0  # seconds for a request to come whole, or for ours to be taken
ANSWER_TIMEOUT = 15.0  # seconds for an answer: an access hook may take five of them, an older session one
GAVE_UP = 1  # code of a stream that is not needed any more


async def ask(connections: Connections, peer: EndpointId, opening: bytes) -> tuple[Use, BiStream, Answer] | None:
    """Send ``opening``, which begins with the frame of a request; None where the peer speaks iroh only.

    Once more on a new connection, where the kept one turns out to be gone: the request has changed nothing then. The
    `Use` and the stream are the caller's. Raises what dials and streams raise, DecodeError, TimeoutError.
    """
    while True:
        use, was_open = await connections.use(peer)
        if not use.kept:
            use.release()
            return None
        stream: BiStream | None = None
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                stream = await use.connection.open_bi()
                await stream.send.write(opening)
            return use, stream, await _read_answer(stream)
        except ConnectionClosed:
            use.release()
            if not was_open:
                raise
        except BaseException as error:
            if stream is not None:
                give_up(stream)
            if isinstance(error, TimeoutError):
                use.distrust()
            use.release()
            raise


async def read_request(stream: BiStream) -> Request:
    """Raises DecodeError, TimeoutError, and what streams raise."""
    async with asyncio.timeout(REQUEST_TIMEOUT):
        payload = await read_frame(stream.recv, MAX_REQUEST)
    if payload is None:
        raise DecodeError("a stream ended without a request")
    return decode_request(payload)


async def write_answer(stream: BiStream, answer: Answer, *, last: bool = False) -> None:
    """``last``: there is nothing more to say or to hear."""
    async with asyncio.timeout(REQUEST_TIMEOUT):
        await stream.send.write(frame(encode_answer(answer)))
        if last:
            await stream.send.finish()
            stream.recv.stop(0)


def give_up(stream: BiStream) -> None:
    """Neither read nor write it any more; what was written and is not delivered yet may be lost."""
    stream.send.reset(GAVE_UP)
    stream.recv.stop(GAVE_UP)


async def _read_answer(stream: BiStream) -> Answer:
    async with asyncio.timeout(ANSWER_TIMEOUT):
        payload = await read_frame(stream.recv, MAX_REQUEST)
    if payload is None:
        raise DecodeError("the peer ended a stream instead of answering")
    return decode_answer(payload)
