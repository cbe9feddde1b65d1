"""COCO in the dialect of COCO Camera Traps: labels of whole images, without boxes.

Source: the COCO format (cocodataset.org) and COCO Camera Traps, S. Beery et al., "Recognition in
Terra Incognita", ECCV 2018, whose fields for place and time are used.
"""

import json
from collections.abc import Iterator
from datetime import datetime

from sqlalchemy.orm import Session

from app.answers import read_current_answers
from app.exports.details import LICENCE_ADDRESSES, read_details
from app.exports.rows import list_notes, read_naming
from app.exports.sightings import read_sightings
from app.remarks import read_remarks_of_images
from app.sensitive import EXACT
from app.tables import Search

TARGET_ID = 1


def write_coco(session: Session, search: Search, *, now: datetime) -> Iterator[str]:
    """Images answered yes (with an annotation) and no (without). Unsure ones are left out."""
    details = read_details(search)
    naming = read_naming(session, search.collection_id)
    answers = read_current_answers(session, search)
    among = [image_id for image_id, value in answers.items() if value != "unsure"]
    head: dict[str, object] = {
        "info": {
            "description": f"{search.target_name} in {search.collection.name}: an image without an "
            "annotation was answered no. Unsure answers are left out. Labels are of whole images.",
            "version": "1.0",
            "year": now.year,
            "date_created": now.isoformat(timespec="seconds"),
            "contributor": details.rights_holder,
        },
        "licenses": (
            [{"id": 1, "name": details.licence, "url": LICENCE_ADDRESSES[details.licence]}]
            if details.licence
            else []
        ),
        "categories": [
            {
                "id": TARGET_ID,
                "name": search.target_name,
                "scientific_name": details.scientific_name,
            }
        ],
    }
    yield json.dumps(head, ensure_ascii=False)[:-1] + ', "images": ['
    remarks = read_remarks_of_images(session, among)
    found: list[dict[str, object]] = []
    for number, sighting in enumerate(read_sightings(session, search, sight=EXACT, among=among)):
        image = sighting.image
        entry: dict[str, object] = {
            "id": image.id,
            "file_name": naming.path(image.path),
            "width": image.width,
            "height": image.height,
            "sha256": image.sha256,
            "location": naming.folder(image.path),
        }
        if details.licence:
            entry["license"] = 1
        if written := remarks.get(image.id):
            entry |= {"tags": written.tags, "notes": list_notes(written)}
        if image.captured_at is not None:
            taken = image.captured_at.isoformat(sep=" ", timespec="seconds")
            entry |= {"date_captured": taken, "datetime": taken}
        yield ("," if number else "") + "\n" + json.dumps(entry, ensure_ascii=False)
        if sighting.answer == "yes":
            found.append({"id": len(found) + 1, "image_id": image.id, "category_id": TARGET_ID})
    yield '\n], "annotations": ' + json.dumps(found) + "}\n"
