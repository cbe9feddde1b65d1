"""Files through reading processes, and what these give through threads, in order.

Importing and indexing share it: processes read ahead, because decoders may crash and Python holds
them up; threads embed, because models let go of the interpreter. What a request brings or asks for
is decoded by processes too (`Readers`), and who waits for them is bounded in number and time. Each
process is bounded in memory, and in time for a file.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import (
    CancelledError,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import islice
from multiprocessing import get_context
from threading import Lock, Semaphore
from types import TracebackType
from typing import TypeVar

from app.errors import RarefindError, ReadersBusy
from app.reading import WAITING, Refusal, read_each, start_worker, within
from app.settings import Settings

CRASHED, TOO_SLOW = "crashed the decoder", "takes too long"
# What a reading process may take: for itself (0.8 GB with torch, which the preparation of large
# pictures brings while importing and indexing) and a pixel.
# The most that 98 megapixels took of any format is 21 bytes each, of a WebP that one sees through.
OWN_BYTES = 1_200_000_000
BYTES_PER_PIXEL = 24
# Requests that decode or wait for it: half of the threads that answer and of the connections to the
# database, so that rounds never wait for either.
MOST_ASKING = 20
PLACE_S = 10.0  # that a request waits for a process to be free; a photo takes far less than one
AGAIN_S = 5  # after which one that had no place may try again
SLACK_S = 30.0  # for a process to start and to answer, beside what the file may take
READ_FILES = 16  # handed to a process at a time: keeps hand-over far below a millisecond a file

File = TypeVar("File")
Read = TypeVar("Read")
Used = TypeVar("Used")
Result = TypeVar("Result")


def count_processes(settings: Settings) -> int:
    """How many processes read files."""
    return settings.workers or os.cpu_count() or 1


class Readers:
    """Processes that decode what requests bring or ask for, so that no file takes the server down.

    Each is started when it is needed. Whoever opens one closes it.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._count = min(count_processes(settings), MOST_ASKING)
        self._asking = Semaphore(MOST_ASKING)
        self._places = Semaphore(self._count)
        self._lock = Lock()
        self._pool: ProcessPoolExecutor | None = None

    def run(self, read: Callable[[], Result]) -> Result:
        """What `read` gives or raises; Refusal when it ends its process, or takes too long.

        It runs in another process, so it can be pickled, and what it gives as well. ReadersBusy
        when it has no place within `PLACE_S`, or the disk does not let go of it.
        """
        with _taking(self._asking, 0), _taking(self._places, PLACE_S):
            with self._lock:
                pool = self._pool = self._pool or _open_readers(self._count, self._settings)
            try:
                decoding = pool.submit(within, self._settings.max_decoding_s, read)
                return _get_result(decoding, self._settings)
            except (BrokenProcessPool, CancelledError):
                # Any that were under way may have ended it. It is tried alone.
                self._let_go(pool)
            except ReadersBusy:
                self._let_go(pool)  # its process can't even be ended: the next get another
                raise
            alone = _open_readers(1, self._settings)
            try:
                return _try_alone(alone, read, self._settings)
            finally:
                alone.shutdown(wait=False)

    def close(self) -> None:
        """End the processes; what runs comes to its end before."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(cancel_futures=True)

    def _let_go(self, pool: ProcessPoolExecutor) -> None:
        with self._lock:
            if self._pool is pool:
                self._pool = None

    def __enter__(self) -> "Readers":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def work_through(
    files: Iterator[File],
    read: Callable[[list[File]], list[Read | Refusal]],
    use: Callable[[list[Read | Refusal]], list[Used]],
    *,
    settings: Settings,
    processes: int,
    threads: int,
    size: int,
    spare: int = 0,
) -> Generator[list[tuple[File, Used]]]:
    """Yield each file with what `use` made of what `read` gave, `size` files at a time.

    `read` runs in processes: it can be pickled. What is read and not yet yielded is bounded: as
    much as keeps every process and thread at work, and `spare` files more. A file that ends its
    process, or does not come to an end, is refused; those read beside it are read again.
    """
    tasks = iter(lambda: list(islice(files, size)), [])
    ahead = threads + -(-(2 * processes * READ_FILES + spare) // size)
    users = ThreadPoolExecutor(threads, thread_name_prefix="use")

    def use_reads(reads: list[Future[list[Read | Refusal]]]) -> list[Used]:
        return use([outcome for one in reads for outcome in one.result()])

    try:
        while True:
            under_way: deque[list[File]] = deque()  # taken, and not yet yielded
            running: deque[Future[list[Used]]] = deque()  # of these, in the same order
            readers = _open_readers(processes, settings)
            try:
                for task in tasks:
                    under_way.append(task)  # first: a process that has died refuses the rest
                    reads = [
                        readers.submit(
                            read_each,
                            read,
                            task[start : start + READ_FILES],
                            settings.max_decoding_s,
                        )
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
                    yield list(zip(task, use(_read_singly(task, read, settings)), strict=True))
            finally:
                readers.shutdown(cancel_futures=True)
    finally:
        users.shutdown(cancel_futures=True)


@contextmanager
def _taking(some: Semaphore, wait_s: float) -> Iterator[None]:
    if not some.acquire(timeout=wait_s):
        raise ReadersBusy(AGAIN_S)
    try:
        yield
    finally:
        some.release()


def _settle(
    under_way: deque[list[File]], running: deque[Future[list[Used]]]
) -> list[tuple[File, Used]]:
    outcomes = running[0].result()
    running.popleft()
    return list(zip(under_way.popleft(), outcomes, strict=True))


def _read_singly(
    task: list[File], read: Callable[[list[File]], list[Read | Refusal]], settings: Settings
) -> list[Read | Refusal]:
    outcomes: list[Read | Refusal] = []
    readers = _open_readers(1, settings)
    try:
        for file in task:
            try:
                outcomes += _try_alone(readers, partial(read, [file]), settings)
            except Refusal as refusal:
                outcomes.append(refusal)
                readers.shutdown(wait=False)
                readers = _open_readers(1, settings)
    finally:
        readers.shutdown()
    return outcomes


def _try_alone(
    readers: ProcessPoolExecutor, read: Callable[[], Result], settings: Settings
) -> Result:
    limit_s = settings.max_decoding_s
    begun = time.monotonic()
    try:
        return _get_result(readers.submit(within, limit_s, read), settings)
    except (BrokenProcessPool, ReadersBusy) as error:
        if time.monotonic() - begun < limit_s:
            raise Refusal(
                CRASHED, "Decoding it ended the process: it is damaged or huge."
            ) from error
        raise Refusal(
            TOO_SLOW,
            f"Reading it did not come to an end within {limit_s:g} s (setting "
            "RAREFIND_MAX_DECODING_S).",
        ) from error


def _get_result(decoding: Future[Result], settings: Settings) -> Result:
    """What a process gives; the system ends it in time, unless a disk holds it fast."""
    ended, _ = wait([decoding], WAITING * settings.max_decoding_s + SLACK_S)
    if not ended:
        raise ReadersBusy(AGAIN_S)
    return decoding.result()


def _open_readers(processes: int, settings: Settings) -> ProcessPoolExecutor:
    # Spawned, not forked: forking a server with threads can leave a lock held for ever.
    most_bytes = OWN_BYTES + int(BYTES_PER_PIXEL * settings.max_megapixels * 1e6)
    readers = ProcessPoolExecutor(processes, get_context("spawn"), start_worker, (most_bytes,))
    try:
        readers.submit(os.getpid).result()
    except BrokenProcessPool as error:  # else every file would look as if it killed its reader
        raise RarefindError(
            "The processes that read images can't be started; the log says why. Memory may be "
            "short: try fewer with RAREFIND_WORKERS."
        ) from error
    return readers
