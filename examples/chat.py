"""A chat room over gossip, with the library alone. In three terminals, or on three machines:

python examples/chat.py ana                 # prints a ticket
python examples/chat.py ben TICKET
python examples/chat.py cy TICKET           # of anybody who is in the room
"""

import asyncio
import json
import sys
import time

from tidings import Endpoint, EndpointTicket, Gossip, Router
from tidings.gossip import NeighborDown, NeighborUp, Received

ROOM = "tidings example chat"


async def listen(topic):
    async for event in topic:
        match event:
            case NeighborUp(peer):
                print(f"* {peer.short()} is here", flush=True)
            case NeighborDown(peer):
                print(f"* {peer.short()} left", flush=True)
            case Received(content):
                message = json.loads(content)
                print(f"{message['from']}: {message['text']}", flush=True)


async def lines():
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.decode().strip()


async def main(name, *tickets):
    peers = [EndpointTicket.parse(ticket).addr for ticket in tickets]
    async with (
        Endpoint.bind() as endpoint,
        Gossip(endpoint) as gossip,
        Router(endpoint, {gossip.ALPN: gossip.handle}),
        await gossip.subscribe(ROOM, bootstrap=peers) as topic,
        asyncio.TaskGroup() as group,
    ):
        print("ticket:", EndpointTicket(endpoint.addr()), flush=True)
        listening = group.create_task(listen(topic))
        async for text in lines():
            # The time makes equal texts different messages: gossip swallows repeated bytes.
            await topic.broadcast(json.dumps({"from": name, "text": text, "at": time.time()}).encode())
        await asyncio.sleep(0.2)  # the last message leaves before we do
        listening.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
