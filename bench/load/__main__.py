"""Many people search at once, on a million images; nothing may be lost.

    python -m bench.load --people 50 --minutes 10 [--folder KEPT] [--processes 2]

Starts the server as `rarefind serve` does, with a data folder of drawn vectors, and lets locust
play people who each open a search and answer twelve images every six seconds, with the requests
that a browser sends (bench/load/people.py). Afterwards every answer that was said to be saved is
looked for in the database, image by image. Ends with 1 when a request failed or an answer is
missing; times are printed, and written with all else to bench/out/load.json.
"""

import argparse
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import quantiles
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table
from sqlalchemy import select

from app.database import Database, open_database
from app.settings import Settings
from app.tables import Answer, Example
from bench.__main__ import describe_machine
from bench.load.preparing import add_people, prepare

HERE = Path(__file__).parent
EVERY_S = 5.0  # memory is looked at
BEGIN_S = 60  # until the server answers
ARRIVE_S = 20.0  # in which all people come


def main() -> int:
    """Prepare, play, count, print."""
    wanted = read_arguments()
    console = Console()
    with ExitStack() as stack:
        folder = wanted.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        settings = Settings(home=(folder / "home").resolve(), database_url=None)
        database = open_database(settings)
        stack.callback(database.close)
        console.print(f"Preparing {settings.home} …", highlight=False)
        prepare(database, settings)
        password = secrets.token_urlsafe(16)
        people = add_people(database, settings, wanted.people, password)
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        plan, out = work / "plan.json", work / "out.json"
        plan.write_text(json.dumps({"password": password, "people": people}))
        server, address = start_server(settings, wanted.processes)
        watch = Watch(server, settings.home)
        stack.callback(stop, server)
        watch.start()
        played = play(address, wanted, plan, out)
        watch.end()
        report = json.loads(out.read_text()) if out.exists() else None
        if report is None:
            console.print("locust wrote nothing; it ended with", played)
            return 1
        lost = find_lost(database, report["people"])
    results = summarise(report, lost, watch, wanted)
    results["machine"] = describe_machine()
    written = HERE.parent / "out" / "load.json"
    written.parent.mkdir(exist_ok=True)
    written.write_text(json.dumps(results, indent=2) + "\n")
    show(console, results)
    return 1 if results["errors"] or lost or not results["answers_told"] else 0


def read_arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="kept from one run to the next (4 GB)")
    return parser.parse_args()


def start_server(settings: Settings, processes: int) -> tuple[subprocess.Popen, str]:
    """The server as people start it, and its address."""
    environment = os.environ | {"RAREFIND_HOME": str(settings.home)}
    environment.pop("DATABASE_URL", None)
    rarefind = str(Path(sys.executable).with_name("rarefind"))
    command = [rarefind, "serve", "--port", "0", "--processes", str(processes)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert server.stdout is not None
    address = None
    for line in server.stdout:
        if found := re.match(r"\s+(http://[^/\s]+)", line):
            address = found[1]
            break
    if address is None:
        raise SystemExit("The server did not start.")
    threading.Thread(target=server.stdout.read, daemon=True).start()  # it must not fill up
    return server, address


def stop(server: subprocess.Popen) -> None:
    """In good order."""
    server.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        server.wait(60)
    server.kill()


def play(address: str, wanted: argparse.Namespace, plan: Path, out: Path) -> int:
    """Let the people come and work."""
    environment = os.environ | {"RAREFIND_LOAD_PLAN": str(plan), "RAREFIND_LOAD_OUT": str(out)}
    words = {
        "--locustfile": HERE / "people.py",
        "--host": address,
        "--users": wanted.people,
        "--spawn-rate": max(wanted.people / ARRIVE_S, 0.5),
        "--run-time": f"{round(wanted.minutes * 60)}s",
        "--stop-timeout": 30,  # a round that has begun is ended
    }
    given = [str(word) for pair in words.items() for word in pair]
    command = [sys.executable, "-m", "locust", "--headless", "--only-summary", *given]
    return subprocess.run(command, env=environment, check=False).returncode


class Watch(threading.Thread):
    """Looks at memory and processor time of the server, the database and locust."""

    def __init__(self, server: subprocess.Popen, home: Path) -> None:
        super().__init__(daemon=True)
        self._home = home
        self._server = psutil.Process(server.pid)
        self._ending = threading.Event()
        self._first: dict[tuple[str, int], float] = {}
        self.cpu_s: dict[tuple[str, int], float] = {}
        self.samples: list[dict[str, float]] = []

    def run(self) -> None:
        """Look again and again."""
        started = time.monotonic()
        while True:
            sample = {"at_s": time.monotonic() - started, **self._look()}
            self.samples.append(sample)
            if self._ending.wait(EVERY_S):
                return

    def end(self) -> None:
        """Look a last time."""
        self._ending.set()
        self.join()

    def _look(self) -> dict[str, float]:
        sizes: dict[str, float] = defaultdict(float)
        for kind, process in self._list():
            with suppress(psutil.Error):
                memory, times = process.memory_info(), process.cpu_times()
                sizes[f"{kind}_rss_mb"] += memory.rss / 1e6
                # What is not of files that all processes share.
                sizes[f"{kind}_own_mb"] += (memory.rss - memory.shared) / 1e6
                key = kind, process.pid
                spent = times.user + times.system
                is_new = not self.samples  # it ran before anybody came
                self.cpu_s[key] = spent - self._first.setdefault(key, spent if is_new else 0.0)
        return dict(sizes)

    def _list(self) -> list[tuple[str, psutil.Process]]:
        servers = [self._server, *self._server.children(recursive=True)]
        found = [("server", one) for one in servers if name_of(one) != "postgres"]
        with suppress(OSError, psutil.Error):
            lines = (self._home / "postgres" / "postmaster.pid").read_text().splitlines()
            first = psutil.Process(int(lines[0]))
            found += [("postgres", one) for one in (first, *first.children(recursive=True))]
        for one in psutil.Process().children(recursive=True):
            if "locust" in " ".join(cmdline_of(one)):
                found.append(("locust", one))
        return found

    def sum_cpu(self) -> dict[str, float]:
        """Seconds of a core by kind."""
        summed: Counter[str] = Counter()
        for (kind, _), spent in self.cpu_s.items():
            summed[kind] += spent
        return {kind: round(spent, 1) for kind, spent in summed.items()}


def name_of(process: psutil.Process) -> str:
    """Its name, empty where it has ended."""
    try:
        return process.name()
    except psutil.Error:
        return ""


def cmdline_of(process: psutil.Process) -> list[str]:
    """Its command, empty where it has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def find_lost(database: Database, people: list[dict[str, Any]]) -> list[str]:
    """Answers that were said to be saved and are not there, or not once, or not as they were."""
    lost = []
    for person in people:
        search_id = person["search"]
        if search_id is None:
            continue
        stored: dict[int, list[str]] = defaultdict(list)
        with database.session() as session:
            query = select(Answer.image_id, Answer.value).where(Answer.search_id == search_id)
            for image_id, value in session.execute(query.order_by(Answer.id)):
                stored[image_id].append(value)
            examples = set(
                session.scalars(select(Example.image_id).where(Example.search_id == search_id))
            )
        told = {int(image): value for image, value in person["told"].items()}
        for image, value in told.items():
            if stored[image] != [value]:
                lost.append(f"search {search_id}, image {image}: {value}, but {stored[image]}")
        # Of one that was under way at the end the person heard nothing.
        unknown = set(stored) - set(told) - examples - {i for i, own in stored.items() if not own}
        if len(unknown) > 1:
            lost.append(f"search {search_id}: nobody gave the answers to {sorted(unknown)[:5]}")
    return lost


def summarise(
    report: dict[str, Any], lost: list[str], watch: Watch, wanted: argparse.Namespace
) -> dict[str, Any]:
    """The figures."""
    started = watch.samples[0]["at_s"]
    early = next((one for one in watch.samples if one["at_s"] - started >= 120), watch.samples[0])
    return {
        "people": wanted.people,
        "minutes": wanted.minutes,
        "processes": wanted.processes,
        "rounds": len(report["submits"]),
        "rounds_wanted": round(wanted.people * wanted.minutes * 10),
        "submit_to_grid_ms": spread([ms for _, ms, _ in report["submits"]]),
        "submit_to_pictures_ms": spread([ms for _, _, ms in report["submits"]]),
        "p95_by_minute_ms": split_by_minute(report["submits"]),
        "errors": sum(one["count"] for one in report["errors"]),
        "which_errors": report["errors"][:20],
        "asked_again": sum(one["again"] for one in report["people"]),
        "answers_told": sum(len(one["told"]) for one in report["people"]),
        "answers_lost": len(lost),
        "which_lost": lost[:20],
        "requests": report["kinds"],
        "cpu_s": watch.sum_cpu(),
        "memory_minute_2": early,
        "memory_end": watch.samples[-1],
        "memory": watch.samples,
    }


def spread(times: list[float]) -> dict[str, float]:
    """Median and the largest of some times."""
    centiles = quantiles(times, n=100) if len(times) > 1 else [float("nan")] * 99
    largest = max(times, default=float("nan"))
    return {"median": centiles[49], "p95": centiles[94], "p99": centiles[98], "largest": largest}


def split_by_minute(submits: list[tuple[float, float, float]]) -> list[float | None]:
    """The 95th percentile of submit to grid, minute by minute from the first submit on."""
    first = min((at for at, _, _ in submits), default=0.0)
    minutes: dict[int, list[float]] = defaultdict(list)
    for at, to_grid, _ in submits:
        minutes[int((at - first) // 60)].append(to_grid)
    # None of a minute in which too few came for one.
    return [
        spread(minutes[one])["p95"] if len(minutes[one]) >= 20 else None
        for one in range(max(minutes, default=-1) + 1)
    ]


def show(console: Console, results: dict[str, Any]) -> None:
    """Print them."""
    table = Table(title=results["machine"])
    for heading in ("request", "count", "errors", "median ms", "p95 ms", "p99 ms", "largest ms"):
        table.add_column(heading, justify="left" if heading == "request" else "right")
    for name, one in sorted(results["requests"].items()):
        figures = [one[key] for key in ("median_ms", "p95_ms", "p99_ms", "largest_ms")]
        counts = [f"{one['count']:,}", f"{one['errors']:,}"]
        table.add_row(name, *counts, *(f"{figure or 0:,.0f}" for figure in figures))
    console.print(table)
    minutes = ", ".join("-" if ms is None else f"{ms:,.0f}" for ms in results["p95_by_minute_ms"])
    console.print(
        f"{results['people']} people, {results['minutes']:g} minutes, {results['processes']} "
        f"processes: {results['rounds']:,} rounds (of {results['rounds_wanted']:,})\n"
        f"submit to grid: {tell(results['submit_to_grid_ms'])}\n"
        f"submit to the last of its pictures: {tell(results['submit_to_pictures_ms'])}\n"
        f"submit to grid, p95 minute by minute: {minutes}\n"
        f"errors {results['errors']:,}; answers saved {results['answers_told']:,}, lost "
        f"{results['answers_lost']:,}; asked again {results['asked_again']:,}",
        highlight=False,
    )
    for line in (*results["which_lost"], *results["which_errors"]):
        console.print(f"  {line}", highlight=False, markup=False)
    console.print(f"seconds of a core: {results['cpu_s']}", highlight=False)
    for kind in ("server", "postgres"):
        before, after = results["memory_minute_2"], results["memory_end"]
        for what, words in (("own", "of its own"), ("rss", "with the files it has open")):
            key = f"{kind}_{what}_mb"
            console.print(
                f"{kind}, {words}: {before.get(key, 0):,.0f} MB early (minute 2), "
                f"{after.get(key, 0):,.0f} MB at the end",
                highlight=False,
            )


def tell(took: dict[str, float]) -> str:
    """Some times in words."""
    return (
        f"median {took['median']:,.0f} ms, p95 {took['p95']:,.0f}, p99 {took['p99']:,.0f}, "
        f"largest {took['largest']:,.0f}"
    )


if __name__ == "__main__":
    sys.exit(main())
