"""CLIP and its kin by OpenCLIP: images and words in the same space.

Source: A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
ICML 2021; architectures, tokenizers and preprocessing by open_clip.
"""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from torch import Tensor, nn

from app.engine.embedders import Embedder, Loading, Preparation
from app.engine.embedders.running import TorchEmbedder
from app.engine.embedders.weights import (
    ENDINGS,
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_WEIGHTS,
    TOKENIZER_FILES,
    HubFile,
    UnknownEmbedder,
    WeightsMissing,
    WeightsNotUsable,
    first_line,
    get_files,
    get_local_file,
    make_revision,
    say_unknown,
)


@dataclass(frozen=True)
class Model:
    """What a model is made of: OpenCLIP's two configurations, and files on this machine."""

    architecture: dict[str, Any]
    preprocessing: dict[str, Any]
    weights: Path
    tokenizer_folder: Path | None  # None for the tokenizer that comes with OpenCLIP


def load(name: str, source: str, loading: Loading) -> Embedder:
    """Load MODEL:TAG, MODEL:FILE, hf-hub:OWNER/NAME or local-dir:FOLDER under `name`.

    Raises UnknownEmbedder, WeightsMissing and WeightsNotUsable.
    """
    model = _find_model(name, source, loading)
    network, side = _build(name, model)
    config = merge_preprocess_dict(PreprocessCfg(), model.preprocessing)
    return TorchEmbedder(
        Towers(network),
        name=name,
        revision=make_revision(name, model.weights),
        dimension=model.architecture["embed_dim"],
        prepare=read_preparation(config | {"size": side}),
        mean=config["mean"],
        std=config["std"],
        device=loading.device,
        tokenize=_make_tokenizer(model),
    )


def gather_files(name: str, source: str, loading: Loading) -> None:
    """Have on this machine what `load` needs, and raise what it would raise for a wrong name."""
    _find_model(name, source, loading)


class Towers(nn.Module):
    """An OpenCLIP model whose call gives the features of pictures."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pictures: Tensor) -> Tensor:
        """Features (b, d) of normalised pictures (b, 3, side, side)."""
        features: Tensor = self.model.encode_image(pictures)  # type: ignore[operator]
        return features

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Features (t, d) of tokens (t, context)."""
        features: Tensor = self.model.encode_text(tokens)  # type: ignore[operator]
        return features


def read_preparation(config: dict[str, Any]) -> Preparation:
    """What OpenCLIP's `image_transform` does by its preprocess configuration.

    Raises UnknownEmbedder for pictures that are not square.
    """
    size = config["size"]
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) > 1:
        raise UnknownEmbedder(f"Models for pictures that are not square, {size}, are not run.")
    side = sides.pop()
    return Preparation(
        resize_side=side,
        crop_side=side,
        resize=config["resize_mode"],
        interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",
        fill=(config["fill_color"],) * 3,
    )


def _find_model(name: str, source: str, loading: Loading) -> Model:
    kind, _, rest = source.partition(":")
    if kind == "local-dir":
        folder = Path(rest).expanduser()
        return _read_folder(
            name,
            _find_in(folder, (OPEN_CLIP_CONFIG,), name),
            _find_in(folder, OPEN_CLIP_WEIGHTS, name),
            lambda _repository, file: _find_in(folder, (file,), name),
        )

    def get(repository: str, *names: str) -> Path:
        [path] = get_files(
            [HubFile(repository, names)],
            name,
            folder=loading.weights_folder,
            may_fetch=loading.may_fetch,
        )
        return path

    if kind == "hf-hub":
        if rest.count("/") != 1 or not all(rest.split("/")):
            raise UnknownEmbedder(f"{name!r} must name a repository of the hub as OWNER/NAME.")
        config = get(rest, OPEN_CLIP_CONFIG)
        return _read_folder(name, config, get(rest, *OPEN_CLIP_WEIGHTS), get)
    return _read_built_in(name, kind, rest, get, loading)


def _read_built_in(
    name: str, model: str, place: str, get: Callable[..., Path], loading: Loading
) -> Model:
    architecture = open_clip.get_model_config(model)
    if architecture is None:
        raise UnknownEmbedder(say_unknown("OpenCLIP", model, open_clip.list_models()))
    tags = open_clip.list_pretrained_tags_by_model(model)
    if place.endswith(ENDINGS) or "/" in place:
        weights = get_local_file(place, name, folder=loading.weights_folder)
        # A file says nothing of how pictures go in: as for the model's first published weights.
        tag = open_clip.get_pretrained_cfg(model, tags[0]) if tags else {}
    else:
        tag = open_clip.get_pretrained_cfg(model, place)
        if not tag:
            raise UnknownEmbedder(
                f"OpenCLIP has no weights {place!r} for {model}. It has: {', '.join(tags)}; or "
                f"give a file with the ending {', '.join(ENDINGS)}."
            )
        repository, _, file = tag["hf_hub"].rpartition("/")
        weights = get(repository, *((file,) if file else OPEN_CLIP_WEIGHTS))
        if tag.get("quick_gelu"):
            architecture["quick_gelu"] = True
    return Model(architecture, tag, weights, _find_tokenizer(name, architecture, get))


def _read_folder(name: str, config: Path, weights: Path, get: Callable[..., Path]) -> Model:
    try:
        read = json.loads(config.read_text(encoding="utf-8"))
        architecture, preprocessing = read["model_cfg"], read.get("preprocess_cfg", {})
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsNotUsable(f"{config} is not OpenCLIP's description of a model.") from error
    return Model(architecture, preprocessing, weights, _find_tokenizer(name, architecture, get))


def _find_in(folder: Path, names: tuple[str, ...], embedder: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise WeightsMissing(f"{embedder} needs {' or '.join(names)} in {folder}, where there is none.")


def _find_tokenizer(
    name: str, architecture: dict[str, Any], get: Callable[..., Path]
) -> Path | None:
    text = architecture["text_cfg"]
    if "hf_model_name" in text:
        raise UnknownEmbedder(
            f"{name} takes its words through {text['hf_model_name']}, a model of another library, "
            "which is not run."
        )
    if not text.get("hf_tokenizer_name"):
        return None
    folders = {get(text["hf_tokenizer_name"], file).parent for file in TOKENIZER_FILES}
    if len(folders) > 1:
        raise WeightsMissing(f"{name} needs {' and '.join(TOKENIZER_FILES)} in the same folder.")
    return folders.pop()


def _build(name: str, model: Model) -> tuple[nn.Module, int | tuple[int, int]]:
    """The network with its weights, all of them and no others, and the side of its pictures."""
    config = deepcopy(model.architecture)
    config["vision_cfg"]["timm_model_pretrained"] = False
    is_custom = config.pop("custom_text", False)
    kind = open_clip.CustomTextCLIP if is_custom else open_clip.CLIP
    if "multimodal_cfg" in config:
        kind = open_clip.CoCa
    try:
        network: Any = kind(**config)
        open_clip.load_checkpoint(network, str(model.weights))
    except Exception as error:  # readers answer foreign bytes with nearly any error
        raise WeightsNotUsable(
            f"{model.weights} does not hold the weights of {name}: {first_line(error)}."
        ) from error
    return network, network.visual.image_size


def _make_tokenizer(model: Model) -> Callable[[list[str]], Tensor]:
    text = model.architecture["text_cfg"]
    options = text.get("tokenizer_kwargs", {})
    context_length = text.get("context_length", DEFAULT_CONTEXT_LENGTH)
    tokenize: Callable[[list[str]], Tensor]
    if model.tokenizer_folder is None:
        tokenize = open_clip.SimpleTokenizer(context_length=context_length, **options)
    else:
        tokenize = HFTokenizer(
            str(model.tokenizer_folder),
            context_length=context_length,
            tokenizer_mode=text.get("tokenizer_mode"),
            local_files_only=True,
            **options,
        )
    return tokenize
