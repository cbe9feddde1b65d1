"""What each person does, for locust: as the pages' own scripts do (static/grid.js, answers.js).

A person signs in, opens a search from one example, and answers a grid of twelve images every six
seconds, more or less: one request for each answer, in the order given, each with a key of its own
and sent again until it is saved; then the form, which says what is still on its way once more and
does not wait for it. The clock runs from then until the grid is there, and on until all of its
pictures are. 0.7 s after a grid has come they ask for the images that are likely next, and fetch
those early. A picture that a browser has it does not ask for again. Scripts and styles are fetched
once. What the server said it saved is written down.
"""

import json
import os
import re
import time
import uuid
from pathlib import Path
from random import Random
from typing import Any

import gevent
from gevent.pool import Pool
from gevent.queue import Queue
from locust import FastHttpUser, constant, events, task

ROUND_S = 4.0, 8.0  # each is drawn from these: of one length, all would come to press at once
IDLE_S = 0.7  # grid.js: IDLE_MS
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 15.0  # answers.js
RETRY_S = 3.0  # grid.js: RETRY_MS
TIMEOUT_S = 60.0  # answers.js gives up after 15 and sends again, grid.js waits
AT_ONCE = 6  # connections of a browser to one server
AWAY = (0, 502, 503, 504)

PLAN = json.loads(Path(os.environ["RAREFIND_LOAD_PLAN"]).read_text())
OUT = Path(os.environ["RAREFIND_LOAD_OUT"])
WAITING = list(PLAN["people"])
LEDGERS: list[dict] = []
# Of each submit: when it was pressed, ms to the grid, ms to the last of its pictures.
TIMES: list[tuple[float, float, float]] = []


class Searcher(FastHttpUser):
    """Somebody at work."""

    wait_time = constant(0)
    network_timeout = connection_timeout = TIMEOUT_S

    def on_start(self) -> None:
        """Sign in and open a search."""
        self.plan = WAITING.pop(0)
        self.positives = set(self.plan["positives"])
        self.known: set[str] = set()  # files that the browser has
        self.page = ""
        self.lot = Random(self.plan["name"])
        self.ledger = {"name": self.plan["name"], "search": None, "told": {}, "again": 0}
        LEDGERS.append(self.ledger)
        form = {"name": self.plan["name"], "password": PLAN["password"]}
        self.ask("POST", "/sign-in", name="sign in", data=form)
        form = {
            "target_name": f"What {self.plan['name']} looks for",
            "image_ids": str(self.plan["example"]),
            "round_size": "12",
            "opening_key": uuid.uuid4().hex,
        }
        path = f"/collections/{self.plan['collection']}/searches"
        opened = self.ask("POST", path, name="open a search", data=form)
        self.search = re.search(r'data-search="(\d+)"', opened.text)[1]
        self.ledger["search"] = int(self.search)
        self.show(opened.text)
        self.due = time.monotonic()

    @task
    def answer_grid(self) -> None:
        """Twelve answers in six seconds, then the next grid."""
        length = self.lot.uniform(*ROUND_S)
        self.due = max(self.due + length, time.monotonic() + length / 2)
        early = gevent.spawn_later(IDLE_S, self.fetch_early)
        shown = [int(found) for found in re.findall(r'name="was-(\d+)"', self.page)]
        round_id = int(re.search(r'name="round_id" value="(\d+)"', self.page)[1])
        first = time.monotonic()
        step = max(self.due - first, 0.1) / max(len(shown), 1)
        values: dict[int, str] = {}
        outbox = Queue()
        sending = gevent.spawn(self.send, outbox)
        for place, image in enumerate(shown):
            sleep_until(first + (place + 0.5) * step)
            values[image] = "yes" if image in self.positives else "no"
            gesture = {
                "gesture_key": uuid.uuid4().hex,
                "round_id": round_id,
                "values": {str(image): values[image]},
                "alone": [],
            }
            outbox.put(gesture)
        sleep_until(self.due)
        early.kill(block=False) if not early.started else None
        self.submit(round_id, values, outbox)
        outbox.put(None)
        sending.join()

    def send(self, outbox: Queue) -> None:
        """Have answers saved one after the other, as answers.js does, until there is a None."""
        while (gesture := outbox.get()) is not None:
            self.answer(gesture)

    def answer(self, gesture: dict) -> None:
        """Have one answer saved."""
        wait_s = FIRST_WAIT_S
        while True:
            reply = self.ask(
                "POST",
                f"/searches/{self.search}/answers",
                name="answer",
                json=gesture,
                headers={"Accept": "application/json"},
            )
            if reply.status_code == 200:
                self.note({int(one): what for one, what in reply.json()["answers"].items()})
                return
            if reply.status_code not in (*AWAY, 500, 401, 408, 429):
                return
            self.ledger["again"] += 1
            gevent.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def submit(self, round_id: int, values: dict, outbox: Queue) -> None:
        """Press "Next images"; the same gesture again while the server is away.

        What waits in the outbox by then is saved with the form.
        """
        form = {"round_id": str(round_id), "gesture_key": uuid.uuid4().hex}
        for image, value in values.items():
            known = self.ledger["told"].get(image, "")  # of what is still on its way, nothing
            form |= {f"was-{image}": known, f"reason-{image}": "", f"answer-{image}": value}
        pressed = time.monotonic()
        while True:
            reply = self.ask(
                "POST",
                f"/searches/{self.search}/submit",
                name="submit to grid",
                data=form,
                headers={"HX-Request": "true"},
            )
            if reply.status_code == 200:
                break
            if reply.status_code not in AWAY:
                return
            self.ledger["again"] += 1
            gevent.sleep(RETRY_S)
        while not outbox.empty():
            outbox.get()
        self.note(values)
        to_grid = 1_000 * (time.monotonic() - pressed)
        self.show(reply.text)
        TIMES.append((time.time(), to_grid, 1_000 * (time.monotonic() - pressed)))

    def show(self, page: str) -> None:
        """Fetch what a page names and the browser does not have yet."""
        self.page = page
        self.fetch(re.findall(r'(?:src|href)="(/(?:static|images|photos)/[^"#]+)"', page))

    def fetch_early(self) -> None:
        """The images that are likely next."""
        reply = self.ask("GET", f"/searches/{self.search}/upcoming", name="likely next")
        if reply.status_code == 200:
            self.fetch([f"/images/{image}/small" for image in reply.json()])

    def fetch(self, files: list[str]) -> None:
        """Fetch files, some at a time."""
        wanted = [file for file in dict.fromkeys(files) if self.is_shown(file)]
        self.known.update(wanted)
        pool = Pool(AT_ONCE)
        for file in wanted:
            name = "picture" if file.startswith("/images") else "script or style"
            pool.spawn(self.ask, "GET", file, name=name)
        pool.join()

    def is_shown(self, file: str) -> bool:
        """Whether a browser loads it by itself; links to large views and originals wait."""
        is_file = file.startswith("/static/") or file.endswith("/small")
        return is_file and file not in self.known

    def note(self, answers: dict) -> None:
        """Write down what was said to be saved."""
        self.ledger["told"] |= answers

    def ask(self, method: str, path: str, *, name: str, **more: Any) -> Any:
        """One request; all but 200 is an error."""
        with self.client.request(method, path, name=name, catch_response=True, **more) as reply:
            if reply.status_code != 200:
                reply.failure(f"{reply.status_code} {str(reply.text)[:200]}")
            else:
                reply.success()
            return reply


def sleep_until(moment: float) -> None:
    """Wait, if it is not past."""
    gevent.sleep(max(0.0, moment - time.monotonic()))


@events.quitting.add_listener
def write_out(environment: Any, **_more: Any) -> None:
    """What happened, for who started this."""
    kinds = {
        entry.name: {
            "count": entry.num_requests,
            "errors": entry.num_failures,
            "median_ms": entry.median_response_time,
            "p95_ms": entry.get_response_time_percentile(0.95),
            "p99_ms": entry.get_response_time_percentile(0.99),
            "largest_ms": entry.max_response_time,
        }
        for entry in environment.stats.entries.values()
    }
    errors = [
        {"what": error.name, "error": str(error.error), "count": error.occurrences}
        for error in environment.stats.errors.values()
    ]
    OUT.write_text(
        json.dumps({"kinds": kinds, "errors": errors, "people": LEDGERS, "submits": TIMES})
    )
