"""Virtual time: an event loop whose clock jumps to the next timer, and everything else that would differ between runs.

- *Time.* `VirtualLoop.time` stands still while anything is ready to run. The `time` module that tidings' modules see is
  virtual as well, with a clock for each host that may be ahead or behind.
- *Threads.* There are none. A job for an executor runs on the loop after a short time drawn from the seed, and so does
  the database's writer (`_Thread`, `_Queue`): its own code commits groups of jobs, only its thread is taken away.
- *Chance.* `os.urandom` gives bytes from the seed, and with it all keys, nonces and generators. Tasks and futures are
  hashed by their number, for sets of them are walked in places. Sets of keys are in the order of Python's hash seed:
  runs in processes with one PYTHONHASHSEED are equal, and any two in one process.
- *Hosts.* A `Host` is a process that can be killed: its tasks and timers are those in whose context it stands. Killed,
  it writes nothing more, sends nothing more, and its tasks are cancelled for tidiness alone.
"""

import asyncio
import contextvars
import gc
import logging
import os
import random
import selectors
import sys
import time
from collections import deque
from contextlib import contextmanager

from blake3 import blake3
from tidings.storage import database as storage
from tidings.storage.errors import DatabaseClosed
from tidings.storage.writer import GROUP, Writer

EPOCH = 1_700_000_000.0  # the virtual wall clock at 0
THREAD_TIME = (0.0001, 0.003)  # seconds that a job in a thread takes
COMMIT_TIME = (0.0002, 0.004)  # seconds until the writer takes the next group
MOST_STEPS = 50_000_000  # of the loop: more is a livelock
HOST: contextvars.ContextVar["Host | None"] = contextvars.ContextVar("host", default=None)


class Stuck(AssertionError):
    """Nothing is ready and no timer runs: everybody waits for ever."""


class _Selector(selectors.SelectSelector):
    """Instead of waiting, time passes."""

    loop = None

    def select(self, timeout=None):
        if timeout is None:
            raise Stuck("nothing is ready and no timer runs")
        if timeout > 0:
            self.loop.jump()
        self.loop.count_step()
        return []


class _Numbered:
    """Hashed by a number and not by its address. What is compared is still the object."""

    def __init__(self, *args, loop, **kwargs):
        self.number = loop.next_number()
        super().__init__(*args, loop=loop, **kwargs)

    def __hash__(self):
        return self.number

    def __eq__(self, other):
        return self is other


class _Task(_Numbered, asyncio.Task):
    pass


class _Future(_Numbered, asyncio.Future):
    pass


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, seed):
        self.virtual_time = 0.0
        self.steps = 0
        self._numbers = 0
        self.rng = random.Random(f"threads {seed}")
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)
        self._clock_resolution = 1e-9
        self.set_task_factory(_make_task)

    def time(self):
        return self.virtual_time

    def jump(self):
        self.virtual_time = max(self.virtual_time, self._scheduled[0].when())

    def count_step(self):
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise AssertionError("the hosts never come to rest")

    def next_number(self):
        self._numbers += 1
        return self._numbers

    def create_future(self):
        return _Future(loop=self)

    def run_in_executor(self, executor, func, *args):
        future = self.create_future()

        def work():
            if not future.cancelled():
                try:
                    result = func(*args)
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)

        self.call_later(self.rng.uniform(*THREAD_TIME), work)
        return future

    def timers_of(self, host):
        return [timer for timer in self._scheduled if timer._context is not None and timer._context.get(HOST) is host]


def _make_task(loop, work, context=None):
    task = _Task(work, loop=loop, context=context)
    host = HOST.get() if context is None else context.get(HOST)
    if host is not None:
        host.tasks[task] = None
        task.add_done_callback(lambda task: host.tasks.pop(task, None))
    return task


class Host:
    """One run of one process. ``skew``: seconds that its wall clock is ahead."""

    def __init__(self, name, skew=0.0):
        self.name = name
        self.skew = skew
        self.alive = True
        self.tasks = {}
        self.writers = []
        self.context = contextvars.copy_context()
        self.context.run(HOST.set, self)

    def start(self, work):
        return asyncio.get_running_loop().create_task(work, context=self.context)

    async def kill(self):
        """``kill -9``: nothing that it began goes on."""
        self.alive = False
        for writer in self.writers:
            writer.abandon()
        loop = asyncio.get_running_loop()
        for _ in range(100):
            for task in list(self.tasks):
                task.cancel()
            await asyncio.sleep(0.01)
            if not self.tasks:
                break
        assert not self.tasks, f"tasks that cannot be cancelled: {list(self.tasks)}"
        for timer in loop.timers_of(self):
            timer.cancel()

    def __repr__(self):
        return f"<{self.name}>"


class _Thread:
    def __init__(self, start):
        self.start = start

    def join(self):
        pass


class _Queue:
    """Jobs are taken a little after the first came, as many as there are then."""

    def __init__(self, take):
        self.waiting = deque()
        self._take = take
        self._due = False

    def put(self, job):
        self.waiting.append(job)
        self.wake()

    def wake(self):
        if not self._due:
            self._due = True
            loop = asyncio.get_running_loop()
            loop.call_later(loop.rng.uniform(*COMMIT_TIME), self._turn)

    def _turn(self):
        self._due = False
        self._take()


class VirtualWriter(Writer):
    """The real one without its thread."""

    def __init__(self, backend):
        super().__init__(backend)
        self._thread = _Thread(self._open)
        self._queue = _Queue(self._next)
        self._host = HOST.get()
        self._abandoned = False
        if self._host is not None:
            self._host.writers.append(self)

    def _open(self):
        try:
            self._connected()
        except BaseException as error:
            self._opened.set_exception(self._backend.translate(error))
            self._ended.set_result(None)
        else:
            self._opened.set_result(None)

    async def run(self, fn, durable=True):
        if self._abandoned:
            raise DatabaseClosed("the host was killed")
        return await super().run(fn, durable)

    def _next(self):
        group = []
        waiting = self._queue.waiting
        while waiting and waiting[0] is not None and len(group) < GROUP:
            group.append(waiting.popleft())
        while group and not self._abandoned:
            group = self._commit(group)
        if waiting and waiting[0] is None and not self._ended.done():
            self._backend.close(self._connection)
            self._ended.set_result(None)
        elif waiting:
            self._queue.wake()

    def _tell(self, callback, *args):
        callback(*args)

    def abandon(self):
        """Nothing that waits is written; the files are let go as a dead process does."""
        self._abandoned = True
        self._queue.waiting.clear()
        if not self._ended.done():
            self._backend.close_readers()
            self._backend.close(self._connection)
            self._ended.set_result(None)


class _Time:
    """What modules of tidings see as `time`."""

    gmtime, strftime = staticmethod(time.gmtime), staticmethod(time.strftime)

    def __init__(self, loop):
        self._loop = loop

    def time(self):
        host = HOST.get()
        return EPOCH + self._loop.virtual_time + (host.skew if host is not None else 0.0)

    def time_ns(self):
        return round(self.time() * 1e6) * 1000

    def monotonic(self):
        return self._loop.virtual_time

    perf_counter = monotonic


class EventLog:
    """What happened, in order, as a hash; and into ``lines``, to look for the first difference of two runs."""

    def __init__(self, lines=None):
        self.lines = lines
        self.count = 0
        self._hash = blake3()

    def add(self, *what):
        line = f"{asyncio.get_running_loop().time():.9f} " + " ".join(map(str, what))
        self._hash.update(line.encode() + b"\n")
        self.count += 1
        if self.lines is not None:
            self.lines.append(line)

    @property
    def digest(self):
        return self._hash.hexdigest(8)


class Complaints(logging.Handler):
    """Errors that tidings logs: each is a bug. Those of dead hosts are the echo of their death."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.found = []

    def emit(self, record):
        host = HOST.get()
        if host is None or host.alive:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                text += f": {record.exc_info[1]!r}"
            self.found.append(f"{host}: {record.name}: {text}")

    def unhandled(self, loop, context):
        self.found.append(f"{HOST.get()}: {context.get('message')}: {context.get('exception')!r}")


@contextmanager
def virtual_world(seed, complaints):
    """A loop, with time, threads and chance of this process replaced until the block ends."""
    loop = VirtualLoop(seed)
    entropy = random.Random(f"entropy {seed}").randbytes
    clock = _Time(loop)
    modules = [m for name, m in list(sys.modules.items()) if name.startswith("tidings.")]
    timed = [module for module in modules if getattr(module, "time", None) is time]
    urandom, random_urandom, writer = os.urandom, random._urandom, storage.Writer
    logger = logging.getLogger("tidings")
    collects = gc.isenabled()
    try:
        os.urandom = random._urandom = entropy
        storage.Writer = VirtualWriter
        for module in timed:
            module.time = clock
        logger.addHandler(complaints)
        loop.set_exception_handler(complaints.unhandled)
        gc.disable()  # finalizers run at the same point in each run, or not at all
        yield loop
    finally:
        os.urandom, random._urandom, storage.Writer = urandom, random_urandom, writer
        for module in timed:
            module.time = time
        logger.removeHandler(complaints)
        if collects:
            gc.enable()
        loop.close()
