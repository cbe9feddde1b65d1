"""Camtrap DP 1.0: deployments, media and observations as a data package.

Only images with place and time are in it, for the standard takes no others. A yes is an animal, an
unsure one unknown; a no says only what an image does not show, so it is no observation: not blank.
Observations of one event of a deployment share its eventID, and its first and last time.
Source: the standard's own pages, camtrap-dp.tdwg.org, version 1.0.2.
"""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from app.exports.archives import Parts
from app.exports.details import ExportDetails, read_details
from app.exports.rows import read_naming, write_csv
from app.exports.sightings import (
    Deployment,
    Place,
    find_place,
    list_deployments,
    list_spans,
    read_sightings,
)
from app.sensitive import Sight
from app.tables import Image, Search

STANDARD = "https://raw.githubusercontent.com/tdwg/camtrap-dp/1.0.2"
FOLDER = "media"  # where the package looks for the images, which are not in it
DEPLOYMENTS = [
    "deploymentID",
    "locationID",
    "locationName",
    "latitude",
    "longitude",
    "coordinateUncertainty",
    "deploymentStart",
    "deploymentEnd",
    "setupBy",
    "cameraID",
    "cameraModel",
    "cameraDelay",
    "cameraHeight",
    "cameraDepth",
    "cameraTilt",
    "cameraHeading",
    "detectionDistance",
    "timestampIssues",
    "baitUse",
    "featureType",
    "habitat",
    "deploymentGroups",
    "deploymentTags",
    "deploymentComments",
]
MEDIA = [
    "mediaID",
    "deploymentID",
    "captureMethod",
    "timestamp",
    "filePath",
    "filePublic",
    "fileName",
    "fileMediatype",
    "exifData",
    "favorite",
    "mediaComments",
]
OBSERVATIONS = [
    "observationID",
    "deploymentID",
    "mediaID",
    "eventID",
    "eventStart",
    "eventEnd",
    "observationLevel",
    "observationType",
    "cameraSetupType",
    "scientificName",
    "count",
    "lifeStage",
    "sex",
    "behavior",
    "individualID",
    "individualPositionRadius",
    "individualPositionAngle",
    "individualSpeed",
    "bboxX",
    "bboxY",
    "bboxWidth",
    "bboxHeight",
    "classificationMethod",
    "classifiedBy",
    "classificationTimestamp",
    "classificationProbability",
    "observationTags",
    "observationComments",
]
TYPES = {"yes": "animal", "unsure": "unknown"}

Cells = Iterator[dict[str, object]]


def camtrap_dp_parts(session: Session, search: Search, *, now: datetime, sight: Sight) -> Parts:
    """The files of the package. Needs a scientific name, a UTC offset and how images were taken."""
    details = read_details(search)
    deployments = {
        place: one
        for place, one in list_deployments(session, search, sight=sight).items()
        if one.latitude is not None and one.first_at is not None
    }

    naming = read_naming(session, search.collection_id)

    def read_images() -> Iterator[tuple[Image, str, str, str, str | None, datetime | None]]:
        for sighting in read_sightings(session, search, sight=sight):
            image = sighting.image
            deployment = deployments.get(find_place(sighting, naming))
            if deployment is not None and image.captured_at is not None:
                taken = add_offset(image.captured_at, details)
                answer, who, at = sighting.answer, sighting.who or "", sighting.at
                yield image, deployment.name, taken, who, answer, at

    named = {place: one.name for place, one in deployments.items()}
    events = list_spans(session, search, named, sight=sight)

    def media() -> Cells:
        capture = "" if details.capture == "both" else details.capture
        for image, deployment, taken, *_ in read_images():
            yield {
                "mediaID": str(image.id),
                "deploymentID": deployment,
                "captureMethod": capture,
                "timestamp": taken,
                "filePath": f"{FOLDER}/{naming.path(image.path)}".replace(
                    "..", "%2E%2E"
                ),  # it allows no two
                "filePublic": "false",
                "fileName": image.path.rsplit("/", 1)[-1],
                "fileMediatype": f"image/{image.format.lower()}",
            }

    def observations() -> Cells:
        for image, deployment, taken, who, answer, at in read_images():
            if answer in TYPES and at is not None:
                span = events.get(image.id)
                yield {
                    "observationID": f"{image.id}-{answer}",
                    "deploymentID": deployment,
                    "mediaID": str(image.id),
                    "eventID": str(image.id) if span is None else span.name,
                    "eventStart": taken if span is None else add_offset(span.first_at, details),
                    "eventEnd": taken if span is None else add_offset(span.last_at, details),
                    "observationLevel": "media",
                    "observationType": TYPES[answer],
                    "scientificName": details.scientific_name if answer == "yes" else "",
                    "classificationMethod": "human",
                    "classifiedBy": who,
                    "classificationTimestamp": at.astimezone(UTC).isoformat(timespec="seconds"),
                    "observationTags": "" if answer == "yes" else "unsure",
                }

    tables: tuple[tuple[str, list[str], Callable[[], Cells]], ...] = (
        ("deployments", DEPLOYMENTS, lambda: describe_deployments(deployments, details, sight)),
        ("media", MEDIA, media),
        ("observations", OBSERVATIONS, observations),
    )
    descriptor = describe_package(search, details, list(deployments.values()), now, sight)
    yield "datapackage.json", [json.dumps(descriptor, ensure_ascii=False, indent=2) + "\n"]
    for name, header, rows in tables:
        yield f"{name}.csv", write_csv(header, rows())


def describe_deployments(
    deployments: dict[Place, Deployment], details: ExportDetails, sight: Sight
) -> Cells:
    """The rows of deployments.csv; a deployment lasts from its first image to its last."""
    for one in deployments.values():
        if one.first_at is not None and one.last_at is not None:
            yield {
                "deploymentID": one.name,
                "locationName": one.locality,
                "latitude": one.latitude,
                "longitude": one.longitude,
                "coordinateUncertainty": sight.uncertainty_m(one.latitude or 0.0) or "",
                "deploymentStart": add_offset(one.first_at, details),
                "deploymentEnd": add_offset(one.last_at, details),
                "cameraModel": one.camera or "",
                "deploymentComments": sight.generalization,
            }


def describe_package(
    search: Search,
    details: ExportDetails,
    deployments: list[Deployment],
    now: datetime,
    sight: Sight,
) -> dict[str, object]:
    """The package's datapackage.json."""
    contributors = [{"title": search.owner.name, "role": "contributor"}]
    if details.rights_holder:
        contributors.append({"title": details.rights_holder, "role": "rightsHolder"})
    methods = ["activityDetection", "timeLapse"] if details.capture == "both" else [details.capture]
    first = min(one.first_at for one in deployments if one.first_at is not None)
    last = max(one.last_at for one in deployments if one.last_at is not None)
    package: dict[str, object] = {
        "resources": [
            {
                "name": name,
                "path": f"{name}.csv",
                "profile": "tabular-data-resource",
                "format": "csv",
                "mediatype": "text/csv",
                "encoding": "utf-8",
                "schema": f"{STANDARD}/{name}-table-schema.json",
            }
            for name in ("deployments", "media", "observations")
        ],
        "profile": f"{STANDARD}/camtrap-dp-profile.json",
        "name": f"rarefind-search-{search.id}",
        "created": now.astimezone(UTC).isoformat(timespec="seconds"),
        "title": f"{search.target_name} in {search.collection.name}",
        "contributors": contributors,
        "description": "A deployment is one that is recorded, else one folder of images, at one "
        "place, from its first image to its last. Images without an observation were answered no "
        "or not looked at.",
        "project": {
            "title": search.collection.name,
            "samplingDesign": details.design,
            "captureMethod": methods,
            "individualAnimals": False,
            "observationLevel": ["media"],
        },
        "spatial": {
            "type": "MultiPoint",
            "coordinates": [[one.longitude, one.latitude] for one in deployments],
        },
        "temporal": {"start": first.date().isoformat(), "end": last.date().isoformat()},
        "taxonomic": [{"scientificName": details.scientific_name}],
    }
    if sight.grid is not None:
        package["coordinatePrecision"] = sight.grid
    if details.licence:
        package["licenses"] = [
            {"name": details.licence, "scope": scope} for scope in ("data", "media")
        ]
    return package


def add_offset(at: datetime, details: ExportDetails) -> str:
    """A camera's local time with the difference from UTC that people said its clock had."""
    return at.isoformat(timespec="seconds") + details.utc_offset
