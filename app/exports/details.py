"""What exports in the field's standards need and only people know; asked once, kept by the search.

Nothing is looked up outside: names and licences stand in exports as they were typed.
"""

import re
from dataclasses import asdict, dataclass

from sqlalchemy.orm import Session

from app.adjusting import check_text
from app.errors import BadInput
from app.tables import Search

LONGEST = 200
# Identifiers of the licences that the field's archives take, and how they are called.
LICENCES = {
    "": "Not said",
    "CC0-1.0": "CC0: no rights reserved",
    "CC-BY-4.0": "CC BY 4.0: credit the author",
    "CC-BY-NC-4.0": "CC BY-NC 4.0: credit, not for profit",
}
LICENCE_ADDRESSES = {
    "CC0-1.0": "http://creativecommons.org/publicdomain/zero/1.0/legalcode",
    "CC-BY-4.0": "http://creativecommons.org/licenses/by/4.0/legalcode",
    "CC-BY-NC-4.0": "http://creativecommons.org/licenses/by-nc/4.0/legalcode",
}
CAPTURES = {
    "": "Not said",
    "activityDetection": "When something moved",
    "timeLapse": "At fixed times",
    "both": "Both",
}
DESIGNS = {
    "": "Not said",
    "simpleRandom": "At random",
    "systematicRandom": "In a regular grid, placed at random",
    "clusteredRandom": "At random, in clusters",
    "experimental": "To measure an effect",
    "targeted": "Where the target was expected",
    "opportunistic": "Where it was convenient",
}
# How people call what a format may need.
TITLES = {
    "scientific_name": "the scientific name",
    "utc_offset": "how far the cameras' clocks are from UTC",
    "capture": "when the cameras took pictures",
    "design": "how their places were chosen",
}
# +02:00, and as people write it: +2, +5:45, +0545, UTC+2. Without a sign it could be either.
OFFSET = re.compile(r"(?:UTC|GMT)? *([+-]) *(0?\d|1[0-4])(?::?([0-5]\d))?", re.IGNORECASE)


@dataclass(frozen=True)
class ExportDetails:
    """What a search's exports say of its target, its images and their rights; empty is unknown."""

    scientific_name: str = ""
    rights_holder: str = ""
    licence: str = ""  # of LICENCES
    utc_offset: str = ""  # what the cameras' clocks were set to: +02:00
    capture: str = ""  # of CAPTURES
    design: str = ""  # of DESIGNS


def read_details(search: Search) -> ExportDetails:
    """The details that a search keeps."""
    return ExportDetails(**(search.export_details or {}))


def save_details(session: Session, search: Search, given: dict[str, str]) -> ExportDetails:
    """Check details as they were typed and keep them with the search."""
    offset = _read_offset(given["utc_offset"])
    for name, known in (("licence", LICENCES), ("capture", CAPTURES), ("design", DESIGNS)):
        if given[name] not in known:
            there_are = ", ".join(one for one in known if one)
            raise BadInput(f"“{given[name]}” is no {name}. Choose one of these: {there_are}.")
    details = ExportDetails(
        scientific_name=check_line("The scientific name", given["scientific_name"]),
        rights_holder=check_line("The rights holder", given["rights_holder"]),
        licence=given["licence"],
        utc_offset=offset,
        capture=given["capture"],
        design=given["design"],
    )
    search.export_details = asdict(details)
    session.flush()
    return details


def _read_offset(text: str) -> str:
    """A difference from UTC as the standards write it: +02:00; empty where none is said."""
    text = text.strip().replace("−", "-")
    if not text:
        return ""
    if text.upper() in ("UTC", "GMT", "Z"):
        return "+00:00"
    found = OFFSET.fullmatch(text)
    if found is None:
        raise BadInput(
            f"“{text}” is not a difference from UTC. Write it as +02:00 or -05:30, or leave it "
            "empty."
        )
    sign, hours, minutes = found.groups()
    offset = f"{sign}{int(hours):02}:{minutes or '00'}"
    return "+00:00" if offset == "-00:00" else offset  # ISO 8601 has no minus there


def check_line(what: str, text: str) -> str:
    """A name on one line: it goes into cells and elements of files."""
    line = check_text(what, " ".join(text.split()), LONGEST)
    if not line.isprintable():
        raise BadInput(f"{what} holds a character that can't be kept.")
    return line
