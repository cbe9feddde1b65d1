"""Everything killed with -9 at any moment, PostgreSQL too, while several people work.

Not part of the usual run: `make chaos`. The seed is printed; CHAOS_SEED=… plays the same plan
again, as far as a machine repeats its timing, and CHAOS_KILLS=… sets how many kills there are.
"""

import os
import random
import shutil
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from app.accounts import add_person, make_token
from app.engine.index import open_index
from app.security import get_local_person
from app.tables import Image, ImageIndex
from tests.chaos import checks
from tests.chaos.fleet import Fleet
from tests.chaos.people import (
    Client,
    Importer,
    Ledger,
    Searcher,
    Uploader,
    draw_image,
    name_image,
)

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(4 * 3_600)]

IMAGES = 150  # there are so many different ones
KILLS_A_CHAPTER = 50
SEARCHERS = ("Sam", "Sue", "Sol")
LEAST_S, MOST_S = 0.2, 4.0  # between one kill and the next
PATIENT = 0.8  # of the kills come when the server answers again, others as it starts
VICTIMS = (
    *([("server",)] * 5),
    *([("worker 1",)] * 3),
    *([("worker 2",)] * 3),
    ("worker 1", "worker 2"),
    ("server", "worker 1"),
    *([("postgres",)] * 4),
    *([("postgres child",)] * 2),
    ("postgres", "server", "worker 1", "worker 2"),
)


def test_nothing_is_lost_or_done_twice_whatever_is_killed(capsys):
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(10**6)))
    wanted = int(os.environ.get("CHAOS_KILLS", "50"))
    rng = random.Random(seed)
    plan = [
        (rng.random() < PATIENT, rng.uniform(LEAST_S, MOST_S), rng.choice(VICTIMS))
        for _ in range(wanted)
    ]
    begun = time.monotonic()

    def say(line: str) -> None:
        with capsys.disabled():
            print(line, flush=True)  # noqa: T201

    say(f"\nCHAOS_SEED={seed} CHAOS_KILLS={wanted}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rarefind-chaos-")))
        fleet = Fleet(folder, folder / "home")
        stack.callback(fleet.close)
        for name in ("server", "worker 1", "worker 2"):
            fleet.start(name)
        fleet.await_server()
        campaign = Campaign(fleet, folder, say)
        campaign.prepare()
        for chapter, first in enumerate(range(0, wanted, KILLS_A_CHAPTER), start=1):
            campaign.play(f"{seed}-{chapter}", rng, plan[first : first + KILLS_A_CHAPTER])
        campaign.note(list(checks.check_rounds(fleet)))
        say(f"killed: {campaign.tell(campaign.killed)}")
        say(f"while under way: {campaign.tell(campaign.under_way)}")
        say(f"told: {campaign.tell(campaign.told)}")
        say(f"in the end: {campaign.tell(checks.count_rows(fleet))}")
        say(f"started again after ending by themselves: {campaign.tell(Counter(fleet.ended))}")
        say(f"{sum(campaign.killed.values())} kills in {time.monotonic() - begun:,.0f} s")
        assert not campaign.faults, "\n".join(campaign.faults)


class Campaign:
    """Chapters of kills on one installation; after each, everything is checked."""

    def __init__(self, fleet: Fleet, folder: Path, say) -> None:
        self.fleet, self.folder, self.say = fleet, folder, say
        self.killed: Counter[str] = Counter()
        self.under_way: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        self.faults: list[str] = []
        self.sent: dict[int, set[int]] = {}
        self.tokens: dict[str, str] = {}
        self.shas = {number: checks.hash_image(number) for number in range(IMAGES)}

    def prepare(self) -> None:
        """People, and a collection of all images that nothing disturbs."""
        (self.folder / "photos").mkdir()
        roles = {"Ines": "admin", "Uma": "admin"} | dict.fromkeys(SEARCHERS, "ecologist")
        with self.fleet.database.session() as session:
            admin = get_local_person(session)
            for name, role in roles.items():
                person = add_person(session, name, role, by=admin)
                self.tokens[name] = make_token(session, person, "chaos", "admin")
        source = self.folder / "photos" / "all"
        source.mkdir()
        for number in range(IMAGES):
            (source / name_image(number)).write_bytes(draw_image(number))
        ledger = Ledger()
        quiet = Importer(
            "Ines", self.tokens["Ines"], self.fleet, ledger, "quiet", pool=source, numbers=IMAGES
        )
        form = {"name": "Undisturbed", "where": "server", "source": str(source)}
        quiet.expect((303,), "POST", "/collections", data=form)
        self.undisturbed = quiet.find_collection("Undisturbed")
        quiet.await_work(self.undisturbed)
        quiet.http.close()
        assert not ledger.faults, ledger.faults
        self.sent[self.undisturbed] = set(range(IMAGES))
        with self.fleet.database.session() as session:
            row = session.scalars(select(ImageIndex).filter_by(state="ready")).one()
            shas = dict(session.execute(select(Image.id, Image.sha256)).all())
        index = open_index(self.fleet.home / "indexes" / str(row.id), verify=True)
        self.vectors = {
            shas[int(image_id)]: np.array(vector)
            for image_id, vector in zip(index.image_ids, index.vectors, strict=True)
        }

    def play(self, seed: str, rng: random.Random, plan: list) -> None:
        """Kill by the plan while people work, then check."""
        ledger, people = self.gather(seed)
        for person in people:
            person.start()
        for is_patient, wait_s, victims in plan:
            if is_patient:
                self.fleet.await_server()
            self.wait(wait_s, ledger)
            if ledger.ending.is_set():
                break
            self.under_way.update({person.doing for person in people} - {"waiting"})
            self.kill(victims, rng)
        self.end(ledger, people)

    def gather(self, seed: str) -> tuple[Ledger, list[Client]]:
        """People to work, who have not begun."""
        ledger = Ledger()
        ledger.offered.append(self.undisturbed)
        given = self.fleet, ledger, seed
        return ledger, [
            Importer(
                "Ines",
                self.tokens["Ines"],
                *given,
                pool=self.folder / "photos",
                numbers=IMAGES,
            ),
            Uploader("Uma", self.tokens["Uma"], *given, numbers=IMAGES),
            *(
                Searcher(
                    name,
                    self.tokens[name],
                    *given,
                    others=[other for other in SEARCHERS if other != name],
                    view=view,
                )
                for view, name in enumerate(SEARCHERS)
            ),
        ]

    def end(self, ledger: Ledger, people: list[Client]) -> None:
        """Let everybody end what they are at, then check."""
        ledger.ending.set()
        self.fleet.await_server()
        for person in people:
            while person.is_alive():
                person.join(timeout=0.2)
                self.fleet.start_again_what_ended()
        self.told.update(ledger.told)
        self.told.update({"requests": ledger.requests, "asked again": ledger.repeated})
        self.sent |= ledger.collections
        self.check(ledger)

    def wait(self, wait_s: float, ledger: Ledger) -> None:
        until = time.monotonic() + wait_s
        while time.monotonic() < until and not ledger.ending.is_set():
            time.sleep(0.02)
            self.fleet.start_again_what_ended()

    def kill(self, victims: tuple[str, ...], rng: random.Random) -> None:
        child_rng = random.Random(rng.random())
        down_s = rng.uniform(0, 0.5)
        for name in victims:
            if name == "postgres child":
                self.fleet.postgres.kill_child(child_rng)
            elif name == "postgres":
                self.fleet.postgres.kill()
            else:
                self.fleet.kill(name)
        self.killed[" and ".join(victims)] += 1
        time.sleep(down_s)
        for name in victims:
            if name == "postgres":
                self.fleet.postgres.start()
            elif name != "postgres child":
                self.fleet.start(name)

    def check(self, ledger: Ledger) -> None:
        """Everything that must hold now."""
        fleet = self.fleet
        searches = {hunt.search_id for hunt in ledger.hunts}
        faults = [
            *ledger.faults,
            *checks.await_end_of_work(fleet),
            *checks.check_jobs(fleet),
            *checks.check_answers(fleet, ledger.hunts),
            *checks.check_images(fleet, self.sent, self.shas),
            *checks.check_indexes(fleet, self.vectors),
            *checks.check_rounds(fleet, searches),
            *checks.check_files(fleet),
        ]
        self.say(f"{sum(self.killed.values())} kills; {checks.summarise(ledger)}")
        self.note(faults)

    def note(self, faults: list[str]) -> None:
        """Say what must not be, keep the logs, and go on: one run may find more."""
        self.faults += faults
        for fault in faults:
            self.say(f"FAULT {fault}")
        kept = os.environ.get("CHAOS_LOGS")
        if faults and kept:
            for log in self.folder.glob("*.log"):
                shutil.copy(log, kept)

    @staticmethod
    def tell(counts) -> str:
        return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
