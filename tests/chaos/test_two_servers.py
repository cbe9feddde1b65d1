"""Two servers and two workers on one data folder and one database; one of each is lost in mid-work.

Not part of the usual run: `make chaos`. The servers have ports of their own, as on two machines;
whoever a server does not answer any more asks the other, with the same keys.
"""

import os
import random
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import func, select

from app.tables import Job
from tests.chaos import checks
from tests.chaos.fleet import PATIENCE_S, Fleet
from tests.chaos.people import Ledger
from tests.chaos.test_chaos import Campaign

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1_800)]

ANSWERS = 60  # told before, between and after the losses
PREPARING = ("import", "index")


def test_a_server_and_a_worker_are_lost_and_nothing_else(capsys):
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(10**6)))

    def say(line: str) -> None:
        with capsys.disabled():
            print(line, flush=True)  # noqa: T201

    say(f"\nCHAOS_SEED={seed}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rarefind-two-")))
        fleet = Fleet(folder, folder / "home")
        stack.callback(fleet.close)
        for name in ("server", "server 2", "worker 1", "worker 2"):
            fleet.start(name)
        fleet.await_server()
        first, second = fleet.addresses
        campaign = Campaign(fleet, folder, say)
        campaign.prepare()
        ledger, people = campaign.gather(str(seed))
        for place, person in enumerate(people):
            person.address = (first, second)[place % 2]
            person.start()
        await_answers(ledger, ANSWERS)
        # Half of the people ask each; some requests bring several answers, and on two cores
        # one server may be slow for a while.
        assert min(ledger.served[first], ledger.served[second]) > ANSWERS / 10, ledger.served

        fleet.lose("server")
        served_before = ledger.served[first]
        await_answers(ledger, ANSWERS)

        await_busy_workers(fleet)
        fleet.lose("worker 1")
        await_answers(ledger, ANSWERS)

        campaign.end(ledger, people)
        campaign.note(list(checks.check_rounds(fleet)))
        say(f"told: {campaign.tell(campaign.told)}")
        with fleet.database.session() as session:
            taken_up = session.scalar(select(func.count()).where(Job.attempts > 1))
        assert taken_up, "The lost worker was at nothing"
        assert ledger.served[first] == served_before
        assert {person.address for person in people} == {second}
        assert not campaign.faults, "\n".join(campaign.faults)


def await_answers(ledger: Ledger, more: int) -> None:
    """Until so many more answers were told to be saved."""
    wanted = ledger.told["answers"] + more
    deadline = time.monotonic() + PATIENCE_S
    while ledger.told["answers"] < wanted:
        assert not ledger.ending.is_set(), ledger.faults
        assert time.monotonic() < deadline, ledger.told
        time.sleep(0.05)


def await_busy_workers(fleet: Fleet) -> None:
    """Until both workers read an import or build an index: each does one at a time."""
    deadline = time.monotonic() + PATIENCE_S
    running = select(func.count()).where(Job.state == "running", Job.kind.in_(PREPARING))
    while True:
        with fleet.database.session() as session:
            if session.scalar(running) == 2:
                return
        assert time.monotonic() < deadline, "The workers are never busy at once"
        time.sleep(0.01)
