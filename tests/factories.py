"""Makes rows and files for tests; each maker has a usable default for everything."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
from sqlalchemy.orm import Session

from app.engine.index import build_index
from app.settings import Settings
from app.tables import Collection, Image, ImageIndex, ImagePath, Person


def make_person(session: Session, *, name: str = "me", role: str = "admin") -> Person:
    person = Person(name=name, role=role)
    session.add(person)
    session.flush()
    return person


def make_collection(session: Session, *, name: str = "Pond", notice: str | None = None):
    collection = Collection(name=name, source="/photos/pond", notice=notice)
    session.add(collection)
    session.flush()
    return collection


def make_images(
    session: Session, collection: Collection, count: int, *, first: int = 0
) -> list[Image]:
    """Rows only: nothing is on disk. They are numbered from `first`."""
    images = [
        Image(
            collection_id=collection.id,
            sha256=f"{collection.id:032x}{number:032x}",
            path=f"site/IMG_{number:04}.jpg",
            file=f"/photos/pond/site/IMG_{number:04}.jpg",
            size_bytes=1_000,
            format="JPEG",
            width=640,
            height=480,
        )
        for number in range(first, first + count)
    ]
    session.add_all(images)
    session.flush()
    return images


def note_paths(session: Session, images: Sequence[Image]) -> None:
    """That the images were found under their paths, as an import notes it."""
    session.add_all(
        ImagePath(
            collection_id=image.collection_id,
            image_id=image.id,
            path=image.path,
            size_bytes=image.size_bytes,
            modified_ns=0,
        )
        for image in images
    )
    session.flush()


def make_vectors(count: int, *, dimension: int = 16, seed: int = 0) -> np.ndarray:
    """Unit vectors in two clouds: the first tenth are alike, the others are spread."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, dimension))
    vectors[: count // 10] += 4 * rng.normal(size=dimension)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def make_index(
    session: Session,
    settings: Settings,
    images: list[Image],
    vectors: np.ndarray | None = None,
    *,
    embedder: str = "hand-made",
    revision: str = "1",
    knows_words: bool = False,
) -> ImageIndex:
    """A ready index over `images`, on disk where the app looks for it."""
    vectors = make_vectors(len(images)) if vectors is None else vectors
    row = ImageIndex(
        collection_id=images[0].collection_id,
        embedder=embedder,
        revision=revision,
        dimension=vectors.shape[1],
        knows_words=knows_words,
        state="ready",
        image_count=len(images),
        done_count=len(images),
    )
    session.add(row)
    session.flush()
    folder: Path = settings.home / "indexes" / str(row.id)
    folder.mkdir(parents=True)
    image_ids = np.array([image.id for image in images])
    build_index(folder, vectors=vectors, image_ids=image_ids, embedder=embedder, revision=revision)
    return row


def make_picture(
    number: int = 0, *, size: tuple[int, int] = (60, 40), mode: str = "RGB"
) -> PIL.Image.Image:
    """A picture with a colour in each quarter, and stripes that tell one number from another."""
    picture = PIL.Image.new("RGB", size)
    half = (size[0] // 2, size[1] // 2)
    for corner, colour in (((0, 0), "red"), ((1, 0), "lime"), ((0, 1), "blue"), ((1, 1), "white")):
        picture.paste(colour, (corner[0] * half[0], corner[1] * half[1], *size))
    width = max(1, size[0] // 16)
    for bit in range(16):
        if number >> bit & 1:
            picture.paste("black", (bit * width, half[1] - 2, (bit + 1) * width, half[1] + 2))
    return picture.convert(mode)


def make_image_file(
    path: Path,
    number: int = 0,
    *,
    size: tuple[int, int] = (60, 40),
    file_format: str = "JPEG",
    **options: object,
) -> Path:
    """An image file, its folder made; the same number gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        make_picture(number, size=size).save(file, file_format, **options)
    return path
