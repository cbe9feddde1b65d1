"""People at work while processes are killed: each a thread that asks the server, and asks again.

What they were told was saved is written down in `Ledger`, and `Hunt` knows what must stand then.
"""

import base64
import io
import random
import re
import threading
import time
import traceback
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import httpx
import numpy as np
import PIL.Image
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from app.tables import Job
from tests.chaos.fleet import Fleet

PATIENCE_S = 240
PIECE_BYTES = 12_000  # small, so that a kill finds many files begun
IN_THE_BIN = "the search lies in the bin"
AWAY = (423, 503)  # to be asked again
TUS = {"Tus-Resumable": "1.0.0"}
PIECE = {"Content-Type": "application/offset+octet-stream"}

Values = dict[int, str | None]


@dataclass
class Gesture:
    """One thing that a person did in a search, and what became of it."""

    who: str
    search_id: int
    key: str
    kind: str  # answer, submit, undo, redo
    values: Values = field(default_factory=dict)
    rest: list[int] = field(default_factory=list)  # answered no along with a submit
    is_told: bool = False  # that it was saved
    is_doubtful: bool = False  # some answer was lost on its way


@dataclass
class Hunt:
    """A search as one person knows it: their steps that stand, and those that were taken back."""

    who: str
    search_id: int
    collection_id: int
    name: str
    examples: list[int]
    is_shared: bool = False
    gestures: list[Gesture] = field(default_factory=list)
    done: list[tuple[str, Values]] = field(default_factory=list)
    undone: list[tuple[str, Values]] = field(default_factory=list)

    def follow(self, gesture: Gesture) -> None:
        """A gesture has been saved."""
        if gesture.kind == "undo":
            self.undone.append(self.done.pop())
        elif gesture.kind == "redo":
            self.done.append(self.undone.pop())
        else:
            if gesture.values:
                self.done.append(("answer", gesture.values))
            if gesture.kind == "submit":
                self.done.append(("submit", dict.fromkeys(gesture.rest, "no")))
            self.undone.clear()

    def list_touched(self) -> set[int]:
        """The images that this person ever answered."""
        return {
            *self.examples,
            *(one for gesture in self.gestures for one in (*gesture.values, *gesture.rest)),
        }

    def standing(self) -> dict[int, str]:
        """The answers that stand."""
        answers: Values = dict.fromkeys(self.examples, "yes")
        for _, values in self.done:
            answers |= values
        return {image_id: value for image_id, value in answers.items() if value is not None}


class Ledger:
    """What everybody was told, and what went on meanwhile."""

    def __init__(self) -> None:
        self.hunts: list[Hunt] = []
        self.collections: dict[int, set[int]] = {}  # the numbers of the images sent to each
        self.offered: list[int] = []  # collections to search in
        self.invited: dict[str, list[Hunt]] = {}
        self.exports = 0
        self.requests = 0
        self.served: Counter[str] = Counter()  # requests that a server answered, by its address
        self.repeated = 0  # requests of which no answer came, or that the database was away
        self.told: Counter[str] = Counter()
        self.faults: list[str] = []
        self.ending = threading.Event()
        self.lock = threading.Lock()

    def find(self, fault: str) -> None:
        """Write down what must not be, and go on."""
        with self.lock:
            if len(self.faults) < 50:
                self.faults.append(fault)


class Answer:
    """What came in the end, and whether something may have been done before without a word."""

    def __init__(self, response: httpx.Response, is_doubtful: bool) -> None:
        self.status = response.status_code
        self.response = response
        self.is_doubtful = is_doubtful

    def json(self):
        return self.response.json()

    @property
    def leads_to(self) -> str:
        return self.response.headers.get("location", "")


class Client(threading.Thread):
    """Somebody at work until the chapter ends."""

    def __init__(self, name: str, token: str, fleet: Fleet, ledger: Ledger, seed: str) -> None:
        super().__init__(name=name, daemon=True)
        self.fleet, self.ledger = fleet, ledger
        self.rng = random.Random(f"{seed} {name}")
        self.doing = "waiting"
        self.key = 0
        self.seed = seed
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        self.http = httpx.Client(headers=headers, timeout=60)
        self.address = self.rng.choice(fleet.addresses)

    def run(self) -> None:
        try:
            while not self.ledger.ending.is_set():
                self.live()
                self.doing = "waiting"
        except Exception:
            self.ledger.find(f"{self.name}, {self.doing}: {traceback.format_exc()}")
            self.ledger.ending.set()
        finally:
            self.http.close()

    def live(self) -> None:
        raise NotImplementedError

    def ask(self, method: str, path: str, **more) -> Answer:
        """A request; again while the server or its database is away."""
        deadline = time.monotonic() + PATIENCE_S
        is_doubtful = False
        while True:
            self.ledger.requests += 1
            try:
                response = self.http.request(method, self.address + path, **more)
                self.ledger.served[self.address] += 1
                if response.status_code not in (*AWAY, 500):
                    return Answer(response, is_doubtful)
                why = f"{response.status_code} {response.text[:300]}"
                if response.status_code == 500:
                    self.ledger.find(f"{self.name}: {method} {path}: {why}")
            except httpx.TransportError as error:
                why = repr(error)
                self.go_over()
            self.ledger.repeated += 1
            is_doubtful = True
            assert time.monotonic() < deadline, f"{method} {path}: {why}"
            time.sleep(0.1)

    def go_over(self) -> None:
        """Ask another server from now on, if there is one."""
        others = [one for one in self.fleet.addresses if one != self.address]
        self.address = self.rng.choice(others or [self.address])

    def expect(self, statuses: tuple[int, ...], method: str, path: str, **more) -> Answer:
        """A request whose answer is one of these."""
        answer = self.ask(method, path, **more)
        said = f"{method} {path}: {answer.status} {answer.response.text[:500]}"
        assert answer.status in statuses, said
        return answer

    def find_collection(self, name: str) -> int:
        """The number of a collection, which is certain to be there."""
        known = self.expect((200,), "GET", "/api/v1/collections").json()
        return next(one["collection_id"] for one in known if one["name"] == name)

    def await_work(self, collection_id: int) -> None:
        """Until nothing is done for a collection; what failed is said, and tried again."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                with self.fleet.database.session() as session:
                    own = select(Job).where(
                        Job.collection_id == collection_id, Job.kind != "export"
                    )
                    jobs = session.scalars(own).all()
            except OperationalError:  # it was killed
                time.sleep(0.2)
                continue
            for job in jobs:
                if job.state == "failed":
                    self.ledger.find(f"The job {job.kind} {job.id} failed: {job.problem}")
                    self.expect((303, 404), "POST", f"/work/{job.id}/again")
            if all(job.state not in ("waiting", "running", "failed") for job in jobs):
                return
            states = [(job.id, job.kind, job.state, job.step, job.attempts) for job in jobs]
            assert time.monotonic() < deadline, f"No end of the work: {states}"
            time.sleep(0.2)

    def remember_collection(self, collection_id: int, numbers: set[int]) -> None:
        with self.ledger.lock:
            self.ledger.collections.setdefault(collection_id, set()).update(numbers)


class Importer(Client):
    """Adds folders, takes images out and puts them back, deletes and restores collections."""

    def __init__(self, *given, pool: Path, numbers: int) -> None:
        super().__init__(*given)
        self.pool, self.numbers = pool, numbers
        self.made = 0
        self.own: list[int] = []

    def live(self) -> None:
        if len(self.own) < 2 or self.rng.random() < 0.4:
            self.add()
        elif self.rng.random() < 0.5:
            self.add_more(self.rng.choice(self.own))
        else:
            self.delete_and_restore(self.rng.choice(self.own))

    def add(self) -> None:
        self.doing = "import"
        self.made += 1
        name = f"{self.seed} folder {self.made}"
        numbers = self.draw()
        form = {"name": name, "where": "server", "source": str(self.lay_out(name, numbers))}
        if self.rng.random() < 0.5:
            form["keep_copy"] = "yes"
        answer = self.expect((303, 422), "POST", "/collections", data=form)
        assert answer.status == 303 or answer.is_doubtful, answer.response.text
        collection_id = self.find_collection(name)
        self.remember_collection(collection_id, numbers)
        self.await_work(collection_id)
        self.own.append(collection_id)
        removed = self.remove_some(collection_id)
        self.ledger.offered.append(collection_id)
        self.doing = "removal"
        form = {"image_ids": removed}
        self.expect((303,), "POST", f"/collections/{collection_id}/removed/back", data=form)
        self.await_work(collection_id)

    def remove_some(self, collection_id: int) -> list[int]:
        self.doing = "removal"
        query = f"/api/v1/collections/{collection_id}/images?limit=20"
        images = self.expect((200,), "GET", query).json()
        image_ids = [one["image_id"] for one in images][:: self.rng.randint(2, 5)]
        form = {"image_ids": image_ids}
        self.expect((303,), "POST", f"/collections/{collection_id}/removed", data=form)
        self.await_work(collection_id)
        return image_ids

    def add_more(self, collection_id: int) -> None:
        self.doing = "import"
        self.made += 1
        numbers = self.draw()
        folder = self.lay_out(f"{self.seed} more {self.made}", numbers)
        self.remember_collection(collection_id, numbers)
        form = {"source": str(folder)}
        self.expect((303,), "POST", f"/collections/{collection_id}/imports", data=form)
        self.await_work(collection_id)

    def delete_and_restore(self, collection_id: int) -> None:
        self.doing = "deleting a collection"
        path = f"/collections/{collection_id}"
        answer = self.expect((303, 404, 409), "POST", f"{path}/delete")
        if answer.status == 409:
            return  # an export of a search is being made
        time.sleep(self.rng.uniform(0, 1))
        self.expect((303, 404), "POST", f"/bin/collection/{collection_id}/restore")
        self.expect((200,), "GET", path)

    def draw(self) -> set[int]:
        return set(self.rng.sample(range(self.numbers), self.rng.randint(20, 70)))

    def lay_out(self, name: str, numbers: set[int]) -> Path:
        folder = self.pool / name
        folder.mkdir()
        for number in numbers:
            (folder / name_image(number)).write_bytes(draw_image(number))
        return folder


class Uploader(Client):
    """Sends loose files and a zip from a browser, piece by piece."""

    def __init__(self, *given, numbers: int) -> None:
        super().__init__(*given)
        self.numbers = numbers
        self.made = 0

    def live(self) -> None:
        self.doing = "upload"
        self.made += 1
        name = f"{self.seed} upload {self.made}"
        form = {"name": name, "where": "here"}
        answer = self.expect((303, 422), "POST", "/collections", data=form)
        assert answer.status == 303 or answer.is_doubtful, answer.response.text
        collection_id = self.find_collection(name)
        here = answer.leads_to
        if answer.status == 422:
            page = self.expect((200,), "GET", f"/collections/{collection_id}").response.text
            here = re.search(r'href="(/uploads/\d+)"', page)[1]
        loose = self.rng.sample(range(self.numbers), self.rng.randint(5, 20))
        packed = self.rng.sample(range(self.numbers), self.rng.randint(10, 40))
        self.remember_collection(collection_id, {*loose, *packed})
        for number in loose:
            self.send(here, f"card/{name_image(number)}", draw_image(number))
        self.send(here, "card.zip", pack(packed))
        answer = self.expect((303, 404), "POST", f"{here}/finish")
        assert answer.status == 303 or answer.is_doubtful, answer.response.text
        self.doing = "import of an upload"
        self.await_work(collection_id)
        self.ledger.offered.append(collection_id)

    def send(self, here: str, path: str, data: bytes) -> None:
        metadata = f"path {base64.b64encode(path.encode()).decode()}"
        announced = TUS | {"Upload-Length": str(len(data)), "Upload-Metadata": metadata}
        made = self.expect((201,), "POST", f"{here}/files", headers=announced)
        offset = int(made.response.headers["upload-offset"])
        while offset < len(data):
            answer = self.expect(
                (204, 409),
                "PATCH",
                made.leads_to,
                headers=TUS | PIECE | {"Upload-Offset": str(offset)},
                content=data[offset : offset + PIECE_BYTES],
            )
            if answer.status == 409:
                answer = self.expect((200,), "HEAD", made.leads_to, headers=TUS)
            offset = int(answer.response.headers["upload-offset"])
        self.ledger.told["files that arrived"] += 1


class Searcher(Client):
    """Opens searches, answers, takes back, shares, exports, deletes and restores."""

    def __init__(self, *given, others: list[str], view: int) -> None:
        super().__init__(*given)
        self.others = others
        self.view = view  # of their own
        self.own: list[Hunt] = []
        self.hunts: list[Hunt] = []
        self.made = 0

    def live(self) -> None:
        with self.ledger.lock:
            invited = self.ledger.invited.get(self.name, [])
            self.hunts += [
                Hunt(self.name, one.search_id, one.collection_id, one.name, [], is_shared=True)
                for one in invited
            ]
            self.ledger.hunts += self.hunts[len(self.hunts) - len(invited) :]
            invited.clear()
        if not self.hunts or self.rng.random() < 0.06:
            self.open()
            return
        hunt = self.rng.choice(self.hunts[-4:])
        luck = self.rng.random()
        if luck < 0.10 and hunt.done:
            self.step(hunt, "undo")
        elif luck < 0.16 and hunt.undone:
            self.step(hunt, "redo")
        elif luck < 0.20 and hunt in self.own and not hunt.is_shared:
            self.share(hunt)
        elif luck < 0.24 and hunt in self.own:
            self.delete_and_restore(hunt)
        elif luck < 0.30 and "yes" in hunt.standing().values():
            self.have_file_made(hunt)
        elif luck < 0.36 and hunt.standing():
            self.download_answers(hunt)
        else:
            self.answer_round(hunt)

    def open(self) -> None:
        self.doing = "opening a search"
        collection_id = self.rng.choice(self.ledger.offered)
        path = f"/api/v1/collections/{collection_id}"
        some = self.ask("GET", f"{path}/images?limit=10&after={self.rng.randrange(5)}")
        if some.status != 200:
            return  # it is in the bin
        examples = [one["image_id"] for one in some.json()[: self.rng.randint(1, 3)]]
        self.made += 1
        name = f"{self.seed} {self.name} {self.made}"
        body = {"target_name": name, "image_ids": examples, "seed": self.rng.randrange(1000)}
        search_id = self.open_once(f"{path}/searches", body)
        if search_id is None:
            return
        hunt = Hunt(self.name, search_id, collection_id, name, examples)
        self.ledger.told["searches"] += 1
        self.own.append(hunt)
        self.hunts.append(hunt)
        with self.ledger.lock:
            self.ledger.hunts.append(hunt)

    def open_once(self, path: str, body: dict) -> int | None:
        """As a person does: no answer came, so they look whether it is there before they try again.

        None where it can't be: its collection is in the bin, or an example was removed.
        """
        deadline = time.monotonic() + PATIENCE_S
        while True:
            self.ledger.requests += 1
            try:
                response = self.http.post(self.address + path, json=body)
            except httpx.TransportError:
                response = None
                self.go_over()
            if response is not None and response.status_code in (404, 409, 422):
                return None
            if response is not None and response.status_code == 201:
                return response.json()["search_id"]
            if response is not None and response.status_code == 500:
                self.ledger.find(f"{self.name}: POST {path}: {response.text[:300]}")
            assert time.monotonic() < deadline, f"POST {path}: {response}"
            self.ledger.repeated += 1
            time.sleep(0.1)
            name = body["target_name"]
            found = self.expect((200,), "GET", f"/api/v1/searches?find={name}").json()
            for one in found:
                if one["target_name"] == name:
                    return one["search_id"]

    def answer_round(self, hunt: Hunt) -> None:
        self.doing = "answering"
        answer = self.expect((200, 404), "GET", f"/api/v1/searches/{hunt.search_id}/round")
        if answer.status == 404:
            self.hunts.remove(hunt)
            return
        made = answer.json()
        left = {
            card["image_id"]: judge(card["path"], self.view)
            for card in made["images"]
            if card["answer"] is None
        }
        if not made["images"]:
            self.hunts.remove(hunt)
            return
        round_id = made["round_id"]
        for image_id in list(left)[: self.rng.randint(0, 4)]:
            if self.ledger.ending.is_set():
                return
            values: Values = {image_id: left.pop(image_id)}
            if not self.give(hunt, "answer", round_id, values):
                return
            if self.rng.random() < 0.1 and not hunt.is_shared:
                left[image_id] = values[image_id]
                if not self.give(hunt, "answer", round_id, {image_id: None}):
                    return
        if hunt.is_shared or self.rng.random() < 0.6:
            self.give(hunt, "submit", round_id, dict(left))
        else:
            sure = {image_id: value for image_id, value in left.items() if value != "no"}
            rest = [image_id for image_id in left if image_id not in sure]
            self.give(hunt, "submit", round_id, sure, rest)

    def give(self, hunt: Hunt, kind: str, round_id: int, values: Values, rest=()) -> bool:
        body = {"round_id": round_id, "answers": values}
        if kind == "submit":
            body["rest_are_no"] = bool(rest)
        gesture = self.begin(hunt, kind, dict(values), list(rest))
        answer = self.send(hunt, gesture, "answers" if kind == "answer" else "submit", body)
        if answer is not None and kind == "answer":
            stands = {int(one): value for one, value in answer.json()["answers"].items()}
            assert stands == values, (stands, values)
        return answer is not None

    def step(self, hunt: Hunt, kind: str) -> None:
        self.doing = "undo and redo"
        self.send(hunt, self.begin(hunt, kind, {}, []), kind, {})

    def begin(self, hunt: Hunt, kind: str, values: Values, rest: list[int]) -> Gesture:
        self.key += 1
        key = f"{self.seed}-{self.name}-{self.key}".replace(" ", "-")
        gesture = Gesture(self.name, hunt.search_id, key, kind, values, rest)
        hunt.gestures.append(gesture)
        return gesture

    def send(self, hunt: Hunt, gesture: Gesture, path: str, body: dict) -> Answer | None:
        """Have a gesture saved, or None: its search is in the bin meanwhile."""
        answer = self.expect(
            (200, 404),
            "POST",
            f"/api/v1/searches/{hunt.search_id}/{path}",
            json=body | {"gesture_key": gesture.key},
        )
        gesture.is_doubtful = answer.is_doubtful
        if answer.status == 404:
            self.hunts.remove(hunt)
            return None
        gesture.is_told = True
        hunt.follow(gesture)
        self.ledger.told["gestures"] += 1
        self.ledger.told["answers"] += len(gesture.values) + len(gesture.rest)
        return answer

    def share(self, hunt: Hunt) -> None:
        self.doing = "sharing"
        other = self.rng.choice(self.others)
        hunt.is_shared = True
        path = f"/searches/{hunt.search_id}/members"
        answer = self.expect((303, 404, 422), "POST", path, data={"name": other})
        if answer.status == 404:
            self.hunts.remove(hunt)
            return
        assert answer.status == 303 or answer.is_doubtful, answer.response.text
        self.ledger.told["invitations"] += 1
        with self.ledger.lock:
            self.ledger.invited.setdefault(other, []).append(hunt)

    def delete_and_restore(self, hunt: Hunt) -> None:
        self.doing = "deleting a search"
        path = f"/searches/{hunt.search_id}"
        if self.expect((303, 404), "POST", f"{path}/delete").status == 303:
            time.sleep(self.rng.uniform(0, 0.5))
        self.expect((303, 404), "POST", f"/bin/search/{hunt.search_id}/restore")
        if self.expect((200, 404), "GET", f"/api/v1{path}").status == 404:
            self.hunts.remove(hunt)  # its collection is in the bin

    def have_file_made(self, hunt: Hunt) -> None:
        self.doing = "export"
        name = self.rng.choice(["pictures.zip", "search.rarefind"])
        wanted = {"search_id": hunt.search_id, "name": name}
        answer = self.expect((202, 404), "POST", "/api/v1/exports", json=wanted)
        deadline = time.monotonic() + PATIENCE_S
        while answer.status != 404 and (made := answer.json())["state"] != "ready":
            if made["state"] == "failed" and IN_THE_BIN in made["problem"]:
                return
            if made["state"] == "failed":
                self.ledger.find(f"An export failed: {made['problem']}")
                return
            assert time.monotonic() < deadline, f"No end of an export: {made}"
            time.sleep(0.2)
            answer = self.expect((200, 404), "GET", f"/api/v1/exports/{made['export_id']}")
        if answer.status == 404:
            return
        file = self.expect((200, 404), "GET", made["file"])
        if file.status == 404:
            return
        with zipfile.ZipFile(io.BytesIO(file.response.content)) as packed:
            assert packed.testzip() is None
            pictures = [one for one in packed.namelist() if one.endswith(".jpg")]
        if name == "pictures.zip" and not hunt.is_shared:
            found = sum(value == "yes" for value in hunt.standing().values())
            assert len(pictures) == found, (pictures, found)
        self.ledger.told["exported files"] += 1

    def download_answers(self, hunt: Hunt) -> None:
        self.doing = "export"
        path = f"/api/v1/searches/{hunt.search_id}/export?format=csv"
        answer = self.expect((200, 404), "GET", path)
        if answer.status == 200 and not hunt.is_shared:
            lines = answer.response.text.strip().split("\n")
            assert len(lines) - 1 == len(hunt.standing()), (lines, hunt.standing())


@cache
def draw_image(number: int) -> bytes:
    """An image of its own for each number."""
    rng = np.random.default_rng(number)
    small = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
    picture = PIL.Image.fromarray(small).resize((400, 300), PIL.Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return file.getvalue()


def name_image(number: int) -> str:
    """Its file's name."""
    return f"{number:04}.jpg"


def pack(numbers: list[int]) -> bytes:
    """A zip of images."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in numbers:
            archive.writestr(f"zipped/{name_image(number)}", draw_image(number))
    return packed.getvalue()


def judge(path: str, view: int) -> str:
    """What somebody thinks of an image, by its number; no two people think the same of one.

    So each answer to an image of a shared search changes something, and is kept.
    """
    number = int(path.rsplit("/", 1)[-1].removesuffix(".jpg"))
    likely = 1 if number % 5 == 0 else 2 if number % 11 == 0 else 0
    return ("no", "yes", "unsure")[(likely + view) % 3]
