"""What the JSON API takes and gives. Numbers of things are ids; shares are from 0 to 1."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

LARGEST_ID = 2**63 - 1  # of PostgreSQL's bigint

Id = Annotated[int, Path(ge=1, le=LARGEST_ID)]
IdInBody = Annotated[int, Field(ge=1, le=LARGEST_ID)]
AnswerValue = Literal["yes", "no", "unsure"]
GestureKey = Annotated[
    str | None,
    Field(
        pattern=r"^[\w-]{1,64}$",
        description="Any name of your own for this one request: sent again, it changes nothing.",
    ),
]


SeenPath = Annotated[
    str,
    Field(
        description="Alike wherever an image is named: without its folders where these may be "
        "labels, whoever asks. Such a name may be that of several images: image_id tells them "
        "apart."
    ),
]


class Taken(BaseModel):
    """A body: a field that nobody knows is a mistake, and said to be one."""

    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """What every error looks like."""

    error: str = Field(description="The kind of situation, e.g. RoundAlreadyAnswered.")
    title: str
    detail: str = Field(description="What happened and what to do, as a sentence.")


class CollectionModel(BaseModel):
    """A collection of images."""

    collection_id: int
    name: str
    notice: str | None = Field(description="Must be shown with its images, e.g. “synthetic”.")
    image_count: int


class ImageModel(BaseModel):
    """One image; its pixels are at /images/{image_id}/small, /large and /original."""

    image_id: int
    path: SeenPath
    full_path: str | None = Field(
        description="With its folders, also where these may be labels; null if so and you may not "
        "see known labels. By it they are matched, and not by path."
    )
    sha256: str
    width: int
    height: int
    tags: list[str]
    captured_at: datetime | None = Field(description="Camera-local: no time zone is known.")


Where = Annotated[
    list[str],
    Field(
        description="A filter, each part as KEY=VALUE: from=2026-05-01, hour_from=20, month=12-2, "
        "south=50.1 with the other three sides, deployment=A3, folder=site-3/may, is.COLUMN=…, "
        "has.COLUMN=…, min.COLUMN=…, max.COLUMN=…, given=none, answer=no:12. "
        "Of one key given twice either holds."
    ),
]


class OpenSearch(Taken):
    """What opens a search."""

    target_name: str
    counts_as_yes: str = ""
    words: str = Field("", description="What it looks like; with them, examples may be left out.")
    image_ids: list[IdInBody] = Field([], description="Examples; answered yes at once.")
    embedder: str | None = Field(
        None, description="Names the index; without it the newest that can do what is asked."
    )
    strategy: str | None = Field(None, description="Without it, the recommended one.")
    round_size: int | None = Field(None, description="Images a round, 6 to 48; without it 12.")
    seed: int | None = Field(
        None, ge=0, lt=2**31, description="For searches that must repeat; drawn without it."
    )
    where: Where = []


class IndexModel(BaseModel):
    """A ready index of a collection; its embedder names it."""

    embedder: str
    knows_words: bool = Field(description="Whether a search can be opened by words on it.")
    image_count: int
    dimension: int


class MoveSearch(Taken):
    """Where the next rounds of a search come from."""

    embedder: str


class NoteModel(BaseModel):
    """A note on an image or a search, as it stands."""

    note_id: int
    text: str
    by: str
    at: datetime = Field(description="When it was written.")
    changed_at: datetime | None = Field(description="When its author changed it last.")


class RemarksModel(BaseModel):
    """What stands on an image or a search."""

    tags: list[str]
    notes: list[NoteModel]


class ChangeRemarks(Taken):
    """Tags and notes to add or to take away; what is not named stays."""

    add_tags: list[str] = Field([], description="Short words; kept in small letters.")
    remove_tags: list[str] = []
    add_note: str | None = None
    change_note: dict[IdInBody, str] = Field(
        {}, description="Another text for notes of your own, by note_id."
    )
    remove_notes: list[IdInBody] = Field([], description="Notes of your own, by note_id.")


class TagImages(Taken):
    """Tags for many images of a collection at once."""

    image_ids: list[IdInBody]
    add_tags: list[str] = []
    remove_tags: list[str] = []


class TaggedImages(BaseModel):
    """Which images were changed: those that had the tags already are left out."""

    image_ids: list[int]


class CardModel(BaseModel):
    """One image of a round."""

    image_id: int
    position: int
    path: SeenPath
    width: int
    height: int
    answer: AnswerValue | None
    no_reason: str | None = Field(description="Why it is a no, where that was said.")
    reason: str = Field(description="Why it is shown.")
    score: float
    probability: float | None
    event_ids: list[int] = Field(
        description="All images of its event, this one too; empty where it is alone."
    )


class RoundModel(BaseModel):
    """The round to answer now."""

    round_id: int
    number: int
    images: list[CardModel]
    found: int = Field(description="Images answered yes, examples included.")
    found_events: int | None = Field(description="Events of them; null where none are known.")
    answered: int
    can_undo: bool
    can_redo: bool
    proposing_ms: float = Field(description="What choosing this round took on the server.")


class SearchModel(BaseModel):
    """A search, without its round."""

    search_id: int
    collection_id: int
    target_name: str
    words: str = Field(description="That opened it; empty without any.")
    embedder: str = Field(description="Of the index that its next round comes from.")
    counts_as_yes: str
    strategy: str
    round_size: int
    seed: int
    no_reasons: list[str] = Field(description="What a no may be given as its reason.")
    tags: list[str]
    where: Where


class OpenedSearch(SearchModel):
    """A search that was just opened."""

    image_count: int = Field(description="Images that its filter keeps; without one all.")
    left_out: int = Field(description="Images that its filter leaves out.")

    round: RoundModel


class GiveAnswers(Taken):
    """Answers to images of a round; null takes one back."""

    round_id: IdInBody
    answers: dict[IdInBody, AnswerValue | None] = {}
    reasons: dict[IdInBody, str] = Field(
        {},
        description="Why, for images answered no here: one of the search's no_reasons. “too-poor” "
        "and “empty” train nothing, unless the search's settings ask for it.",
    )
    alone: list[IdInBody] = Field(
        [], description="Those of the images whose answer is not for all of their event."
    )
    gesture_key: GestureKey = None


class SubmitAnswers(GiveAnswers):
    """The last answers of a round."""

    rest_are_no: bool = Field(
        False,
        description="Answer no for every image without an answer. Where it is given, it is "
        "remembered as your choice in this search, which the browser begins with.",
    )


class GivenAnswers(BaseModel):
    """What stands now for the images named."""

    answers: dict[int, AnswerValue | None]
    reasons: dict[int, str] = Field(description="Of those answered no, where one was given.")
    stale: bool = Field(description="The round had been submitted: kept as corrections.")


class SubmittedRound(BaseModel):
    """What a submit led to."""

    already: bool = Field(description="It had been submitted before; nothing was doubled.")
    round: RoundModel


class Gesture(Taken):
    """A request that changes something."""

    gesture_key: GestureKey = None


class StepModel(BaseModel):
    """One step taken back or done again; no sentence when the gesture is a repeated one."""

    sentence: str | None
    round: RoundModel


class ResultModel(BaseModel):
    """One image of the results."""

    image_id: int
    path: SeenPath
    answer: AnswerValue | None
    no_reason: str | None
    answered_by: str | None
    answered_at: datetime | None
    round_number: int | None
    score: float | None
    probability: float | None
    tags: list[str]
    notes: list[NoteModel]


class ResultsModel(BaseModel):
    """A page of results."""

    show: str
    images: list[ResultModel]
    total: int
    page: int
    pages: int
    counts: dict[str, int]


class AskForExport(Taken):
    """An export to be made as a file."""

    search_id: IdInBody
    name: str = Field(description="Such as pictures.zip, camtrap-dp.zip or images.csv.")


class ExportModel(BaseModel):
    """An export that was asked for."""

    export_id: int
    search_id: int
    name: str
    state: Literal["waiting", "running", "ready", "stopped", "failed"]
    problem: str | None = Field(description="Why it failed, as a sentence.")
    size_bytes: int | None
    file: str | None = Field(
        description="Where to download it once it is ready; takes Range, so that a download that "
        "broke off goes on."
    )
    kept_until: datetime | None
