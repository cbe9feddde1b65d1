"""What finds candidates among the vectors of a collection: FAISS beside them, or a Milvus.

Each collection says which (`collections.vectors`), as the command line does: `faiss`, `milvus:lite`
for a database in the data folder, or `milvus:` and the address of a cluster. Its next index goes
there; an index that is ready stays where it is. In Milvus an index is one collection, whose name
says of which installation, of which index and which vectors it is. What the installation's rows do
not name is removed by `rarefind gc`; what another installation filled never is.

What is kept in Milvus of an image beside its vector is when and where it was taken, exactly.
"""

import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import exists, select, text
from sqlalchemy.orm import Session, aliased

from app.database import Database, is_among
from app.engine import EngineError
from app.engine.bounds import NAMES, note_fields, read_fields, write_fields
from app.engine.index import read_manifest
from app.engine.milvus import Milvus, MilvusSearcher, VectorEngineAway, fill_collection
from app.errors import BadInput, VectorsAway
from app.filtering import deployment_of
from app.settings import Settings
from app.tables import Collection, Image, ImageIndex

FAISS = "faiss"
LITE = "milvus:lite"
CLUSTER = re.compile(
    r"milvus:(https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?)/?", re.IGNORECASE
)
READ_IMAGES = 5_000

Integers = NDArray[np.int64]
Floats = NDArray[np.float32]


def check_vectors(vectors: str, settings: Settings) -> str:
    """A place for vectors as it is kept, or BadInput; a Milvus has to answer."""
    if vectors == FAISS:
        return FAISS
    cluster = CLUSTER.fullmatch(vectors)
    if cluster is None and vectors != LITE:
        # What was given is not repeated: it may hold a password.
        raise BadInput(
            "Vectors can be searched by faiss, milvus:lite or milvus:http://host:19530. A user and "
            "a password go into the file that RAREFIND_MILVUS_TOKEN_FILE names."
        )
    chosen = LITE if cluster is None else f"milvus:{cluster[1].lower()}"
    try:
        with _opened(chosen, settings) as milvus:
            milvus.list_collections("")
    except VectorEngineAway as error:
        raise BadInput(str(error)) from error
    return chosen


def choose_vectors(session: Session, collection_id: int, vectors: str, settings: Settings) -> None:
    """Have the next index of a collection searched by FAISS or a Milvus, or BadInput."""
    session.get_one(Collection, collection_id).vectors = check_vectors(vectors, settings)


@dataclass(frozen=True)
class Place:
    """What may search the images of a collection, as it is kept and as people read it."""

    vectors: str
    title: str
    hint: str


def list_places(session: Session) -> list[Place]:
    """Where vectors of collections are searched already.

    From a browser no other is taken: whoever names an address has the token sent there.
    """
    used = set(session.scalars(select(Collection.vectors).distinct()))
    return [
        Place(one, describe_vectors(one), _advise(one)) for one in [FAISS, *sorted(used - {FAISS})]
    ]


def check_listed(session: Session, vectors: str, settings: Settings) -> str:
    """One of `list_places`, or BadInput; a Milvus has to answer."""
    if vectors not in {place.vectors for place in list_places(session)}:
        raise BadInput("No collection is searched there yet. Choose one of those listed.")
    return check_vectors(vectors, settings)


def note_images(session: Session, folder: Path, image_ids: Integers) -> None:
    """Keep beside vectors when and where their images were taken, for filters in Milvus."""
    fields = np.empty((len(NAMES), len(image_ids)))
    for start in range(0, len(image_ids), READ_IMAGES):
        some = image_ids[start : start + READ_IMAGES].tolist()
        query = select(
            Image.id, Image.captured_at, Image.latitude, Image.longitude, deployment_of()
        ).where(is_among(Image.id, some))
        known = {
            image_id: note_fields(taken, latitude, longitude, place)
            for image_id, taken, latitude, longitude, place in session.execute(query)
        }
        fields[:, start : start + len(some)] = np.array([known[one] for one in some]).T
    write_fields(folder, fields)


def fill_index(
    database: Database, row: ImageIndex, folder: Path, settings: Settings
) -> Generator[int]:
    """Make Milvus hold an index of a whole folder, where it does not; yields rows that are there.

    Raises VectorsAway. What is cut off is gone on with by the next call.
    """
    if row.vectors == FAISS:
        return
    manifest = read_manifest(folder)
    with database.session() as session:
        name = f"{own_prefix(session)}{row.id}_{manifest.vectors_sha256[:12]}"
        session.add(row)
        row.milvus_name = name
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    with _explained(), _opened(row.vectors, settings) as milvus:
        yield from fill_collection(milvus, name, vectors=vectors, fields=read_fields(folder))


class Searchers:
    """The Milvuses that this process is connected to."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._milvuses: dict[str, Milvus] = {}
        self._lock = Lock()

    def find(self, row: ImageIndex, folder: Path, vectors: Floats) -> "ExplainedSearcher | None":
        """What searches a ready index of these vectors, None where FAISS does."""
        if row.milvus_name is None:
            return None
        with self._lock:
            milvus = self._milvuses.get(row.vectors)
            if milvus is None:
                milvus = self._milvuses[row.vectors] = _connect(row.vectors, self._settings)
        return ExplainedSearcher(
            MilvusSearcher(milvus, row.milvus_name, vectors=vectors, fields=read_fields(folder))
        )

    def close(self) -> None:
        """Let go of all connections."""
        with self._lock:
            while self._milvuses:
                self._milvuses.popitem()[1].close()


class ExplainedSearcher:
    """A searcher by Milvus, whose errors are sentences for people."""

    def __init__(self, searcher: MilvusSearcher) -> None:
        self._searcher = searcher

    @property
    def memory_bytes(self) -> int:
        """As the engine's."""
        return self._searcher.memory_bytes

    def score_all(self, weights: Floats) -> Floats:
        """As the engine's."""
        return self._searcher.score_all(weights)

    def find_nearest(
        self,
        queries: Floats,
        count: int,
        rows: Integers | None,
    ) -> Integers:
        """As the engine's."""
        with _explained():
            return self._searcher.find_nearest(queries, count, rows)

    def find_ranked(
        self,
        weights: Floats,
        bias: float,
        *,
        top: int,
        line: int,
        closed: Integers,
        rows: Integers | None,
    ) -> Integers:
        """As the engine's."""
        with _explained():
            return self._searcher.find_ranked(
                weights, bias, top=top, line=line, closed=closed, rows=rows
            )


def drop_vectors(session: Session, collection_id: int, settings: Settings) -> None:
    """Remove what Milvus holds of a collection that goes; of one that is away `gc` does it."""
    rows = session.execute(
        select(ImageIndex.vectors, ImageIndex.milvus_name)
        .filter_by(collection_id=collection_id)
        .where(ImageIndex.milvus_name.startswith(own_prefix(session), autoescape=True))
    ).all()
    for vectors in {vectors for vectors, _ in rows}:
        with suppress(VectorEngineAway), _opened(vectors, settings) as milvus:
            for name in [name for place, name in rows if place == vectors]:
                milvus.drop(name or "")


def list_leftover_vectors(session: Session, settings: Settings) -> list[tuple[str, str]]:
    """Place and name of each collection in Milvus that no index of this installation needs.

    An index is outdone by a newer one of the same embedder: rounds that came from it are repeated
    from its own vectors. Of a Milvus that is away nothing is known.
    """
    places = {*session.scalars(select(ImageIndex.vectors).distinct())}
    places |= {*session.scalars(select(Collection.vectors).distinct())}
    if _lite_path(settings).exists():
        places.add(LITE)
    Newer = aliased(ImageIndex)
    is_outdone = exists().where(
        Newer.collection_id == ImageIndex.collection_id,
        Newer.embedder == ImageIndex.embedder,
        Newer.state == "ready",
        Newer.id > ImageIndex.id,
    )
    prefix = own_prefix(session)
    found = []
    for vectors in sorted(places - {FAISS}):
        with suppress(VectorEngineAway), _opened(vectors, settings) as milvus:
            found += [(vectors, name) for name in milvus.list_collections(prefix)]
    # Read after the names: what comes after may be of a row that nobody sees yet.
    rows = session.execute(select(ImageIndex.vectors, ImageIndex.milvus_name).where(~is_outdone))
    needed = {(vectors, name) for vectors, name in rows}
    return [one for one in found if one not in needed]


def remove_leftover_vectors(session: Session, settings: Settings) -> int:
    """Remove them; returns how many."""
    leftovers = list_leftover_vectors(session, settings)
    for vectors, name in leftovers:
        for row in session.scalars(select(ImageIndex).filter_by(milvus_name=name)):
            row.milvus_name = None
        with _explained(), _opened(vectors, settings) as milvus:
            milvus.drop(name)
    return len(leftovers)


def describe_vectors(vectors: str) -> str:
    """By what a collection is searched, for admins."""
    if vectors == FAISS:
        return "FAISS, on this machine"
    if vectors == LITE:
        return "milvus-lite, in the data folder"
    return f"Milvus at {vectors.removeprefix('milvus:')}"


def _advise(vectors: str) -> str:
    """What to know before choosing it."""
    if vectors == FAISS:
        return "The usual one: quick, and nothing else has to run."
    if vectors == LITE:
        return "For tries with up to some ten thousand images: with more, each round takes seconds."
    return (
        "A Milvus of your site. It is sent what each image looks like, and exactly when and where "
        "it was taken. While it does not answer, nothing can be searched."
    )


def own_prefix(session: Session) -> str:
    """What names begin with that this installation gives, and no copy of it made by a backup."""
    own = session.scalar(
        text("SELECT system_identifier || '/' || current_database() FROM pg_control_system()")
    )
    return f"rarefind_{sha256(str(own).encode()).hexdigest()[:10]}_"


def _lite_path(settings: Settings) -> Path:
    return settings.home / "milvus" / "lite.db"


def _connect(vectors: str, settings: Settings) -> Milvus:
    if vectors == LITE:
        return Milvus(str(_lite_path(settings)))
    token = settings.milvus_token
    return Milvus(vectors.removeprefix("milvus:"), token.get_secret_value() if token else None)


@contextmanager
def _opened(vectors: str, settings: Settings) -> Iterator[Milvus]:
    milvus = _connect(vectors, settings)
    try:
        yield milvus
    finally:
        milvus.close()


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except EngineError as error:
        raise VectorsAway(str(error)) from error
