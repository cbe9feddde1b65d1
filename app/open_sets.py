"""Labelled image sets that torchvision knows: fetched once, laid out for an import like any folder.

A set's files stay where torchvision puts them, `open-sets/NAME/` in the data folder; whoever has no
network puts them there by hand. Beside them lies `images/`, with a file for each image under a
number, since the sets' own names often say what is seen, and `labels.csv`.
"""

import csv
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from app.errors import BadInput, SourceNotUsable
from app.settings import Settings

PREFIX = "torchvision:"
LABELS = "labels.csv"
_TRAIN_TEST: tuple[Mapping[str, Any], ...] = ({"split": "train"}, {"split": "test"})
_THREE = ({"split": "train"}, {"split": "val"}, {"split": "test"})
_BOTH: tuple[Mapping[str, Any], ...] = ({"train": True}, {"train": False})
_WHOLE: tuple[Mapping[str, Any], ...] = ({},)
# The sets whose images have labels of a kind, with the parts that have them.
SETS: dict[str, Sequence[Mapping[str, Any]]] = {
    "Caltech101": _WHOLE,
    "Caltech256": _WHOLE,
    "CIFAR10": _BOTH,
    "CIFAR100": _BOTH,
    "CLEVRClassification": _THREE[:2],
    "Country211": ({"split": "train"}, {"split": "valid"}, {"split": "test"}),
    "DTD": _THREE,
    "EMNIST": ({"split": "balanced", "train": True}, {"split": "balanced", "train": False}),
    "EuroSAT": _WHOLE,
    "FashionMNIST": _BOTH,
    "FER2013": ({"split": "train"},),
    "FGVCAircraft": ({"split": "trainval"}, {"split": "test"}),
    "Flowers102": _THREE,
    "Food101": _TRAIN_TEST,
    "GTSRB": _TRAIN_TEST,
    "ImageNet": _THREE[:2],
    "Imagenette": _THREE[:2],
    "INaturalist": ({"version": "2021_valid"},),
    "KMNIST": _BOTH,
    "LFWPeople": ({"split": "10fold"},),
    "MNIST": _BOTH,
    "OxfordIIITPet": ({"split": "trainval"}, {"split": "test"}),
    "PCAM": _THREE,
    "Places365": ({"split": "train-standard", "small": True}, {"split": "val", "small": True}),
    "QMNIST": _BOTH,
    "RenderedSST2": _THREE,
    "SEMEION": _WHOLE,
    "StanfordCars": _TRAIN_TEST,
    "STL10": _TRAIN_TEST,
    "SUN397": _WHOLE,
    "SVHN": _TRAIN_TEST,
    "USPS": _BOTH,
}
# Where the sets keep the files of their images, and the labels, in the order of their images.
_FILES = ("_images", "_image_files", "_samples", "samples", "imgs", "data")
_TARGETS = ("_labels", "targets", "labels", "y")


@dataclass(frozen=True)
class OpenSet:
    """A set that lies ready to be imported."""

    folder: Path  # of the images
    labels: Path


def find_set(source: str) -> str | None:
    """The name of a set that a source calls, or None for any other source; BadInput if unknown."""
    if not source.startswith(PREFIX):
        return None
    name = source.removeprefix(PREFIX)
    known = {one.lower(): one for one in SETS}
    if name.lower() not in known:
        raise BadInput(
            f"torchvision has no labelled image set “{name}” that Rarefind knows. There are: "
            f"{', '.join(SETS)}."
        )
    return known[name.lower()]


def bring_set(
    name: str, settings: Settings, *, progress: Callable[[int, int], None] | None = None
) -> OpenSet:
    """Have a set on this machine, laid out: fetched if it is not there, with torchvision's own bar.

    `progress` hears how many of its images are laid out.
    """
    root = settings.home / "open-sets" / name
    root.mkdir(parents=True, exist_ok=True)
    ready = OpenSet(root / "images", root / LABELS)
    if ready.labels.exists():
        return ready
    parts = [(_name_part(part), _open_part(name, root, part)) for part in SETS[name]]
    total = sum(len(dataset) for _, dataset in parts)
    written = ready.labels.with_name(f"{LABELS}.part")
    with written.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "label"))
        done = 0
        for part, dataset in parts:
            names = _read_names(dataset)
            (ready.folder / part).mkdir(parents=True, exist_ok=True)
            for number in range(len(dataset)):
                path, label = _lay_out(dataset, number, ready.folder / part)
                writer.writerow((path.relative_to(ready.folder), _name_label(label, names)))
                done += 1
                if progress is not None and (done % 100 == 0 or done == total):
                    progress(done, total)
    written.replace(ready.labels)  # the last: with it the set is whole
    return ready


def _open_part(name: str, root: Path, part: Mapping[str, Any]) -> Any:
    """A part of a set from the disk, else from the network."""
    import torchvision.datasets

    kind = getattr(torchvision.datasets, name)
    with suppress(RuntimeError, OSError):
        return kind(str(root), **part, **_offer(kind, download=False))
    try:
        return kind(str(root), **part, **_offer(kind, download=True))
    except ImportError as error:
        raise SourceNotUsable(
            f"{name} needs a Python package that is not installed: {error}. Install it, then run "
            "this again."
        ) from error
    except Exception as error:  # of the network, of a site that is gone, of a file cut short
        raise SourceNotUsable(
            f"{name} is not on this machine and can't be fetched ({_first_line(error)}). Fetching "
            "needs a network, and that the set's own site still has it. Without one, put its files "
            f"where torchvision looks for them, in {root}, and run this again."
        ) from error


def _offer(kind: type, **options: Any) -> dict[str, Any]:
    """Those of the options that a set's class takes, by itself or through its base."""
    known = signature(kind).parameters
    takes_all = any(one.kind is one.VAR_KEYWORD for one in known.values()) and kind.__name__ in (
        "EMNIST",
        "QMNIST",
    )
    return {name: value for name, value in options.items() if name in known or takes_all}


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _name_part(part: Mapping[str, Any]) -> str:
    """A folder's name for a part: train, test, 2021_valid."""
    if "train" in part:
        return "train" if part["train"] else "test"
    return str(part.get("split") or part.get("version") or "all")


def _lay_out(dataset: Any, number: int, folder: Path) -> tuple[Path, Any]:
    """One image under its number: a link to the set's own file, or a PNG of its pixels."""
    file, label = _find_file(dataset, number), _find_label(dataset, number)
    if file is None or label is None:
        picture, told = dataset[number]
        label = told if label is None else label
    if file is None:
        path = folder / f"{number:06}.png"
        picture.save(path)
        return path, label
    path = folder / f"{number:06}{file.suffix.lower()}"
    path.unlink(missing_ok=True)
    try:
        os.link(file, path)
    except OSError:  # another disk, or one without links
        shutil.copyfile(file, path)
    return path, label


def _find_file(dataset: Any, number: int) -> Path | None:
    for own in _list_own(dataset, _FILES):
        entry = own[number]
        entry = entry[0] if isinstance(entry, tuple) else entry
        if isinstance(entry, str | Path) and Path(entry).is_file():
            return Path(entry)
    folders = getattr(dataset, "all_categories", None)
    if folders:  # iNaturalist's
        at, name = dataset.index[number]
        return Path(str(dataset.root), folders[at], name)
    return None


def _find_label(dataset: Any, number: int) -> Any:
    for own in _list_own(dataset, _FILES):
        if isinstance(own[number], tuple) and isinstance(own[number][1], int):
            return own[number][1]
    for own in _list_own(dataset, _TARGETS):
        return own[number]
    return None


def _list_own(dataset: Any, attributes: Sequence[str]) -> Iterator[Any]:
    """What a set keeps for each of its images."""
    for attribute in attributes:
        own = getattr(dataset, attribute, None)
        with suppress(TypeError):
            if own is not None and len(own) == len(dataset):
                yield own


def _read_names(dataset: Any) -> Mapping[int, str]:
    """What each number of a label is called."""
    for attribute in ("classes", "categories", "all_categories"):
        names = getattr(dataset, attribute, None)
        if names:
            return {at: one if isinstance(one, str) else one[0] for at, one in enumerate(names)}
    return {at: name for name, at in getattr(dataset, "class_to_idx", {}).items()}


def _name_label(label: Any, names: Mapping[int, str]) -> str:
    number = int(label)
    return names.get(number, str(number))
