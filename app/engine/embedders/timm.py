"""DINO and any other image model of timm: its pooled features, no words."""

import math
from pathlib import Path
from typing import Any

import timm
from timm.data.config import resolve_model_data_config
from torch import nn

from app.engine.embedders import Embedder, Loading, Preparation
from app.engine.embedders.running import TorchEmbedder
from app.engine.embedders.weights import (
    ENDINGS,
    TIMM_WEIGHTS,
    HubFile,
    UnknownEmbedder,
    WeightsNotUsable,
    first_line,
    get_files,
    get_local_file,
    make_revision,
    say_unknown,
)


def load(name: str, source: str, loading: Loading) -> Embedder:
    """Load MODEL or MODEL:FILE under `name`.

    Raises UnknownEmbedder, WeightsMissing and WeightsNotUsable.
    """
    model, weights = _find_model(name, source, loading)
    network, dimension = _build(name, model, weights)
    config = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    return TorchEmbedder(
        network,
        name=name,
        revision=make_revision(name, weights),
        dimension=dimension,
        prepare=read_preparation(config),
        mean=config["mean"],
        std=config["std"],
        device=loading.device,
    )


def gather_files(name: str, source: str, loading: Loading) -> None:
    """Have on this machine what `load` needs, and raise what it would raise for a wrong name."""
    _find_model(name, source, loading)


def read_preparation(config: dict[str, Any]) -> Preparation:
    """What timm's `create_transform` does by a model's data configuration.

    Raises UnknownEmbedder for pictures that are not square.
    """
    height, width = config["input_size"][1:]
    if height != width:
        raise UnknownEmbedder(
            f"Models for pictures that are not square, {width} × {height}, are not run."
        )
    red, green, blue = (round(255 * share) for share in config["mean"])
    is_border = config["crop_mode"] == "border"
    return Preparation(
        resize_side=math.floor(height / config["crop_pct"]),
        crop_side=height,
        resize="longest"
        if is_border
        else "squash"
        if config["crop_mode"] == "squash"
        else "shortest",
        interpolation=config["interpolation"],
        fill=(red, green, blue) if is_border else (0, 0, 0),
    )


def _find_model(name: str, source: str, loading: Loading) -> tuple[str, Path]:
    model, _, place = source.partition(":")
    if not timm.is_model(model):
        raise UnknownEmbedder(say_unknown("timm", model, timm.list_models()))
    if place:
        return model, get_local_file(place, name, folder=loading.weights_folder)
    try:
        config = timm.get_pretrained_cfg(model, allow_unregistered=False)
    except RuntimeError as error:
        raise UnknownEmbedder(f"timm has no weights of that name: {error}") from error
    if config is None or not config.hf_hub_id:
        raise UnknownEmbedder(
            f"timm knows of no weights for {model!r} on the hub. Give a file, as "
            f"timm:{model}:FILE, with the ending {', '.join(ENDINGS)}."
        )
    names = (config.hf_hub_filename,) if config.hf_hub_filename else TIMM_WEIGHTS
    file = HubFile(config.hf_hub_id, names)
    [weights] = get_files([file], name, folder=loading.weights_folder, may_fetch=loading.may_fetch)
    return model, weights


def _build(name: str, model: str, weights: Path) -> tuple[nn.Module, int]:
    """The network with its weights, without its classifier, and how many features it gives."""
    try:
        network: Any = timm.create_model(
            model,
            pretrained=True,
            # With the classifier at first: without it, timm would accept weights that lack a layer.
            pretrained_cfg_overlay={"file": str(weights), "custom_load": False},
        )
    except Exception as error:  # readers answer foreign bytes with nearly any error
        raise WeightsNotUsable(
            f"{weights} does not hold the weights of {name}: {first_line(error)}."
        ) from error
    network.reset_classifier(0)
    return network, network.head_hidden_size
