"""Several processes of one server, on one port: started, started again, and stopped together.

Each process is the whole application; what they share are the socket, the database, the data folder
and the pages of memory that hold the vectors. The first of them does the long work, if the server
does. The one that started them serves nothing: it watches. When it is gone, however it went, the
others see the pipe to it close, and stop in good order.
"""

import logging
import os
import signal
import socket
import subprocess  # nosec B404 # of this very program
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

from app.settings import Settings

LOOK_S = 0.2  # between looks whether a process has ended
# A process that ends again at once is started again less and less often.
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
LONG_ENOUGH_S = 60.0  # then it counts as one that works
CODE = Path(__file__).parent.parent
MEASURES = "PROMETHEUS_MULTIPROC_DIR"  # where prometheus_client keeps what all processes count

logger = logging.getLogger(__name__)


@dataclass
class _Process:
    number: int
    running: subprocess.Popen[bytes]
    started_at: float
    wait_s: float = FIRST_WAIT_S
    start_at: float | None = None  # once it has ended


class Processes:
    """The processes of a server; they run until `stop`."""

    def __init__(self, settings: Settings, listening: socket.socket) -> None:
        self._settings = settings
        self._listening = listening
        self._lifeline, self._held = os.pipe()  # nobody writes: its end is the message
        self._measures = TemporaryDirectory(prefix="rarefind-measures-")
        self._processes: list[_Process] = []

    def start(self) -> bool:
        """Start all of them; False if one has ended before it served."""
        ready, tell = os.pipe()
        try:
            for number in range(self._settings.processes):
                running = self._start(number, tell)
                self._processes.append(_Process(number, running, time.monotonic()))
        finally:
            os.close(tell)
        with os.fdopen(ready, "rb") as told:  # at its end, all have told or ended
            return len(told.read()) == self._settings.processes

    def watch(self, stopping: Event) -> None:
        """Start again what ends, until it is time to stop."""
        while not stopping.wait(LOOK_S):
            for process in self._processes:
                self._look_after(process)

    def stop(self, wait_s: float) -> None:
        """Have all of them end what they are at, and wait for it; who takes longer is killed."""
        os.close(self._held)
        until = time.monotonic() + wait_s
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.running.wait(max(0.0, until - time.monotonic()))
            process.running.kill()
            process.running.wait()
        os.close(self._lifeline)
        self._measures.cleanup()

    def _start(self, number: int, tell: int | None = None) -> subprocess.Popen[bytes]:
        settings = self._settings
        given = [self._listening.fileno(), self._lifeline, *([] if tell is None else [tell])]
        does_jobs = settings.run_jobs and number == 0
        environment = os.environ | {
            "RAREFIND_HOST": settings.host,
            "RAREFIND_PORT": str(settings.port),
            "RAREFIND_PROCESSES": str(settings.processes),
            "RAREFIND_RUN_JOBS": str(does_jobs),
            MEASURES: self._measures.name,
            # This very code, whatever lies in the folder where the server was started.
            "PYTHONPATH": os.pathsep.join([str(CODE), os.environ.get("PYTHONPATH", "")]),
        }
        words = [sys.executable, "-P", "-m", "app", "serve-part", *map(str, given)]
        # A session of its own: Ctrl-C in a terminal is for the one that watches.
        return subprocess.Popen(  # noqa: S603  # nosec B603 # nothing of it comes from outside
            words,
            pass_fds=given,
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _look_after(self, process: _Process) -> None:
        now = time.monotonic()
        if process.start_at is not None:
            if now >= process.start_at:
                process.running, process.started_at = self._start(process.number), now
                process.start_at = None
        elif process.running.poll() is not None:
            if now - process.started_at > LONG_ENOUGH_S:
                process.wait_s = FIRST_WAIT_S
            logger.error(
                "Process %d of the server has ended (%s); it is started again in %.1f s",
                process.number + 1,
                process.running.returncode,
                process.wait_s,
            )
            process.start_at = now + process.wait_s
            process.wait_s = min(2 * process.wait_s, LONGEST_WAIT_S)


def end_with(lifeline: int) -> None:
    """Stop this process in good order when the one that watches it is gone, or says stop."""

    def wait() -> None:
        os.read(lifeline, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=wait, name="lifeline", daemon=True).start()


def tell_ready(tell: int | None) -> None:
    """Say to the one that watches that this process serves."""
    if tell is not None:
        os.write(tell, b"1")
        os.close(tell)
