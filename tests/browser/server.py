"""A real `rarefind serve`, with its embedded PostgreSQL, that can be killed and started again."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Page

RAREFIND = Path(sys.executable).parent / "rarefind"
STARTING_S = 120
COMMAND_S = 300


@dataclass
class Server:
    """One data folder and the server process that works in it."""

    home: Path
    process: subprocess.Popen[bytes] | None = None
    link: str = ""  # printed by the server; signs in once
    cookies: list = field(default_factory=list)  # of the browser that used the link

    @property
    def address(self) -> str:
        return self.link.split("/sign-in")[0]

    def run(self, *arguments: str) -> str:
        """Run one command in this data folder; what it printed."""
        done = subprocess.run(
            [RAREFIND, *arguments],
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self) -> None:
        """Start, on the port of before if there was one, and wait for the sign-in link."""
        port = self.address.rpartition(":")[2] or "0"
        log = self.home / "server.log"
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [RAREFIND, "serve", "--port", port],
                env=self._environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + STARTING_S
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := re.search(r"http://\S+/sign-in\?token=\S+", log.read_text()):
                self.link = found.group()
                return
            time.sleep(0.1)
        raise AssertionError(f"The server did not start:\n{log.read_text()}")

    def kill(self) -> None:
        """kill -9: nothing is tidied up."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Ctrl-C; then the database, which a kill -9 leaves running for the next start."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.kill()
        pid_file = self.home / "postgres" / "postmaster.pid"
        if pid_file.exists():
            os.kill(int(pid_file.read_text().split()[0]), signal.SIGINT)

    def sign_in(self, page: Page) -> None:
        """By the link, or as the browser that used it."""
        if self.cookies:
            page.context.add_cookies(self.cookies)
        else:
            page.goto(self.link)
            self.cookies = page.context.cookies()

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
        # One thread: Chromium and PostgreSQL want a core too.
        return kept | {"RAREFIND_HOME": str(self.home), "OMP_NUM_THREADS": "1"}
