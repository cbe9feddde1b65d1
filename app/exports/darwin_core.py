"""A Darwin Core archive: events with their effort, and occurrences in them.

An event is a deployment some of whose images were looked at. Every yes is an occurrence. An absence
is stated only where it was looked for everywhere: every image of the deployment was answered no.
Source: the Darwin Core text guide and terms, dwc.tdwg.org; the event core as GBIF reads it.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from xml.etree import ElementTree  # nosec B405 # it writes, and reads nothing

from sqlalchemy.orm import Session

from app.answers import read_current_answers
from app.exports.archives import Parts
from app.exports.details import LICENCE_ADDRESSES, ExportDetails, read_details
from app.exports.rows import read_naming, write_csv
from app.exports.sightings import (
    Deployment,
    Place,
    find_place,
    list_deployments,
    read_sightings,
)
from app.sensitive import Sight
from app.tables import Search

TERMS = "http://rs.tdwg.org/dwc/terms/"
DUBLIN_CORE = "http://purl.org/dc/terms/"
EVENT = [
    *("eventID", "eventDate", "samplingProtocol", "sampleSizeValue", "sampleSizeUnit"),
    *("samplingEffort", "locality", "decimalLatitude", "decimalLongitude", "geodeticDatum"),
    *("coordinateUncertaintyInMeters", "coordinatePrecision", "dataGeneralizations"),
]
OCCURRENCE = [
    *("eventID", "occurrenceID", "basisOfRecord", "occurrenceStatus", "scientificName"),
    *("vernacularName", "eventDate", "identifiedBy", "dateIdentified"),
    *("identificationVerificationStatus", "associatedMedia", "occurrenceRemarks"),
    *("license", "rightsHolder"),
]

Cells = Iterator[dict[str, object]]


def darwin_core_parts(session: Session, search: Search, *, now: datetime, sight: Sight) -> Parts:
    """The files of the archive. Needs a scientific name."""
    details = read_details(search)
    deployments = {
        place: one
        for place, one in list_deployments(session, search, sight=sight).items()
        if one.yes or one.no or one.unsure
    }
    yield "meta.xml", [describe_archive()]
    yield "eml.xml", [describe_data_set(search, details, now)]
    yield "event.csv", write_csv(EVENT, events(search, deployments, sight))
    yield (
        "occurrence.csv",
        write_csv(OCCURRENCE, occurrences(session, search, details, deployments, sight)),
    )


def events(search: Search, deployments: dict[Place, Deployment], sight: Sight) -> Cells:
    """Every deployment that was looked at, with how many of its images were."""
    for one in deployments.values():
        looked = one.yes + one.no + one.unsure
        placed = one.latitude is not None
        yield {
            "eventID": name_event(search, one),
            "eventDate": say_interval(one),
            "samplingProtocol": "images of a camera, looked at by people in order of likelihood",
            "sampleSizeValue": looked,
            "sampleSizeUnit": "images looked at",
            "samplingEffort": f"{looked} of {one.images} images looked at",
            "locality": one.locality,
            "decimalLatitude": one.latitude if placed else "",
            "decimalLongitude": one.longitude if placed else "",
            "geodeticDatum": "EPSG:4326" if placed else "",
            "coordinateUncertaintyInMeters": sight.uncertainty_m(one.latitude or 0.0)
            if placed
            else "",
            "coordinatePrecision": sight.grid if placed else "",
            "dataGeneralizations": sight.generalization if placed else "",
        }


def occurrences(
    session: Session,
    search: Search,
    details: ExportDetails,
    deployments: dict[Place, Deployment],
    sight: Sight,
) -> Cells:
    """Every yes as present, and absent for each deployment all of whose images were answered no."""
    shared: dict[str, object] = {
        "scientificName": details.scientific_name,
        "vernacularName": search.target_name,
        "license": LICENCE_ADDRESSES.get(details.licence, ""),
        "rightsHolder": details.rights_holder,
    }
    naming = read_naming(session, search.collection_id)
    answers = read_current_answers(session, search)
    among = [image_id for image_id, value in answers.items() if value == "yes"]
    for sighting in read_sightings(session, search, sight=sight, among=among):
        image = sighting.image
        yield shared | {
            "eventID": name_event(search, deployments[find_place(sighting, naming)]),
            "occurrenceID": f"urn:sha256:{image.sha256}",
            "basisOfRecord": "MachineObservation",
            "occurrenceStatus": "present",
            "eventDate": image.captured_at.isoformat(timespec="seconds")
            if image.captured_at
            else "",
            "identifiedBy": sighting.who,
            "dateIdentified": sighting.at.astimezone(UTC).isoformat(timespec="seconds")
            if sighting.at
            else "",
            "identificationVerificationStatus": "identified by a person",
            "associatedMedia": naming.path(image.path),
        }
    for one in deployments.values():
        if one.no == one.images:
            yield shared | {
                "eventID": name_event(search, one),
                "occurrenceID": f"{name_event(search, one)}:absent",
                "basisOfRecord": "MachineObservation",
                "occurrenceStatus": "absent",
                "eventDate": say_interval(one),
                "occurrenceRemarks": f"all {one.images} images were answered no",
            }


def name_event(search: Search, deployment: Deployment) -> str:
    """An event's identifier within the archive."""
    return f"rarefind:{search.id}:{deployment.name}"


def say_interval(deployment: Deployment) -> str:
    """From the first image to the last, in camera-local time without an offset."""
    if deployment.first_at is None or deployment.last_at is None:
        return ""
    first, last = (
        at.isoformat(timespec="seconds") for at in (deployment.first_at, deployment.last_at)
    )
    return first if first == last else f"{first}/{last}"


def describe_archive() -> str:
    """The archive's meta.xml: which file holds which terms."""
    archive = ElementTree.Element(
        "archive", {"xmlns": "http://rs.tdwg.org/dwc/text/", "metadata": "eml.xml"}
    )
    for kind, term, header in (("core", "Event", EVENT), ("extension", "Occurrence", OCCURRENCE)):
        table = ElementTree.SubElement(
            archive,
            kind,
            {
                "encoding": "UTF-8",
                "fieldsTerminatedBy": ",",
                "linesTerminatedBy": "\\r\\n",
                "fieldsEnclosedBy": '"',
                "ignoreHeaderLines": "1",
                "rowType": TERMS + term,
            },
        )
        files = ElementTree.SubElement(table, "files")
        ElementTree.SubElement(files, "location").text = f"{term.lower()}.csv"
        ElementTree.SubElement(table, "id" if kind == "core" else "coreid", {"index": "0"})
        for column, name in enumerate(header):
            if kind == "core" or column:
                home = DUBLIN_CORE if name in ("license", "rightsHolder") else TERMS
                ElementTree.SubElement(table, "field", {"index": str(column), "term": home + name})
    return write_xml(archive)


def describe_data_set(search: Search, details: ExportDetails, now: datetime) -> str:
    """The archive's eml.xml: what the data are, and whose."""
    eml = ElementTree.Element(
        "eml:eml",
        {
            "xmlns:eml": "eml://ecoinformatics.org/eml-2.1.1",
            "packageId": f"rarefind-search-{search.id}",
            "system": "Rarefind",
        },
    )
    data_set = ElementTree.SubElement(eml, "dataset")
    ElementTree.SubElement(
        data_set, "title"
    ).text = f"{search.target_name} in {search.collection.name}"
    add_party(data_set, "creator", details.rights_holder or search.owner.name)
    add_party(data_set, "metadataProvider", search.owner.name)
    ElementTree.SubElement(data_set, "pubDate").text = now.date().isoformat()
    ElementTree.SubElement(data_set, "language").text = "eng"
    abstract = ElementTree.SubElement(data_set, "abstract")
    ElementTree.SubElement(abstract, "para").text = (
        "Occurrences found by people among the images of a collection, which were chosen for them "
        "by a classifier that learnt from their answers. An event is one deployment of a camera, "
        "or where none is recorded one folder of images, at one place; its effort is how many of "
        "its images were looked at. Times are those of the cameras' clocks, set right where a "
        "camera's was known to be wrong."
    )
    if details.licence:
        rights = ElementTree.SubElement(data_set, "intellectualRights")
        ElementTree.SubElement(rights, "para").text = LICENCE_ADDRESSES[details.licence]
    add_party(data_set, "contact", details.rights_holder or search.owner.name)
    return write_xml(eml)


def add_party(parent: ElementTree.Element, role: str, name: str) -> None:
    """A person or organisation of a data set."""
    party = ElementTree.SubElement(parent, role)
    ElementTree.SubElement(party, "organizationName").text = name


def write_xml(root: ElementTree.Element) -> str:
    """An element as a document."""
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"
