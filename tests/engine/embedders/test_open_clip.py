"""OpenCLIP models: the vectors that OpenCLIP itself gives, of images and of words."""

import json
import shutil
from pathlib import Path

import numpy as np
import open_clip
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import PreTrainedTokenizerFast

from app.engine.embedders import EMBEDDERS, gather_files, is_on_disk, load_embedder
from app.engine.embedders.weights import (
    UnknownEmbedder,
    WeightsMissing,
    WeightsNotUsable,
)
from tests.stand_ins import TINY_CLIP, make_tiny_clip

TEXTS = ["Grey heron in flight", "a photo of a fish,  under  water", "Ardea cinerea", "über"]
WEIGHTS = "open_clip_model.safetensors"


def make_pictures() -> list[PIL.Image.Image]:
    rng = np.random.default_rng(3)
    return [
        PIL.Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for width, height in [(40, 40), (97, 31), (20, 90), (32, 32), (1, 1)]
    ]


def give_vectors(name: str, pictures: list, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    embedder = load_embedder(name, device="cpu")
    assert embedder.embed_text is not None
    images = embedder.embed_images(np.stack([embedder.prepare(picture) for picture in pictures]))
    return images, embedder.embed_text(texts)


def give_vectors_by_open_clip(folder: Path, pictures: list, texts: list[str]):
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    with torch.inference_mode():
        images = model.eval().encode_image(torch.stack([transform(some) for some in pictures]))
        words = model.encode_text(tokenize(texts))
    return tuple(nn.functional.normalize(rows, dim=1).numpy() for rows in (images, words))


def make_tiny_siglip(folder: Path) -> str:
    """As SigLIP is: towers of its own making, words through a tokenizer of transformers."""
    vocabulary = {"<pad>": 0, "<eos>": 1, "<unk>": 2, "grey": 3, "heron": 4, "fish": 5, "a": 6}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        "$A <eos>", special_tokens=[("<eos>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    ).save_pretrained(folder)
    config = {
        **TINY_CLIP,
        "custom_text": True,
        "init_logit_bias": -10,
        "text_cfg": TINY_CLIP["text_cfg"]
        | {
            "context_length": 16,
            "vocab_size": len(vocabulary),
            "hf_tokenizer_name": "someone/tiny-siglip",
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "no_causal_mask": True,
            "pool_type": "last",
        },
    }
    torch.manual_seed(1)
    model = open_clip.CustomTextCLIP(**{k: v for k, v in config.items() if k != "custom_text"})
    save_file(model.state_dict(), folder / WEIGHTS)
    preprocessing = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
    described = {"model_cfg": config, "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    return f"open_clip:local-dir:{folder}"


@pytest.mark.parametrize(
    "preprocessing",
    [
        {},
        {"resize_mode": "squash", "interpolation": "bilinear", "mean": [0.5] * 3},
        {"resize_mode": "longest", "fill_color": 200, "std": [0.2, 0.3, 0.4]},
    ],
)
def test_images_and_words_get_the_vectors_of_open_clip(tmp_path, preprocessing):
    name = make_tiny_clip(tmp_path, **preprocessing)
    pictures = make_pictures()
    if preprocessing.get("resize_mode") == "longest":
        pictures.pop(2)
    expected = give_vectors_by_open_clip(tmp_path, pictures, TEXTS)
    for ours, theirs in zip(give_vectors(name, pictures, TEXTS), expected, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)
        assert np.abs(theirs[0] - theirs[1]).max() > 1e-3  # or anything would do


def test_models_with_their_own_tokenizer_get_the_vectors_of_open_clip(tmp_path):
    name = make_tiny_siglip(tmp_path)
    texts = ["Grey Heron!", "a fish", "a_fish", "heron " * 40]
    expected = give_vectors_by_open_clip(tmp_path, make_pictures(), texts)
    for ours, theirs in zip(give_vectors(name, make_pictures(), texts), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)
        assert np.abs(theirs[0] - theirs[1]).max() > 1e-3


def test_words_do_not_depend_on_how_many_are_asked_at_once(tmp_path):
    embed_text = load_embedder(make_tiny_clip(tmp_path), device="cpu").embed_text
    texts = [f"heron number {number}" for number in range(150)]
    together = embed_text(texts)
    assert together.shape == (150, 24)
    singly = np.concatenate([embed_text([text]) for text in texts[::37]])
    np.testing.assert_allclose(together[::37], singly, atol=1e-5)
    assert embed_text([]).shape == (0, 24)


@pytest.fixture
def built_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """OpenCLIP with a small model `tiny` among its own, whose published weights are in a folder."""
    config = tmp_path / "configs" / "tiny.json"
    config.parent.mkdir()
    config.write_text(json.dumps(TINY_CLIP))
    open_clip.add_model_config(config)
    published = {
        "hf_hub": "someone/tiny-drawn/",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "interpolation": "bilinear",
        "resize_mode": "squash",
        "quick_gelu": True,
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny", {"drawn": published})
    return tmp_path / "weights" / "someone" / "tiny-drawn"


def test_a_model_of_open_clip_goes_in_and_runs_as_its_tag_says(built_in, no_hub, tmp_path):
    make_tiny_clip(built_in)
    (built_in / "open_clip_config.json").unlink()
    embedder = load_embedder(
        "open_clip:tiny:drawn", device="cpu", weights_folder=tmp_path / "weights"
    )
    reference, transform = open_clip.create_model_from_pretrained(
        "tiny",
        str(built_in / WEIGHTS),
        force_quick_gelu=True,
        image_mean=(0.5,) * 3,
        image_std=(0.5,) * 3,
        image_interpolation="bilinear",
        image_resize_mode="squash",
    )
    pictures = make_pictures()
    with torch.inference_mode():
        features = reference.eval().encode_image(torch.stack([transform(one) for one in pictures]))
    ours = embedder.embed_images(np.stack([embedder.prepare(picture) for picture in pictures]))
    expected = nn.functional.normalize(features, dim=1).numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-5, rtol=0)
    assert embedder.revision.startswith("open_clip:tiny:drawn:")


@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_weights_come_from_a_file_that_is_named(built_in, no_hub, tmp_path, ending):
    make_tiny_clip(built_in)
    file = tmp_path / f"mine{ending}"
    if ending == ".pt":
        torch.save({"state_dict": load_file(built_in / WEIGHTS)}, file)
    else:
        shutil.copy(built_in / WEIGHTS, file)
    named = load_embedder(f"open_clip:tiny:{file}", device="cpu")
    relative = load_embedder(f"open_clip:tiny:{file.name}", device="cpu", weights_folder=tmp_path)
    published = load_embedder(
        "open_clip:tiny:drawn", device="cpu", weights_folder=tmp_path / "weights"
    )
    vectors = [one.embed_text(["heron"]) for one in (named, relative)]
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert named.prepare == published.prepare


def test_weights_are_fetched_once_when_asked(hub, tmp_path):
    make_tiny_clip(hub.folder / "someone" / "tiny")
    name = "open_clip:hf-hub:someone/tiny"
    with pytest.raises(WeightsMissing, match="someone/tiny"):
        load_embedder(name, device="cpu")
    assert hub.asked == []
    gather_files(name, may_fetch=True)
    assert hub.asked == ["open_clip_config.json", WEIGHTS]
    embedder = load_embedder(name, device="cpu")
    assert len(hub.asked) == 2
    [own] = load_embedder(
        f"open_clip:local-dir:{hub.folder / 'someone' / 'tiny'}", device="cpu"
    ).embed_text(["heron"])
    np.testing.assert_array_equal(embedder.embed_text(["heron"]), [own])


def test_weights_in_the_folder_come_before_those_of_the_hub(hub, tmp_path):
    make_tiny_clip(hub.folder / "someone" / "tiny", seed=0)
    make_tiny_clip(tmp_path / "weights" / "someone" / "tiny", seed=1)
    name = "open_clip:hf-hub:someone/tiny"
    local = load_embedder(name, device="cpu", weights_folder=tmp_path / "weights", may_fetch=True)
    assert hub.asked == []
    fetched = load_embedder(name, device="cpu", may_fetch=True)
    assert local.revision != fetched.revision


@pytest.mark.parametrize("name", [name for name, entry in EMBEDDERS.items() if entry.files])
def test_without_a_network_it_says_which_file_goes_where(name, no_hub, tmp_path):
    assert not is_on_disk(name, weights_folder=tmp_path)
    weights = EMBEDDERS[name].files[0]
    with pytest.raises(WeightsMissing) as missing:
        load_embedder(name, device="cpu", weights_folder=tmp_path, may_fetch=True)
    assert str(missing.value).startswith(f"{name} needs ")
    assert f"from huggingface.co/{weights.repository}, and can't fetch it (" in str(missing.value)
    assert str(missing.value).endswith(f"put it into {tmp_path / weights.repository}.")
    for file in EMBEDDERS[name].files:
        assert file.names[0] in str(missing.value)
    with pytest.raises(WeightsMissing, match="put it into"):
        gather_files(name, weights_folder=tmp_path, may_fetch=True)


def test_what_the_register_says_is_what_open_clip_knows(no_hub, tmp_path):
    for name, model, tag in [
        ("clip-b32", "ViT-B-32", "datacomp_xl_s13b_b90k"),
        ("clip-l14", "ViT-L-14", "datacomp_xl_s13b_b90k"),
        ("siglip2-b16", "ViT-B-16-SigLIP2", "webli"),
    ]:
        entry = EMBEDDERS[name]
        config = open_clip.get_model_config(model)
        tokenizer = config["text_cfg"].get("hf_tokenizer_name")
        repository = open_clip.get_pretrained_cfg(model, tag)["hf_hub"].strip("/")
        assert {file.repository for file in entry.files} == {repository, tokenizer or repository}
        assert entry.dimension == config["embed_dim"]
        kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
        with torch.device("meta"):
            parameters = sum(tensor.numel() for tensor in kind(**config).parameters())
        assert entry.size_mb == pytest.approx(parameters * 4 / 1e6, abs=1)


def test_wrong_names_say_what_there_is(no_hub, tmp_path):
    for name, sentence in [
        ("open_clip:ViT-B-33:openai", "no model 'ViT-B-33'.*ViT-B-32"),
        ("open_clip:ViT-B-32:laion9b", "no weights 'laion9b' for ViT-B-32.*datacomp_xl_s13b_b90k"),
        ("open_clip:ViT-B-32", "no weights ''.*laion2b_s34b_b79k"),
        ("open_clip:hf-hub:bioclip", "OWNER/NAME"),
        ("open_clip:roberta-ViT-B-32:laion2b_s12b_b32k", "of another library"),
    ]:
        with pytest.raises(UnknownEmbedder, match=sentence):
            make_tiny_clip(tmp_path / "laion" / "CLIP-ViT-B-32-roberta-base-laion2B-s12B-b32k")
            gather_files(name, weights_folder=tmp_path)


def test_missing_files_are_named(tmp_path):
    make_tiny_clip(tmp_path / "tiny")
    with pytest.raises(WeightsMissing, match=r"open_clip_config\.json in .*none, where there"):
        gather_files(f"open_clip:local-dir:{tmp_path / 'none'}")
    (tmp_path / "tiny" / WEIGHTS).unlink()
    with pytest.raises(WeightsMissing, match=r"open_clip_model\.safetensors or .* in .*tiny"):
        gather_files(f"open_clip:local-dir:{tmp_path / 'tiny'}")
    with pytest.raises(WeightsMissing, match=r"at .*mine\.pt, where there is no file"):
        gather_files(f"open_clip:ViT-B-32:{tmp_path / 'mine.pt'}")
    with pytest.raises(WeightsNotUsable, match=r"must be a file with the ending \.safetensors"):
        gather_files(f"open_clip:ViT-B-32:{tmp_path / 'mine.npz'}")


def test_weights_of_another_model_are_refused(tmp_path):
    name = make_tiny_clip(tmp_path)
    weights = tmp_path / WEIGHTS
    own = load_file(weights)
    fewer = {key: tensor for key, tensor in own.items() if "resblocks.1" not in key}
    wider = own | {"text_projection": torch.zeros(32, 25)}
    for wrong in (fewer, wider, own | {"more": torch.zeros(1)}):
        save_file(wrong, weights)
        with pytest.raises(WeightsNotUsable, match=rf"{WEIGHTS} does not hold the weights of"):
            load_embedder(name, device="cpu")
    weights.write_bytes(b"no weights at all")
    with pytest.raises(WeightsNotUsable, match=rf"{WEIGHTS} does not hold the weights of"):
        load_embedder(name, device="cpu")
    (tmp_path / "open_clip_config.json").write_text("[]")
    with pytest.raises(WeightsNotUsable, match="not OpenCLIP's description"):
        load_embedder(name, device="cpu")


class Harmful:
    def __reduce__(self):
        return (Path.touch, (Path("harm"),))


def test_weights_run_no_code(built_in, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"module.x": Harmful()}}, "mine.pt")
    with pytest.raises(WeightsNotUsable):
        load_embedder(f"open_clip:tiny:{tmp_path / 'mine.pt'}", device="cpu")
    assert not Path("harm").exists()


def test_the_revision_is_that_of_the_weights(tmp_path):
    revisions = {
        load_embedder(make_tiny_clip(tmp_path, seed=seed), device="cpu").revision
        for seed in (0, 1, 0)
    }
    assert len(revisions) == 2


def test_a_later_name_is_taken_when_the_first_is_not_on_the_hub(hub):
    make_tiny_clip(hub.folder / "someone" / "older")
    folder = hub.folder / "someone" / "older"
    torch.save(load_file(folder / WEIGHTS), folder / "open_clip_pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    embedder = load_embedder("open_clip:hf-hub:someone/older", device="cpu", may_fetch=True)
    assert embedder.dimension == 24
