"""timm models: the pooled features that timm itself gives."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from app.engine.embedders import EMBEDDERS, gather_files, load_embedder
from app.engine.embedders.weights import UnknownEmbedder, WeightsMissing, WeightsNotUsable

MODEL = "test_vit.r160_in1k"  # timm's own for tests: a ViT of 64 dimensions


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn weights, where they would lie in a folder of weights."""
    file = tmp_path_factory.mktemp("weights") / "timm" / MODEL / "model.safetensors"
    file.parent.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_file(timm.create_model(MODEL).state_dict(), file)
    return file


def make_pictures() -> list[PIL.Image.Image]:
    rng = np.random.default_rng(3)
    return [
        PIL.Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for width, height in [(160, 160), (97, 331), (500, 90), (1, 1)]
    ]


def test_images_get_the_vectors_of_timm(weights):
    embedder = load_embedder(f"timm:{MODEL}:{weights}", device="cpu")
    reference = timm.create_model(MODEL, num_classes=0).eval()
    known = {key: tensor for key, tensor in load_file(weights).items() if "head." not in key}
    reference.load_state_dict(known)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(reference))
    pictures = make_pictures()
    with torch.inference_mode():
        features = reference(torch.stack([transform(picture) for picture in pictures]))
    expected = nn.functional.normalize(features, dim=1).numpy()
    ours = embedder.embed_images(np.stack([embedder.prepare(picture) for picture in pictures]))
    np.testing.assert_allclose(ours, expected, atol=1e-5, rtol=0)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3
    assert embedder.embed_text is None
    assert embedder.dimension == expected.shape[1] == 64


def test_a_model_alone_means_its_published_weights(weights, no_hub):
    folder = weights.parents[2]
    by_model = load_embedder(f"timm:{MODEL}", device="cpu", weights_folder=folder)
    by_file = load_embedder(f"timm:{MODEL}:{weights}", device="cpu")
    assert by_model.revision.rpartition(":")[2] == by_file.revision.rpartition(":")[2]
    with pytest.raises(WeightsMissing, match=rf"huggingface\.co/timm/{MODEL}"):
        load_embedder(f"timm:{MODEL}", device="cpu", may_fetch=True)


def test_weights_of_another_model_are_refused(weights, tmp_path):
    own = load_file(weights)
    file = tmp_path / "other.safetensors"
    fewer = {key: tensor for key, tensor in own.items() if not key.startswith("blocks.5")}
    wider = own | {"norm.weight": torch.zeros(65)}
    for wrong in (fewer, wider, own | {"more": torch.zeros(1)}):
        save_file(wrong, file)
        with pytest.raises(WeightsNotUsable, match="does not hold the weights of timm:"):
            load_embedder(f"timm:{MODEL}:{file}", device="cpu")
    file.write_bytes(b"")
    with pytest.raises(WeightsNotUsable, match="does not hold the weights of timm:"):
        load_embedder(f"timm:{MODEL}:{file}", device="cpu")


def test_wrong_names_say_what_there_is(tmp_path):
    for name, sentence in [
        ("timm:vit_small_patch14_dinov9", "no model 'vit_small_patch14_dinov9'.*vit_small"),
        ("timm:nonsense", r"no model 'nonsense'\.$"),
        ("timm:vit_small_patch14_dinov2.lvd999", "lvd999"),
        ("timm:legacy_senet154.in1k", "no weights for 'legacy_senet154.in1k'.*FILE"),
    ]:
        with pytest.raises(UnknownEmbedder, match=sentence):
            gather_files(name)
    with pytest.raises(WeightsMissing, match=r"at .*mine\.pth, where there is no file"):
        gather_files(f"timm:{MODEL}:{tmp_path / 'mine.pth'}")


@pytest.mark.parametrize("name", ["dinov2-s14", "dinov2-b14", "dinov3-s16"])
def test_what_the_register_says_is_what_timm_knows(name):
    entry = EMBEDDERS[name]
    model = entry.files[0].repository.removeprefix("timm/")
    assert timm.get_pretrained_cfg(model).hf_hub_id == entry.files[0].repository
    with torch.device("meta"):
        network = timm.create_model(model, num_classes=0)
    parameters = sum(tensor.numel() for tensor in network.parameters())
    assert entry.size_mb == pytest.approx(parameters * 4 / 1e6, abs=1)
    assert entry.dimension == network.head_hidden_size
    assert not entry.knows_words
