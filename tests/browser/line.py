"""A slow line to a server, that can be cut and mended."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

PACKET_BYTES = 16_384


class Line:
    """Passes bytes on between browser and server; those towards the server at a given speed."""

    def __init__(self, address: str, *, bytes_per_s: float) -> None:
        self._server = (urlsplit(address).hostname, urlsplit(address).port)
        self._bytes_per_s = bytes_per_s
        self._open: set[socket.socket] = set()
        self._is_cut = False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.sent_bytes = 0  # towards the server
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def cut(self) -> None:
        """End every connection, and let none through."""
        self._is_cut = True
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._is_cut = False

    def close(self) -> None:
        self.cut()
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # ends a call that waits for connections
        self._listening.close()
        for thread in self._threads:
            thread.join(timeout=5)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                browser, _ = self._listening.accept()
                if self._is_cut:
                    browser.close()
                    continue
                server = socket.create_connection(self._server)
                self._open |= {browser, server}
                self._begin(self._carry, browser, server)

    def _begin(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _carry(self, browser: socket.socket, server: socket.socket) -> None:
        """Both ways, until one of them ends."""
        with browser, server:
            back = threading.Thread(target=self._pass_on, args=(server, browser, False))
            back.start()
            self._pass_on(browser, server, True)
            back.join()
        self._open -= {browser, server}

    def _pass_on(self, source: socket.socket, target: socket.socket, is_slow: bool) -> None:
        with suppress(OSError):
            while data := source.recv(PACKET_BYTES):
                if is_slow:
                    time.sleep(len(data) / self._bytes_per_s)
                    self.sent_bytes += len(data)
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
