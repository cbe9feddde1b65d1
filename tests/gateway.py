"""A way to the test's database that can be shut, or frozen so that nothing passes or answers."""

import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

from sqlalchemy import make_url


class Gateway:
    """Listens on a port of loopback and passes bytes on to PostgreSQL, until told otherwise."""

    def __init__(self, url: str) -> None:
        self._there = make_url(url)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open = Event()
        self._open.set()
        self._ends: list[socket.socket] = []
        self._threads: list[Thread] = []
        self._begin(self._accept)
        port = self._listening.getsockname()[1]
        self.url = self._there.set(host="127.0.0.1", port=port, query={}).render_as_string(False)

    def __enter__(self) -> "Gateway":
        return self

    def __exit__(self, *_: object) -> None:
        self.thaw()
        self.shut()
        for thread in self._threads:
            thread.join()
        for end in self._ends:
            end.close()

    def freeze(self) -> None:
        """Connections stay, and new ones are taken, but nothing comes through."""
        self._open.clear()

    def thaw(self) -> None:
        """As before."""
        self._open.set()

    def shut(self) -> None:
        """Cut all connections and refuse new ones."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes who accepts
        self._listening.close()
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _begin(self, target: Callable[..., None], *given: socket.socket) -> None:
        thread = Thread(target=target, args=given, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listening.accept()
            except OSError:
                return
            there = self._reach()
            self._ends += [here, there]
            for source, target in ((here, there), (there, here)):
                self._begin(self._pass_on, source, target)

    def _reach(self) -> socket.socket:
        folder = self._there.query.get("host") or self._there.host
        if folder and str(folder).startswith("/"):
            there = socket.socket(socket.AF_UNIX)
            there.connect(str(Path(str(folder)) / f".s.PGSQL.{self._there.port or 5432}"))
            return there
        return socket.create_connection((self._there.host, self._there.port or 5432))

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                self._open.wait()
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
