"""Weight files: found in a folder or in the hub's cache, fetched when asked, and their checksums.

Does not import torch.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from app.engine import EngineError

ENDINGS = (".safetensors", ".pt", ".pth", ".bin")  # what is read without running code from it
# As files are called in the hub's repositories, the safer format first.
OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
TIMM_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


class UnknownEmbedder(EngineError):
    """A name that stands for no embedder."""


class WeightsMissing(EngineError):
    """A file that is neither here nor, or not with leave, to be fetched."""


class WeightsNotUsable(EngineError):
    """Weights that are not those of the model they were meant for."""


@dataclass(frozen=True)
class HubFile:
    """A file of a repository on the Hugging Face hub; of several `names` the first that is there.

    `repository` is OWNER/NAME.
    """

    repository: str
    names: tuple[str, ...]


def find_file(file: HubFile, folder: Path | None) -> Path | None:
    """Where a file is on this machine: `folder`/OWNER/NAME/FILE, else in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    if folder is not None:
        for name in file.names:
            path = folder / file.repository / name
            if path.is_file():
                return path
    for name in file.names:
        cached = try_to_load_from_cache(file.repository, name)
        if isinstance(cached, str):
            return Path(cached)
    return None


def get_files(
    files: Iterable[HubFile], embedder: str, *, folder: Path | None, may_fetch: bool
) -> list[Path]:
    """Find the files that `embedder` needs, or fetch them to the hub's cache with a progress bar.

    Raises WeightsMissing, which says what to put where.
    """
    paths = {file: find_file(file, folder) for file in files}
    reason = "it was not asked for here"
    if may_fetch:
        try:
            paths = {file: path or _fetch(file) for file, path in paths.items()}
        except Exception as error:  # of the network, the hub, the disk: all mean it is not here
            reason = first_line(error)
    missing = [file for file, path in paths.items() if path is None]
    if missing:
        place = missing[0].repository
        what = " and ".join(file.names[0] for file in missing)
        raise WeightsMissing(
            f"{embedder} needs {what} from huggingface.co/{place}, and can't fetch it ({reason}). "
            "Fetch it where there is a network, and put it into "
            f"{place + ' in the weights folder' if folder is None else folder / place}."
        )
    return [path for path in paths.values() if path is not None]


def get_local_file(place: str, embedder: str, *, folder: Path | None) -> Path:
    """The weight file at a path that a name gives, which may be relative to the weights folder.

    Raises WeightsMissing, and WeightsNotUsable for a format that is not read.
    """
    path = Path(place).expanduser()
    if not path.is_absolute() and folder is not None:
        path = folder / path
    if path.suffix not in ENDINGS:
        raise WeightsNotUsable(
            f"The weights of {embedder} must be a file with the ending {', '.join(ENDINGS)}."
        )
    if not path.is_file():
        raise WeightsMissing(f"{embedder} needs its weights at {path}, where there is no file.")
    return path


def say_unknown(library: str, model: str, known: list[str]) -> str:
    """That a library has no such model, and which of those `known` have names near to it."""
    near = get_close_matches(model, known, n=5)
    return f"{library} has no model {model!r}." + (
        f" Near to it: {', '.join(near)}." if near else ""
    )


def first_line(error: Exception) -> str:
    """What an error of a library says, as a part of a sentence."""
    line = str(error).strip().partition("\n")[0].rstrip(".")
    return re.sub(r"^\[Errno -?\d+\] ", "", line) or type(error).__name__


def make_revision(embedder: str, weights: Path) -> str:
    """The name of an embedder with the first half of its weights' SHA-256.

    Hashing takes a second for 1.5 GB, a part of what loading does: nothing is remembered of it.
    """
    with weights.open("rb") as file:
        return f"{embedder}:{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"


def _fetch(file: HubFile) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    for name in file.names:
        try:
            # The download itself would try for half a minute to reach a hub that is not there.
            get_hf_file_metadata(hf_hub_url(file.repository, name))
        except EntryNotFoundError:
            continue
        return Path(hf_hub_download(file.repository, name))  # nosec B615 # an index names the checksum of its weights
    raise WeightsMissing("the hub has no such file")
