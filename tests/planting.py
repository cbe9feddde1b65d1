"""Two people's collections and searches side by side; the one's are secrets to the other.

Ada and Bob each have a collection of their own, with a search, tags, notes, a photo, a deployment,
a table and an export. Bob's are numbered from `FIRST_SECRET`, and every text of his holds `SECRET`,
or `SEARCH_SECRET` where admins do not see it either: in an answer to anybody else they are a leak.
A third collection is open to everyone, with a search of Ada's that may be looked at.
"""

import re
from dataclasses import asdict, dataclass, field

from sqlalchemy import text
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from app.evaluation import ReplaySettings
from app.exports.files import export_path
from app.metadata import add_table
from app.reading import thumbnail_path
from app.remarks import add_tags, write_note
from app.searching import open_search
from app.security import add_token
from app.settings import Settings
from app.tables import (
    Collection,
    Deployment,
    Example,
    ExportFile,
    Job,
    Person,
    Photo,
    Replay,
    Review,
    ReviewImage,
    Search,
    Upload,
    UploadedFile,
)
from tests.factories import make_collection, make_image_file, make_images, make_index, make_person

ROLES = {
    "vic": "viewer",
    "ada": "ecologist",
    "eva": "evaluator",
    "ann": "admin",
    "bob": "ecologist",
}
# Who asks hostile things; None is nobody.
ASKING = (None, "vic", "ada", "eva", "ann")
# Settings of an application that is asked all this: nothing goes on beside, nothing is too much.
CALM = {"run_jobs": False, "changes_a_minute": 0, "costly_a_minute": 0}
FIRST_SECRET = 9_100_000_000
SECRET = "kestrelq7"
SEARCH_SECRET = "merlinx4"
SECRET_ID = re.compile(r"(?<!\d)91000000\d\d(?!\d)")


@dataclass
class Planted:
    """What was planted: the ids by whose they are, and how each person is let in."""

    web: TestClient
    ids: dict[str, dict[str, list[int]]] = field(default_factory=dict)  # whose, kind
    tokens: dict[str, str] = field(default_factory=dict)
    people: dict[str, int] = field(default_factory=dict)

    def headers(self, name: str | None) -> dict[str, str]:
        """By which a program is this person's."""
        return {"Authorization": f"Bearer {self.tokens[name]}"} if name else {}

    def find_leak(self, name: str | None, asked: str, answered: str) -> str | None:
        """What of Bob's an answer to this person holds, that they had not written themselves."""
        is_admin = name == "ann"  # who sees collections, images and people
        for secret in (SEARCH_SECRET,) if is_admin else (SEARCH_SECRET, SECRET):
            if secret in answered.lower():
                return secret
        numbers = [] if is_admin else SECRET_ID.findall(answered)
        return next((number for number in numbers if number not in asked), None)


def plant(web: TestClient) -> Planted:
    """All of it, committed to the application's database."""
    state = web.app.state  # type: ignore[attr-defined]
    planted = Planted(web)
    with state.database.session() as session:
        start_numbers(session, 1_000)
        people = {
            name: make_person(session, name=name.title(), role=role) for name, role in ROLES.items()
        }
        ada = people["ada"]
        planted.ids["ada"] = plant_one(session, state, ada, "pond", "heron")
        planted.ids["all"] = plant_one(session, state, ada, "shore", "otter", open_to="everyone")
        start_numbers(session, FIRST_SECRET)
        planted.ids["bob"] = plant_one(session, state, people["bob"], SECRET, SEARCH_SECRET)
        start_numbers(session, 5_000)
        for name, person in people.items():
            planted.tokens[name] = add_token(session, person, f"token of {name}", scope="admin")
            planted.people[name] = person.id
    return planted


def start_numbers(session: Session, first: int) -> None:
    """Let what is made from now on be numbered from `first`, in every table."""
    session.flush()
    names = session.scalars(
        text("SELECT sequencename FROM pg_sequences WHERE max_value > 10000000000")
    )
    for name in names:
        session.execute(
            text("SELECT setval(CAST(:name AS regclass), :first)"), {"name": name, "first": first}
        )


def plant_one(
    session: Session,
    state: object,
    person: Person,
    word: str,
    search_word: str,
    *,
    open_to: str = "private",
) -> dict[str, list[int]]:
    """A person's collection, with a search and all that can hang on both."""
    settings: Settings = state.settings  # type: ignore[attr-defined]
    collection = make_collection(session, name=f"Collection {word}")
    collection.made_by_id, collection.open_to = person.id, open_to
    images = make_images(session, collection, 30)
    original = make_image_file(settings.home / f"{word}.jpg", collection.id)
    for image in images:
        image.path = f"{word}/{image.path}"
        image.file = str(original)
    make_index(session, settings, images)
    deployment = Deployment(collection_id=collection.id, name=f"Camera {word}")
    session.add(deployment)
    add_tags(session, person, images[0], f"tag-{word}")
    note_id = write_note(session, person, images[0], f"Note {word}")
    rows = f"file,site {word}\n{images[0].path},at {word}\n".encode()
    add_table(session, collection.id, name=f"{word}.csv", data=rows, person=person)
    photo = Photo(
        person_id=person.id,
        name=f"{search_word}.jpg",
        sha256=f"{collection.id:064x}",
        width=60,
        height=40,
    )
    session.add(photo)
    for picture in (images[0], photo):
        for side in (320, 1280):
            size = (picture.width, picture.height)
            make_image_file(thumbnail_path(settings.home, picture.sha256, *size, side), 2)
    search = open_search(
        session,
        person=person,
        collection_id=collection.id,
        target_name=f"Target {search_word}",
        counts_as_yes=f"Any {search_word}",
        round_size=6,
        image_ids=[images[0].id],
        photo_ids=[],
        indexes=state.indexes,  # type: ignore[attr-defined]
        embedders=state.embedders,  # type: ignore[attr-defined]
        settings=settings,
    )
    search.open_to_view = open_to == "everyone"
    session.add(Example(search_id=search.id, photo_id=photo.id))
    add_tags(session, person, search, f"tag-{search_word}")
    search_note_id = write_note(session, person, search, f"Note {search_word}")
    review = Review(
        search_id=search.id,
        reviewer_id=person.id,
        asked_by_id=person.id,
        kind="sample",
        seed=1,
    )
    replay = Replay(
        collection_id=collection.id,
        person_id=person.id,
        settings=asdict(ReplaySettings(targets=("any",), strategies=("random",))),
        state="stopped",
        run_count=1,
    )
    upload = Upload(collection_id=collection.id, person_id=person.id, state="receiving")
    session.add_all([review, replay, upload])
    session.flush()
    file = UploadedFile(upload_id=upload.id, path=f"{word}.jpg", size_bytes=3)
    asked = {"review_id": review.id, "image_id": images[0].id, "position": 0}
    session.add_all([file, ReviewImage(**asked, first_value="yes", first_person_id=person.id)])
    session.flush()
    export_id = plant_export(session, settings, collection, search)
    return {
        "collection_id": [collection.id],
        "image_id": [image.id for image in images[:8]],
        "search_id": [search.id],
        "round_id": [search.current_round_id or 0],
        "note_id": [note_id, search_note_id],
        "photo_id": [photo.id],
        "deployment_id": [deployment.id],
        "export_id": [export_id],
        "review_id": [review.id],
        "replay_id": [replay.id],
        "upload_id": [upload.id],
        "file_id": [file.id],
    }


def plant_export(
    session: Session, settings: Settings, collection: Collection, search: Search
) -> int:
    """A file that the search's owner had made; its number."""
    export = ExportFile(search_id=search.id, person_id=search.owner_id, name="coco.json")
    export.size_bytes, export.ready_at = 2, collection.made_at
    session.add(export)
    session.flush()
    arguments = {"export_id": export.id, "search_id": search.id, "name": export.name}
    session.add(
        Job(
            kind="export",
            collection_id=collection.id,
            person_id=search.owner_id,
            arguments=arguments | {"target": search.target_name},
            state="done",
        )
    )
    made = export_path(settings, export)
    made.parent.mkdir(parents=True, exist_ok=True)
    made.write_text("{}")
    return export.id
