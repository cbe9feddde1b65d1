"""A hub of one's own: a folder served like huggingface.co."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.stand_ins import use_hub


@dataclass
class LocalHub:
    """Serves `folder`/OWNER/NAME/FILE, and counts what was asked for."""

    folder: Path
    cache: Path
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    served = LocalHub(tmp_path / "hub", tmp_path / "cache")

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            if "/resolve/" in self.path:
                served.asked.append(self.path.rpartition("/")[2])
            self.answer()

        def answer(self) -> None:
            repository, _, file = self.path.partition("/resolve/main/")
            path = served.folder / repository.strip("/") / file
            found = path.is_file()
            data = path.read_bytes() if found else b""
            self.send_response(200 if found else 404)
            if not found:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Repo-Commit", "c" * 40)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    use_hub(monkeypatch, f"http://127.0.0.1:{server.server_port}", served.cache)
    yield served
    server.shutdown()
    thread.join()
    server.server_close()
