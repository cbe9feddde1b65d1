"""Starts `rarefind` commands as processes of their own, from one that has the code in memory.

Reading the code takes a core some ten seconds, each time: a campaign of 500 kills would be spent on
that. What is forked here runs `rarefind` as its script does.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from importlib import import_module


def main() -> None:
    """Start what each line of standard input asks for; kill all at its end."""
    from app.cli import app
    from app.engine.embedders import load_embedder
    from app.indexing import DEFAULT_EMBEDDER

    for heavy in ("app.main", "app.chores", "uvicorn"):  # commands import them when they run
        import_module(heavy)
    load_embedder(DEFAULT_EMBEDDER)  # what it imports is in memory now
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the killed are buried at once
    started = []
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            become(asked)
            app()
        started.append(pid)
        print(pid, flush=True)  # noqa: T201
    for pid in started:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def become(asked: dict) -> None:
    """Be the process that was asked for."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(asked["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdin = os.fdopen(0)
    os.environ.update(asked["environment"])
    sys.argv = ["rarefind", *asked["arguments"]]
