"""Frozen models that turn pictures, and the words for them, into unit vectors.

One file a backend, behind the small protocol `Embedder`; `EMBEDDERS` is the register. Importing
this file does not import torch: worker processes that only prepare pictures stay small.

An embedder is named by its plain name in `EMBEDDERS`, or by where it comes from:
`open_clip:MODEL:TAG`, `open_clip:MODEL:FILE`, `open_clip:hf-hub:OWNER/NAME`,
`open_clip:local-dir:FOLDER`, `timm:MODEL`, `timm:MODEL:FILE`. With `@boxes` behind any of them it
is the same model, but of another revision, for it is given a part of each picture.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal, Protocol

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from app.engine.embedders.weights import (
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_WEIGHTS,
    TIMM_WEIGHTS,
    TOKENIZER_FILES,
    HubFile,
    UnknownEmbedder,
    find_file,
    get_files,
)

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]

BOXES = "@boxes"  # ends the name of an embedder that is given what detectors drew a box around

# Of a picture that is longer still, only the middle is resized: a strip of one pixel by a million
# would take gigabytes, for a square in its middle.
LONGEST_SHAPE = 40


@dataclass(frozen=True)
class Preparation:
    """What a model expects of a picture: resized, then the middle square cut out or bordered.

    `resize` says how it comes to `resize_side` pixels: the `shortest` side does, the `longest`
    does, or both do (`squash`). `crop_side` is the side of the square. `fill` is the colour of what
    the picture leaves open of it. Pixel for pixel what torchvision, OpenCLIP and timm give.
    """

    resize_side: int
    crop_side: int
    resize: Literal["shortest", "longest", "squash"] = "shortest"
    interpolation: Interpolation = "bicubic"
    fill: tuple[int, int, int] = (0, 0, 0)

    def __call__(self, picture: PIL.Image.Image) -> Pixels:
        """Prepare an upright RGB picture of any size from 1 x 1 pixel on.

        Returns (crop_side, crop_side, 3) uint8. Source: torchvision's `Resize` and `CenterCrop`,
        `ResizeKeepRatio` and `CenterCropOrPad` of OpenCLIP and timm.
        """
        return self._prepare(picture, self._resize)

    def nearly(self, picture: PIL.Image.Image) -> Pixels:
        """As a call, in a third of the time: torch resizes, within a few levels of 255."""
        if self.interpolation not in ("bilinear", "bicubic"):
            return self(picture)
        # Not above: workers that meet no large picture stay small.
        from app.engine.embedders.resizing import resize

        return self._prepare(picture, lambda whole, size: resize(whole, size, self.interpolation))

    def _resize(self, picture: PIL.Image.Image, size: tuple[int, int]) -> PIL.Image.Image:
        return picture.resize(size, PIL.Image.Resampling[self.interpolation.upper()])

    def _prepare(
        self,
        picture: PIL.Image.Image,
        resize: Callable[[PIL.Image.Image, tuple[int, int]], PIL.Image.Image],
    ) -> Pixels:
        if self.resize == "shortest":
            picture = _cut_strip(picture)
        resized = resize(picture, self._resized_size(*picture.size))
        left, top = (_offset(side, self.crop_side) for side in resized.size)
        if left <= 0 and top <= 0:
            square = resized.crop((-left, -top, self.crop_side - left, self.crop_side - top))
        else:
            square = PIL.Image.new("RGB", (self.crop_side, self.crop_side), self.fill)
            square.paste(resized, (left, top))
        return np.asarray(square)

    def _resized_size(self, width: int, height: int) -> tuple[int, int]:
        if self.resize == "squash":
            return self.resize_side, self.resize_side
        if self.resize == "shortest":
            shorter = min(width, height)
            return int(self.resize_side * width / shorter), int(self.resize_side * height / shorter)
        ratio = max(width, height) / self.resize_side
        return max(1, round(width / ratio)), max(1, round(height / ratio))


class Embedder(Protocol):
    """A frozen model. Its vectors can be compared only with those of the same `revision`.

    `batch_size` pictures at a time suit the device, `streams` batches at the same time fill it.
    """

    name: str
    revision: str
    dimension: int
    batch_size: int
    streams: int
    prepare: Preparation
    # (t, dimension) float32 unit rows of t texts; None when the model knows no words
    embed_text: Callable[[list[str]], Floats] | None

    def embed_images(self, prepared: Pixels) -> Floats:
        """Embed (b, side, side, 3) uint8 prepared pictures, b >= 0, in any number at once.

        Returns (b, dimension) float32 unit rows.
        """
        ...


@dataclass(frozen=True)
class Loading:
    """Onto which device a model goes, and where its weights may come from."""

    device: str = "auto"
    weights_folder: Path | None = None
    may_fetch: bool = False


@dataclass(frozen=True)
class RegisteredEmbedder:
    """An embedder with a plain name, and what people choose it by.

    `load` is given the name it goes by. `files` are what it needs from the hub, its weights first,
    which have about `size_mb` (10^6 bytes); none for what comes with Rarefind.
    """

    summary: str
    dimension: int
    knows_words: bool
    load: Callable[[str, Loading], Embedder]
    files: tuple[HubFile, ...] = ()
    size_mb: int = 0


def load_embedder(
    name: str, *, device: str = "auto", weights_folder: Path | None = None, may_fetch: bool = False
) -> Embedder:
    """Load the embedder `name` onto `device`: auto, cpu, mps, cuda or cuda:N.

    `auto` takes every CUDA device there is, names with commas between take each. Weights are
    taken from `weights_folder` (`OWNER/NAME/FILE` in it, as on the hub), else from the hub's
    cache, else fetched if `may_fetch`.
    Raises UnknownEmbedder with the names there are, WeightsMissing with the file to put where,
    WeightsNotUsable when they are not the model's, and torch's RuntimeError for a device that is
    not there.
    """
    loading = Loading(device, weights_folder, may_fetch)
    if looks_at_boxes(name):
        whole = name.removesuffix(BOXES)
        model = copy(
            load_embedder(whole, device=device, weights_folder=weights_folder, may_fetch=may_fetch)
        )
        model.name, model.revision = name, model.revision + BOXES
        return model
    if name in EMBEDDERS:
        gather_files(name, weights_folder=weights_folder, may_fetch=may_fetch)
        return EMBEDDERS[name].load(name, loading)
    backend, source = _find_backend(name)
    loaded: Embedder = backend.load(name, source, loading)
    return loaded


def gather_files(name: str, *, weights_folder: Path | None = None, may_fetch: bool = False) -> None:
    """Have every file the embedder `name` needs on this machine, as `load_embedder` would.

    Raises UnknownEmbedder and WeightsMissing as it does, but loads nothing.
    """
    name = name.removesuffix(BOXES)
    if name in EMBEDDERS:
        get_files(EMBEDDERS[name].files, name, folder=weights_folder, may_fetch=may_fetch)
        return
    backend, source = _find_backend(name)
    backend.gather_files(name, source, Loading("cpu", weights_folder, may_fetch))


def looks_at_boxes(name: str) -> bool:
    """Whether an embedder of that name is given parts of pictures."""
    return name.endswith(BOXES)


def is_on_disk(name: str, *, weights_folder: Path | None = None) -> bool:
    """Whether all that a registered embedder needs is on this machine."""
    return all(find_file(file, weights_folder) for file in EMBEDDERS[name].files)


def _find_backend(name: str) -> tuple[ModuleType, str]:
    """The backend that a name from outside the register calls, and what it says to it."""
    kind, _, source = name.partition(":")
    if kind == "open_clip" and source:
        from app.engine.embedders import open_clip

        return open_clip, source
    if kind == "timm" and source:
        from app.engine.embedders import timm

        return timm, source
    raise UnknownEmbedder(
        f"There is no embedder {name}. There are: {', '.join(EMBEDDERS)}; and by their place "
        "open_clip:MODEL:TAG, open_clip:MODEL:FILE, open_clip:hf-hub:OWNER/NAME, "
        "open_clip:local-dir:FOLDER, timm:MODEL and timm:MODEL:FILE."
    )


def _cut_strip(picture: PIL.Image.Image) -> PIL.Image.Image:
    longest = LONGEST_SHAPE * min(picture.size)
    left, top = (max(0, side - longest) // 2 for side in picture.size)
    if left == top == 0:
        return picture
    return picture.crop((left, top, picture.width - left, picture.height - top))


def _offset(side: int, crop_side: int) -> int:
    """Where a side begins in the square; below 0, what is cut off."""
    if side < crop_side:
        return (crop_side - side) // 2
    return -round((side - crop_side) / 2)


def _load_efficientnet_lite0(name: str, loading: Loading) -> Embedder:
    from app.engine.embedders.efficientnet import load_efficientnet_lite0

    return load_efficientnet_lite0(name, loading.device)


def _load_from(source: str) -> Callable[[str, Loading], Embedder]:
    def load(name: str, loading: Loading) -> Embedder:
        backend, rest = _find_backend(source)
        loaded: Embedder = backend.load(name, rest, loading)
        return loaded

    return load


def _timm_weights(model: str) -> tuple[HubFile]:
    return (HubFile(f"timm/{model}", TIMM_WEIGHTS),)


EMBEDDERS: dict[str, RegisteredEmbedder] = {
    "efficientnet-lite0": RegisteredEmbedder(
        load=_load_efficientnet_lite0,
        summary="Small and quick: the one to begin with.",
        dimension=1280,
        knows_words=False,
    ),
    # G. Ilharco et al., "OpenCLIP", 2021; the weights of S. Y. Gadre et al., "DataComp: In search
    # of the next generation of multimodal datasets", NeurIPS 2023.
    "clip-b32": RegisteredEmbedder(
        load=_load_from("open_clip:ViT-B-32:datacomp_xl_s13b_b90k"),
        summary="General CLIP, the quickest that can be searched by words.",
        dimension=512,
        knows_words=True,
        files=(HubFile("laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K", OPEN_CLIP_WEIGHTS),),
        size_mb=605,
    ),
    "clip-l14": RegisteredEmbedder(
        load=_load_from("open_clip:ViT-L-14:datacomp_xl_s13b_b90k"),
        summary="General CLIP, larger: tells more apart, many times slower.",
        dimension=768,
        knows_words=True,
        files=(HubFile("laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K", OPEN_CLIP_WEIGHTS),),
        size_mb=1710,
    ),
    # M. Tschannen et al., "SigLIP 2: Multilingual Vision-Language Encoders", 2025.
    "siglip2-b16": RegisteredEmbedder(
        load=_load_from("open_clip:ViT-B-16-SigLIP2:webli"),
        summary="Newer than CLIP, and understands words of many languages.",
        dimension=768,
        knows_words=True,
        files=(
            HubFile("timm/ViT-B-16-SigLIP2", OPEN_CLIP_WEIGHTS),
            *(HubFile("timm/ViT-B-16-SigLIP2", (file,)) for file in TOKENIZER_FILES),
        ),
        size_mb=1501,
    ),
    # J. Gu et al., "BioCLIP 2: Emergent Properties from Scaling Hierarchical Contrastive
    # Learning", 2025.
    "bioclip-2": RegisteredEmbedder(
        load=_load_from("open_clip:hf-hub:imageomics/bioclip-2"),
        summary="Made for species: knows animals, plants and fungi, and their names.",
        dimension=768,
        knows_words=True,
        files=(
            HubFile("imageomics/bioclip-2", OPEN_CLIP_WEIGHTS),
            HubFile("imageomics/bioclip-2", (OPEN_CLIP_CONFIG,)),
        ),
        size_mb=1710,
    ),
    # M. Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024.
    "dinov2-s14": RegisteredEmbedder(
        load=_load_from("timm:vit_small_patch14_dinov2.lvd142m"),
        summary="Fine visual detail: looks at 518 × 518 pixels, which takes its time.",
        dimension=384,
        knows_words=False,
        files=_timm_weights("vit_small_patch14_dinov2.lvd142m"),
        size_mb=88,
    ),
    "dinov2-b14": RegisteredEmbedder(
        load=_load_from("timm:vit_base_patch14_dinov2.lvd142m"),
        summary="As dinov2-s14, larger: finer still, and slow without a GPU.",
        dimension=768,
        knows_words=False,
        files=_timm_weights("vit_base_patch14_dinov2.lvd142m"),
        size_mb=346,
    ),
    # O. Siméoni et al., "DINOv3", 2025.
    "dinov3-s16": RegisteredEmbedder(
        load=_load_from("timm:vit_small_patch16_dinov3.lvd1689m"),
        summary="Visual detail at 256 × 256 pixels: the quickest of its kind.",
        dimension=384,
        knows_words=False,
        files=_timm_weights("vit_small_patch16_dinov3.lvd1689m"),
        size_mb=86,
    ),
}
