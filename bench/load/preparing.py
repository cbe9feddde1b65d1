"""What the people of a load test find: a million images, accounts, and what each looks for."""

import io
import json
import os
from pathlib import Path

import numpy as np
import PIL.Image
from sqlalchemy import select, text

from app.accounts import add_person, hash_password
from app.database import Database
from app.engine.together import multiply_together
from app.indexing import OpenIndexes
from app.reading import THUMBNAIL_SIDES, thumbnail_path
from app.security import get_local_person, same_name
from app.settings import Settings
from app.tables import Image, ImageIndex, Person
from bench.million import fill

PICTURES = 64  # different files; a million names lead to them
PICTURE_SIDES = (320, 240)  # pixels
POSITIVES = 2_000  # images that a person says yes to: those nearest to their example
DONE = "prepared.json"


def prepare(database: Database, settings: Settings) -> None:
    """Fill the data folder, unless an earlier run has."""
    done = settings.home / DONE
    if done.exists():
        return
    build_s = fill(database, settings)
    with database.session() as session:
        width, height = PICTURE_SIDES
        session.execute(
            text("UPDATE images SET width = :width, height = :height"),
            {"width": width, "height": height},
        )
    with database.session() as session:
        draw_pictures(settings, list(session.scalars(select(Image.sha256).order_by(Image.id))))
    with database.bind.engine.connect() as connection:
        plain = connection.execution_options(isolation_level="AUTOCOMMIT")
        plain.execute(text("VACUUM ANALYZE"))  # as the database does by itself after a while
    done.write_text(json.dumps({"build_s": build_s}))


def draw_pictures(settings: Settings, shas: list[str]) -> None:
    """A small thumbnail for each image: few files of some 12 kB under very many names."""
    drawn = []
    for number in range(PICTURES):
        noise = np.random.default_rng(number).integers(0, 255, (12, 16, 3), dtype=np.uint8)
        file = io.BytesIO()
        large = PIL.Image.fromarray(noise).resize(PICTURE_SIDES, PIL.Image.Resampling.BICUBIC)
        large.save(file, "JPEG", quality=85)
        drawn.append(file.getvalue())
    paths: list[Path | None] = [None] * PICTURES
    links = 0
    for place, sha256 in enumerate(shas):
        path = thumbnail_path(settings.home, sha256, *PICTURE_SIDES, THUMBNAIL_SIDES[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        first = paths[place % PICTURES]
        if first is None or links // PICTURES >= 30_000:  # file systems bound the names of a file
            path.write_bytes(drawn[place % PICTURES])
            paths[place % PICTURES] = path
            links = links if first is None else 0
        else:
            os.link(first, path)
        links += 1


def add_people(database: Database, settings: Settings, count: int, password: str) -> list[dict]:
    """Accounts, each with an example and the images that are like it."""
    names = [f"Person {number}" for number in range(1, count + 1)]
    with database.session() as session:
        admin = get_local_person(session)
        for name in names:
            person = session.scalar(select(Person).where(same_name(name)))
            person = person or add_person(session, name, "ecologist", by=admin)
            person.password_hash = hash_password(person, password)
        row = session.scalars(select(ImageIndex)).one()
        index = OpenIndexes(settings).get(row)
    rows = np.arange(count) * (index.count // count)
    people = []
    for start in range(0, count, 8):
        own = rows[start : start + 8]
        alike = multiply_together(index.vectors, index.vectors[own], threads=2)
        for row_number, similarities in zip(own, alike, strict=True):
            nearest = np.argpartition(-similarities, POSITIVES)[:POSITIVES]
            people.append(
                {
                    "name": names[len(people)],
                    "collection": row.collection_id,
                    "example": int(index.image_ids[row_number]),
                    "positives": index.image_ids[nearest].tolist(),
                }
            )
    return people
