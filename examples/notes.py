"""A backend that subscribes to a document: it keeps an index of notes and hears of every change, its own and others'.

python examples/notes.py notes/             # makes a document and prints a ticket
python examples/notes.py other/ TICKET      # joins it; lines typed as "key text" become notes on both
"""

import asyncio
import sys
from contextlib import suppress

from tidings import Node
from tidings.docs_sync import CaughtUp, Changed, Present
from tidings.docs_sync.errors import ContentMissing


async def follow(doc, index):
    """Keep ``index`` (key to text) in step with the document: what is there, then what changes."""
    caught_up = False
    async for event in doc.watch("note/"):
        match event:
            case CaughtUp():
                caught_up = True
                print(f"{len(index)} notes", flush=True)
            case Present(entry) | Changed(entry):
                # A deletion takes all that starts with its key, and its key may be shorter than "note/".
                for key in {entry.key, *(key for key in index if key.startswith(entry.key))}:
                    change = await look(doc, index, key)
                    if change and caught_up:
                        print(change, flush=True)


async def look(doc, index, key):
    """Bring the index up to date at one key. Several authors may have entries there: the newest counts."""
    newest = await doc.get(key)
    try:
        text = None if newest is None else (await newest.content()).decode(errors="replace")
    except ContentMissing:
        return None  # nobody who has it can be reached
    if text == index.get(key) or not key.startswith(b"note/"):
        return None
    if text is None:
        del index[key]
        return f"- {key.decode(errors='replace')}"
    index[key] = text
    return f"+ {key.decode(errors='replace')}: {text}"


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
