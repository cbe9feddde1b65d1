"""What goes into each model is, to the last bit, what the library it comes from would put in."""

import pickle
import subprocess
import sys

import numpy as np
import open_clip
import PIL.Image
import pytest
import timm
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from timm.data import create_transform, resolve_data_config
from torch import nn
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from app.engine.embedders import Preparation
from app.engine.embedders import open_clip as our_open_clip
from app.engine.embedders import timm as our_timm
from app.engine.embedders.running import TorchEmbedder

SIZES = [
    (97, 92),
    (92, 97),
    (224, 224),
    (640, 480),
    (333, 1000),
    (1000, 37),
    (37, 1000),
    (518, 519),
]
TINY = [(1, 1), (2, 1), (1, 3), (5, 4), (223, 225)]


def make_picture(width: int, height: int, mode: str = "RGB") -> PIL.Image.Image:
    """Blurred noise with hard edges in it."""
    rng = np.random.default_rng(width * 10_000 + height)
    small = PIL.Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    pixels = np.array(small.resize((width, height), PIL.Image.Resampling.BICUBIC))
    pixels[height // 3 : height // 2, width // 4 : width // 2] = rng.integers(0, 256, 3)
    return PIL.Image.fromarray(pixels).convert(mode)


class Recording(nn.Module):
    """Keeps what is put into it."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        self.pictures = pictures.clone()
        return pictures.mean(dim=(2, 3))


def put_in(prepare: Preparation, mean, std, pictures: list[PIL.Image.Image]) -> np.ndarray:
    """The tensor (b, 3, side, side) that reaches a model by way of ours."""
    network = Recording()
    embedder = TorchEmbedder(
        network,
        name="recording",
        revision="recording:1",
        dimension=3,
        prepare=prepare,
        mean=mean,
        std=std,
        device="cpu",
    )
    embedder.batch_size = len(pictures)
    embedder.embed_images(np.stack([prepare(picture) for picture in pictures]))
    return network.pictures.numpy()


def open_clip_config(model: str, tag: str, **changes: object) -> dict:
    size = open_clip.get_model_config(model)["vision_cfg"]["image_size"]
    config = merge_preprocess_dict(PreprocessCfg(), open_clip.get_pretrained_cfg(model, tag))
    return config | {"size": size} | changes


OPEN_CLIP_CONFIGS = {
    "clip-b32": open_clip_config("ViT-B-32", "datacomp_xl_s13b_b90k"),
    "clip-l14": open_clip_config("ViT-L-14", "datacomp_xl_s13b_b90k"),
    "siglip2-b16": open_clip_config("ViT-B-16-SigLIP2", "webli"),
    "clipa, bilinear": open_clip_config("ViT-L-14-CLIPA", "datacomp1b"),
    "mobileclip, no mean": open_clip_config("MobileCLIP-S1", "datacompdr"),
    "bordered": open_clip_config(
        "ViT-B-32", "openai", resize_mode="longest", fill_color=127, interpolation="bilinear"
    ),
}


@pytest.mark.parametrize("name", OPEN_CLIP_CONFIGS)
def test_pictures_go_in_as_by_open_clip(name):
    config = OPEN_CLIP_CONFIGS[name]
    transform = image_transform_v2(PreprocessCfg(**config), is_train=False)
    pictures = [make_picture(*size) for size in SIZES + TINY]
    expected = torch.stack([transform(picture) for picture in pictures]).numpy()
    prepare = our_open_clip.read_preparation(config)
    actual = put_in(prepare, config["mean"], config["std"], pictures)
    np.testing.assert_allclose(actual, expected, atol=1e-5, rtol=0)


TIMM_CONFIGS = {
    "dinov2-s14": timm.get_pretrained_cfg("vit_small_patch14_dinov2.lvd142m").to_dict(),
    "dinov2-b14": timm.get_pretrained_cfg("vit_base_patch14_dinov2.lvd142m").to_dict(),
    "dinov3-s16": timm.get_pretrained_cfg("vit_small_patch16_dinov3.lvd1689m").to_dict(),
    "efficientnet-lite0": timm.get_pretrained_cfg("tf_efficientnet_lite0.in1k").to_dict(),
    "crop of 0.95, squashed": timm.get_pretrained_cfg("convnext_tiny.fb_in1k").to_dict()
    | {"crop_mode": "squash", "crop_pct": 0.95},
    "bordered": timm.get_pretrained_cfg("resnet18.a1_in1k").to_dict()
    | {"crop_mode": "border", "crop_pct": 0.9, "interpolation": "bilinear"},
}


@pytest.mark.parametrize("name", TIMM_CONFIGS)
def test_pictures_go_in_as_by_timm(name):
    config = resolve_data_config(pretrained_cfg=TIMM_CONFIGS[name])
    transform = create_transform(**config)
    pictures = [make_picture(*size) for size in SIZES + TINY]
    expected = torch.stack([transform(picture) for picture in pictures]).numpy()
    prepare = our_timm.read_preparation(config)
    actual = put_in(prepare, config["mean"], config["std"], pictures)
    np.testing.assert_allclose(actual, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("width", "height"), [(256, 256), (256, 301), (9984, 256), *TINY])
def test_preparation_is_that_of_torchvision_pixel_for_pixel(width, height):
    picture = make_picture(width, height)
    expected = transforms.Compose(
        [
            transforms.Resize(256, interpolation=InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
        ]
    )(picture)
    np.testing.assert_array_equal(Preparation(256, 224)(picture), np.asarray(expected))


def test_the_middle_of_an_endless_strip_is_taken():
    """In full, these would be resized to 4 gigabytes each."""
    colours = np.zeros((1, 25_001, 3), dtype=np.uint8)
    colours[:, 12_500] = 255
    lying = Preparation(224, 224)(PIL.Image.fromarray(colours))
    standing = Preparation(224, 224)(PIL.Image.fromarray(colours.transpose(1, 0, 2)))
    assert lying[112, 112].tolist() == standing[112, 112].tolist() == [255, 255, 255]
    assert lying.mean() < 255 * 0.9


@pytest.mark.parametrize("size", [(1, 400), (400, 1)])
def test_a_bordered_strip_keeps_a_pixel(size):
    """The libraries would end with an error."""
    prepare = Preparation(64, 64, resize="longest", fill=(9, 9, 9))
    white = PIL.Image.new("RGB", size, "white")
    assert (prepare(white) == 255).all(axis=2).sum() == 64


def test_workers_that_prepare_do_not_load_torch():
    preparation = Preparation(256, 224, resize="squash", interpolation="bilinear", fill=(1, 2, 3))
    assert pickle.loads(pickle.dumps(preparation)) == preparation
    check = "import sys, app.engine.embedders; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
