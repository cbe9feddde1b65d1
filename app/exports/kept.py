"""What the file of a whole search holds, and how it must hang together.

A file comes from anywhere: whatever a page or the loop relies on is checked here.
"""

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import (
    AfterValidator,
    AwareDatetime,
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from app.adjusting import MAX_REASON_LENGTH
from app.engine.loop import REASONS
from app.engine.stopping import STOP_RULES
from app.errors import BadInput
from app.exports.details import ExportDetails
from app.remarks import MAX_NOTE_LENGTH, split_tags


def check_floats(data: bytes) -> bytes:
    """float32, little-endian, finite."""
    if len(data) % 4 or not len(data) or not np.isfinite(np.frombuffer(data, "<f4")).all():
        raise ValueError("no vector")
    return data


def check_reason(reason: str) -> str:
    """One of the reasons that images are shown for."""
    if reason not in REASONS:
        raise ValueError("no known reason")
    return reason


def check_rule(rule: str) -> str:
    """A stop rule's name."""
    if rule not in STOP_RULES:
        raise ValueError("no known rule")
    return rule


def check_tag(tag: str) -> str:
    """One tag, as it is kept."""
    try:
        if split_tags(tag) == [tag]:
            return tag
    except BadInput:
        pass
    raise ValueError("no tag")


Key = Annotated[int, Field(ge=1, lt=2**62)]
KeyOrNone = Annotated[int, Field(ge=0, lt=2**62)]  # 0: before all
Vector = Annotated[Base64Bytes, AfterValidator(check_floats)]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Number = Annotated[float, Field(allow_inf_nan=False)]
NoReason = Annotated[str, Field(min_length=1, max_length=MAX_REASON_LENGTH)]


class Part(BaseModel):
    """A part of the file: nothing is in it that is not named here."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)


class KeptImage(Part):
    """An image, by its content."""

    id: Key
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    path: str


class KeptIndex(Part):
    """An index that rounds came from: the image of each of its rows."""

    id: Key
    embedder: str
    revision: str
    image_ids: Annotated[list[Key], Field(min_length=1)]

    @model_validator(mode="after")
    def check(self) -> Self:
        """No image twice."""
        if len(set(self.image_ids)) < len(self.image_ids):
            raise ValueError("an image stands twice in an index")
        return self


class KeptGrouping(Part):
    """Which images were one event: each image with the first of its event."""

    id: Key
    kind: Literal["bursts", "column", "near-duplicates"]
    gap_s: Count | None
    column_name: str | None
    likeness: Number | None
    events: Annotated[list[Annotated[list[Key], Field(min_length=2)]], Field(min_length=1)]

    @model_validator(mode="after")
    def check(self) -> Self:
        """No image in two events."""
        image_ids = [image_id for event in self.events for image_id in event]
        if len(set(image_ids)) < len(image_ids):
            raise ValueError("an image stands in two events")
        return self


class KeptPool(Part):
    """The images that a filter kept, which rounds chose from."""

    id: Key
    filter: list[tuple[str, str]]
    image_ids: list[Key]
    made_at: AwareDatetime


class KeptVector(Part):
    """The vector of words or of a photo, by one embedder."""

    revision: str
    vector: Vector
    after_round_id: Key | None


class KeptExample(Part):
    """What opened the search; a photo's file stands beside, by this number."""

    id: Key
    image_id: Key | None
    words: str | None
    photo: str | None  # its name
    vectors: list[KeptVector]

    @model_validator(mode="after")
    def check(self) -> Self:
        """An image, a photo or words."""
        if [self.image_id, self.photo, self.words].count(None) != 2:
            raise ValueError("an example is one thing")
        return self


class KeptPlace(Part):
    """One image of a grid."""

    position: Count
    image_id: Key
    score: Number
    probability: Number | None
    reason: Annotated[str, AfterValidator(check_reason)]


class KeptRound(Part):
    """A round as it was proposed."""

    id: Key
    previous_id: Key | None
    number: Count
    strategy: str
    size: Count
    seed: Count
    index_id: Key
    answers_through_id: KeyOrNone
    detour_id: Key | None
    left_out_ids: list[Key] | None
    leased_ids: list[Key] | None
    learns_from_poor: bool
    learns_from_events: bool = False  # not in files of before there were events, nor the next
    grouping_id: Key | None = None
    pool_id: Key | None = None
    head_weights: Vector | None
    head_bias: Number | None
    proposing_ms: Number
    submitting_ms: Number | None
    proposed_at: AwareDatetime
    images: list[KeptPlace]

    @model_validator(mode="after")
    def check(self) -> Self:
        """Places in order, a whole head, and after the round that led here."""
        places = [place.position for place in self.images]
        if places != list(range(len(places))):
            raise ValueError("places are not in order")
        if (self.head_weights is None) != (self.head_bias is None):
            raise ValueError("half a head")
        if self.previous_id is not None and self.previous_id >= self.id:
            raise ValueError("rounds are not in order")
        return self


class KeptSeat(Part):
    """Which round a person had before them."""

    person: str
    round_id: Key


class KeptCardImage(Part):
    """A picture on the target card."""

    image_id: Key
    counts: bool
    added_at: AwareDatetime


class KeptDetour(Part):
    """Rounds that a person asked for."""

    id: Key
    person: str
    kind: Literal["gap", "estimate", "absence", "second-look", "other-embedder"]
    size: Count
    from_round_id: Key
    answers_through_id: KeyOrNone
    seed: Count
    round_number: Count
    anchor_image_id: Key | None
    other_index_id: Key | None
    pool_id: Key | None = None
    planned: list[Key] | None
    seen_again: Count | None
    beside_count: Count | None
    made_at: AwareDatetime


class KeptAction(Part):
    """One thing that a person did."""

    id: Key
    round_id: Key | None
    person: str
    kind: Literal["example", "answer", "submit", "correct", "undo", "redo", "detour"]
    reverses_id: Key | None
    next_round_id: Key | None
    at: AwareDatetime

    @model_validator(mode="after")
    def check(self) -> Self:
        """A step from round to round names both; one that takes another back names it."""
        if self.kind in ("submit", "detour") and None in (self.round_id, self.next_round_id):
            raise ValueError("a step that leads nowhere")
        if self.kind in ("undo", "redo") and self.reverses_id is None:
            raise ValueError("nothing is taken back")
        return self


class KeptAnswer(Part):
    """One answer event."""

    id: Key
    action_id: Key
    image_id: Key
    value: Literal["yes", "no", "unsure", "cleared"]
    reason: NoReason | None  # may be one that the search has no longer
    with_image_id: Key | None = None

    @model_validator(mode="after")
    def check(self) -> Self:
        """Only a no has a reason."""
        if self.reason is not None and self.value != "no":
            raise ValueError("a reason without a no")
        return self


class KeptGoal(Part):
    """A goal that was chosen."""

    person: str
    rule: Annotated[str, AfterValidator(check_rule)]
    recall: Number | None
    positives: Count | None
    coverage: Number | None
    confidence: Number
    chosen_at: AwareDatetime


class KeptNote(Part):
    """A note as it stood, on an image or, without one, on the search."""

    image_id: Key | None
    person: str
    text: Annotated[str, Field(min_length=1, max_length=MAX_NOTE_LENGTH)]
    at: AwareDatetime


class KeptTag(Part):
    """A tag as it stood, on an image or, without one, on the search."""

    image_id: Key | None
    person: str
    tag: Annotated[str, AfterValidator(check_tag)]
    at: AwareDatetime


class KeptSearch(Part):
    """All of a search."""

    format: Literal["rarefind search"] = "rarefind search"
    version: Literal[1] = 1
    exported_at: AwareDatetime
    collection: str
    target_name: str
    counts_as_yes: str
    counts_as_no: str
    no_reasons: list[str]
    learns_from_poor: bool
    learns_from_events: bool = False
    embedder: str
    strategy: str
    round_size: Count
    seed: Count
    rest_are_no: bool = False  # for versions that kept it; now each person's own, and stays here
    made_at: AwareDatetime
    details: ExportDetails
    images: list[KeptImage]
    indexes: list[KeptIndex]
    groupings: list[KeptGrouping] = []
    filter: list[tuple[str, str]] = []
    pools: list[KeptPool] = []
    examples: list[KeptExample]
    card: list[KeptCardImage]
    rounds: list[KeptRound]
    seats: Annotated[list[KeptSeat], Field(min_length=1)]
    detours: list[KeptDetour]
    actions: list[KeptAction]
    answers: list[KeptAnswer]
    goals: list[KeptGoal]
    # Not in files of earlier versions.
    notes: list[KeptNote] = []
    tags: list[KeptTag] = []

    @model_validator(mode="after")
    def check(self) -> Self:
        """Every image once."""
        keys = {image.id for image in self.images}
        if not len(keys) == len({image.sha256 for image in self.images}) == len(self.images):
            raise ValueError("an image stands twice")
        return self
