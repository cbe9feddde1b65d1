"""A trained head as a file, and such a file applied to any collection of the same embedder.

The file is JSON: with a vector of the named embedder, `score = vector · weights + bias` can be
reckoned anywhere; above the threshold means predicted positive.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from math import isfinite
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.answers import read_current_answers
from app.database import is_among
from app.engine.head import probabilities
from app.errors import BadInput, EmbedderMismatch
from app.exports.rows import ROWS_AT_A_TIME, write_csv
from app.indexes import choose_index
from app.indexing import OpenIndexes
from app.premises import read_head
from app.tables import Collection, Image, ImageIndex, Round, Search

HEADER = ["path", "sha256", "score", "probability", "predicted"]
Number = Annotated[float, Field(allow_inf_nan=False)]


class HeadFile(BaseModel):
    """What a head's file holds."""

    format: Literal["rarefind head"] = "rarefind head"
    version: Literal[1] = 1
    target: str
    counts_as_yes: str
    scientific_name: str
    collection: str  # it was trained in
    round: int  # its answers had led to
    yes: int  # answers it has learnt from, at most
    no: int
    made_at: str  # ISO 8601
    embedder: str
    revision: str  # of the embedder, with the checksum of its weights
    dimension: Annotated[int, Field(ge=1)]
    threshold: Number  # a score above it is predicted positive
    bias: Number
    weights: list[Number]


def write_head(session: Session, search: Search, *, now: datetime) -> Iterator[str]:
    """The head of the search's current round, or a sentence when it has none yet."""
    made = session.get_one(Round, search.current_round_id)
    head = read_head(made)
    if head is None:
        raise BadInput("This search has learnt nothing yet: submit a round with a yes in it first.")
    index = session.get_one(ImageIndex, made.index_id)
    answers = list(
        read_current_answers(session, search, through_id=made.answers_through_id).values()
    )
    details = search.export_details or {}
    file = HeadFile(
        target=search.target_name,
        counts_as_yes=search.counts_as_yes,
        scientific_name=details.get("scientific_name", ""),
        collection=search.collection.name,
        round=made.number,
        yes=answers.count("yes"),
        no=answers.count("no"),
        made_at=now.isoformat(timespec="seconds"),
        embedder=index.embedder,
        revision=index.revision,
        dimension=index.dimension,
        threshold=0.0,
        bias=head.bias,
        weights=head.weights.tolist(),
    )
    yield file.model_dump_json(indent=1) + "\n"


def read_head_file(data: bytes) -> HeadFile:
    """A head's file, checked."""
    try:
        file = HeadFile.model_validate(json.loads(data))
    except (ValueError, ValidationError, RecursionError) as error:
        raise BadInput(
            "This is no head of Rarefind's, or of a newer version. A head is what a search's "
            "export page offers as “head.json”."
        ) from error
    if len(file.weights) != file.dimension or not all(map(isfinite, file.weights)):
        raise BadInput("This head is damaged: it has not as many weights as it says.")
    return file


def apply_head(
    session: Session, collection: Collection, head: HeadFile, indexes: OpenIndexes
) -> Iterator[str]:
    """CSV lines of every image of a collection by a head's score, the highest first."""
    row = choose_index(session, collection.id, embedder=head.embedder)
    if (row.revision, row.dimension) != (head.revision, head.dimension):
        raise EmbedderMismatch(
            f"The head was trained on vectors of {head.revision}, but {collection.name} is "
            f"prepared with {row.revision}. Prepare it with the same weights, or train the head "
            "anew."
        )
    index = indexes.get(row)
    scores = index.scores(np.array(head.weights, dtype=np.float32), head.bias)
    order = np.argsort(-scores, kind="stable")
    chances = probabilities(scores)

    def rows() -> Iterator[dict[str, object]]:
        for start in range(0, len(order), ROWS_AT_A_TIME):
            some = order[start : start + ROWS_AT_A_TIME]
            wanted = select(Image.id, Image.path, Image.sha256).where(
                is_among(Image.id, index.image_ids[some].tolist()), Image.removed_at.is_(None)
            )
            known = {image.id: image for image in session.execute(wanted)}
            for place in some.tolist():
                image = known.get(int(index.image_ids[place]))
                if image is not None:  # it may have been removed since the index was made
                    yield {
                        "path": image.path,
                        "sha256": image.sha256,
                        "score": float(scores[place]),
                        "probability": float(chances[place]),
                        "predicted": "yes" if scores[place] > head.threshold else "no",
                    }

    return write_csv(HEADER, rows())
