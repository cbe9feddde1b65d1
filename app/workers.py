"""Files through reading processes, and what these give through threads, in order.

Importing and indexing share it: processes read ahead, because decoders may crash and Python holds
them up; threads embed, because models let go of the interpreter.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from typing import TypeVar

from app.errors import RarefindError
from app.reading import start_worker
from app.settings import Settings

READ_FILES = 16  # handed to a process at a time: keeps hand-over far below a millisecond a file

File = TypeVar("File")
Read = TypeVar("Read")
Used = TypeVar("Used")


def count_processes(settings: Settings) -> int:
    """How many processes read files."""
    return settings.workers or os.cpu_count() or 1


def work_through(
    files: Iterator[File],
    read: Callable[[list[File]], list[Read]],
    use: Callable[[list[Read]], list[Used]],
    *,
    crashed: Read,
    processes: int,
    threads: int,
    size: int,
    spare: int = 0,
) -> Generator[list[tuple[File, Used]]]:
    """Yield each file with what `use` made of what `read` gave, `size` files at a time.

    `read` runs in processes: it can be pickled. What is read and not yet yielded is bounded: as
    much as keeps every process and thread at work, and `spare` files more. A file that kills its
    process is `crashed`; those read beside it are read again.
    """
    tasks = iter(lambda: list(islice(files, size)), [])
    ahead = threads + -(-(2 * processes * READ_FILES + spare) // size)
    users = ThreadPoolExecutor(threads, thread_name_prefix="use")

    def use_reads(reads: list[Future[list[Read]]]) -> list[Used]:
        return use([outcome for one in reads for outcome in one.result()])

    try:
        while True:
            under_way: deque[list[File]] = deque()  # taken, and not yet yielded
            running: deque[Future[list[Used]]] = deque()  # of these, in the same order
            readers = _open_readers(processes)
            try:
                for task in tasks:
                    under_way.append(task)  # first: a process that has died refuses the rest
                    reads = [
                        readers.submit(read, task[start : start + READ_FILES])
                        for start in range(0, len(task), READ_FILES)
                    ]
                    running.append(users.submit(use_reads, reads))
                    if len(running) > ahead:
                        yield _settle(under_way, running)
                while running:
                    yield _settle(under_way, running)
                return
            except BrokenProcessPool:
                # Any file under way may have ended the process.
                for task in under_way:
                    yield list(zip(task, use(_read_singly(task, read, crashed)), strict=True))
            finally:
                readers.shutdown(cancel_futures=True)
    finally:
        users.shutdown(cancel_futures=True)


def _settle(
    under_way: deque[list[File]], running: deque[Future[list[Used]]]
) -> list[tuple[File, Used]]:
    outcomes = running[0].result()
    running.popleft()
    return list(zip(under_way.popleft(), outcomes, strict=True))


def _read_singly(
    task: list[File], read: Callable[[list[File]], list[Read]], crashed: Read
) -> list[Read]:
    outcomes: list[Read] = []
    readers = _open_readers(1)
    try:
        for file in task:
            try:
                outcomes += readers.submit(read, [file]).result()
            except BrokenProcessPool:
                outcomes.append(crashed)
                readers.shutdown()
                readers = _open_readers(1)
    finally:
        readers.shutdown()
    return outcomes


def _open_readers(processes: int) -> ProcessPoolExecutor:
    # Spawned, not forked: forking a server with threads can leave a lock held for ever.
    readers = ProcessPoolExecutor(processes, get_context("spawn"), initializer=start_worker)
    try:
        readers.submit(os.getpid).result()
    except BrokenProcessPool as error:  # else every file would look as if it killed its reader
        raise RarefindError(
            "The processes that read images can't be started; the log says why. Memory may be "
            "short: try fewer with RAREFIND_WORKERS."
        ) from error
    return readers
