"""A backend that subscribes to a document: it keeps an index of notes and hears of every change, its own and others'.

python examples/notes.py notes/             # makes a document and prints a ticket
python examples/notes.py other/ TICKET      # joins it; lines typed as "key text" become notes on both
"""

import asyncio
import sys
from contextlib import suppress

from tidings import Node
from tidings.docs_sync import ContentReady, ContentStatus, InsertLocal, InsertRemote


async def follow(doc, index):
    """Keep ``index`` (key to text) in step with the document: what is there, then what changes."""
    events = doc.events()  # first, so that nothing falls between
    async for entry in doc.entries(prefix="note/", newest=True):
        index[entry.key.decode()] = (await entry.content()).decode()
    print(f"{len(index)} notes", flush=True)
    waiting = {}  # content that is still on its way: hash to keys
    async for event in events:
        match event:
            case InsertLocal(entry) | InsertRemote(entry):
                key = entry.key.decode()
                newest = await doc.get(key)
                if newest is None:
                    index.pop(key, None)
                    print(f"- {key}", flush=True)
                elif isinstance(event, InsertLocal) or event.content_status is ContentStatus.COMPLETE:
                    index[key] = (await newest.content()).decode()
                    print(f"+ {key}: {index[key]}", flush=True)
                else:
                    waiting.setdefault(newest.hash, set()).add(key)
            case ContentReady(hash):
                for key in waiting.pop(hash, ()):
                    if (entry := await doc.get(key)) is not None:
                        index[key] = (await entry.content()).decode()
                        print(f"+ {key}: {index[key]}", flush=True)


async def edit(doc):
    """One note for each line of standard input: ``key text``; a key alone deletes."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        key, _, text = line.decode().strip().partition(" ")
        if text:
            await doc.set(f"note/{key}", text.encode())
        elif key:
            await doc.delete(f"note/{key}")


async def main(directory, ticket=None):
    async with Node.open(directory) as node:
        if ticket is None:
            known = [doc async for doc in node.docs.list()]
            doc = await node.docs.open(known[0].id) if known else await node.docs.create()
        else:
            doc = await node.docs.join(ticket)
        print("ticket:", doc.ticket(write=True), flush=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(follow(doc, {}))
            group.create_task(edit(doc))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
