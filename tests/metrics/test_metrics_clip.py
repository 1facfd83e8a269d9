"""The CLIP score and features of a small open_clip model against its own forward pass."""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from t2ikit.errors import UserError
from t2ikit.metrics.clip import CLIPScore
from t2ikit.metrics.features import features
from t2ikit.metrics.images import as_pil

from .conftest import CLIP, PROMPTS, randomised


def test_the_score_is_the_plain_cosine(clip_folder, images):
    import open_clip

    name = f"local-dir:{clip_folder}"
    model, _, transform = open_clip.create_model_and_transforms(name)
    with torch.no_grad():
        pixels = torch.stack([transform(x) for x in as_pil(images)])
        image, text, _ = model.eval()(pixels, open_clip.get_tokenizer(name)(PROMPTS))
    metric = CLIPScore(name)
    found = metric(images, PROMPTS)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, (image * text).sum(1), atol=1e-6)
    assert (np.abs(found) <= 1).all() and np.ptp(found) > 1e-3

    wide = features(f"clip:{name}")(images)
    assert wide.shape == (3, 16) and wide.dtype == np.float32
    np.testing.assert_allclose(wide / np.linalg.norm(wide, axis=1, keepdims=True), image, atol=1e-6)


def test_provenance_names_weights_and_transform(clip_folder):
    first, again = (CLIPScore(f"local-dir:{clip_folder}").provenance for _ in range(2))
    assert first == again and len(first["weights"]) == 64 and first["transform"]["size"] == (32, 32)


@pytest.mark.parametrize("name", ["ViT-L-14", "ViT-L-14/nobody", "inception"])
def test_unknown_models_are_one_sentence(name):
    with pytest.raises(UserError, match=f"Unknown CLIP model '{name}'.*such as ViT-L-14/openai"):
        CLIPScore(name)


def test_a_folder_without_weights_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="CLIP model .* could not be loaded"):
        CLIPScore(f"local-dir:{tmp_path}")


def transformer(x, state, prefix, heads, activation, mask=None):
    """CLIP's residual attention blocks written out, from its state dict; x [n, tokens, width]."""
    for k in range(2):
        w = {name.removeprefix(f"{prefix}.{k}."): p for name, p in state.items() if name.startswith(f"{prefix}.{k}.")}
        y = F.layer_norm(x, x.shape[-1:], w["ln_1.weight"], w["ln_1.bias"])
        q, key, v = (
            part.unflatten(-1, (heads, -1)).transpose(1, 2)
            for part in (y @ w["attn.in_proj_weight"].T + w["attn.in_proj_bias"]).chunk(3, -1)
        )
        scores = q @ key.transpose(-1, -2) / math.sqrt(q.shape[-1])
        y = ((scores if mask is None else scores + mask).softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + y @ w["attn.out_proj.weight"].T + w["attn.out_proj.bias"]
        y = F.layer_norm(x, x.shape[-1:], w["ln_2.weight"], w["ln_2.bias"])
        y = activation(y @ w["mlp.c_fc.weight"].T + w["mlp.c_fc.bias"])
        x = x + y @ w["mlp.c_proj.weight"].T + w["mlp.c_proj.bias"]
    return x


def cosine(state, pixels, tokens, activation):
    """The cosine [n] of images [n, 3, 32, 32] and tokens [n, 77] under the state dict of a CLIP of two layers."""
    x = F.conv2d(pixels, state["visual.conv1.weight"], stride=16).flatten(2).transpose(1, 2)
    first = state["visual.class_embedding"].expand(len(x), 1, -1)
    x = torch.cat([first, x], 1) + state["visual.positional_embedding"]
    x = F.layer_norm(x, x.shape[-1:], state["visual.ln_pre.weight"], state["visual.ln_pre.bias"])
    x = transformer(x, state, "visual.transformer.resblocks", 2, activation)[:, 0]
    image = F.layer_norm(x, x.shape[-1:], state["visual.ln_post.weight"], state["visual.ln_post.bias"])
    x = state["token_embedding.weight"][tokens] + state["positional_embedding"]
    x = transformer(x, state, "transformer.resblocks", 2, activation, torch.full((77, 77), -torch.inf).triu(1))
    x = F.layer_norm(x, x.shape[-1:], state["ln_final.weight"], state["ln_final.bias"])
    text = x[torch.arange(len(x)), tokens.argmax(1)] @ state["text_projection"]
    return F.cosine_similarity(image @ state["visual.proj"], text)


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


@pytest.fixture
def tagged(tmp_path, monkeypatch):
    """A small architecture whose configuration names no activation, and two tags of its weights, as open_clip has
    ViT-L-14: `openai` of a model with QuickGELU, `laion` of one with GELU."""
    import open_clip
    from open_clip import factory, pretrained
    from safetensors.torch import save_file

    state = randomised(open_clip.CLIP(**CLIP)).state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "weights.safetensors")
    where = {"file": str(tmp_path / "weights.safetensors")}
    monkeypatch.setitem(factory._MODEL_CONFIGS, "ViT-tiny", CLIP)
    tags = {"openai": where | {"quick_gelu": True}, "laion": where}
    monkeypatch.setitem(pretrained._PRETRAINED, "ViT-tiny", tags)
    return state


def test_weights_run_with_the_activation_they_were_trained_with(tagged, images):
    import open_clip

    scores = {}
    for tag, activation in (("openai", quick_gelu), ("laion", F.gelu)):
        metric = CLIPScore(f"ViT-tiny/{tag}")
        pixels = torch.stack([metric.transform(x) for x in as_pil(images)])
        expected = cosine(tagged, pixels, open_clip.tokenize(PROMPTS), activation)
        scores[tag] = metric(images, PROMPTS)
        np.testing.assert_allclose(scores[tag], expected, atol=1e-5)
        assert metric.provenance["quick_gelu"] is (tag == "openai")
    assert np.abs(scores["openai"] - scores["laion"]).max() > 1e-3
    own = [CLIPScore(f"ViT-tiny/{tag}").provenance for tag in ("openai", "laion")]
    assert own[0]["weights"] == own[1]["weights"] and own[0]["architecture"] != own[1]["architecture"]


@pytest.mark.parametrize(
    ("name", "quick"),
    [
        ("ViT-L-14/openai", True), ("ViT-L-14-336/openai", True), ("ViT-B-32/openai", True),
        ("ViT-B-32/laion400m_e32", True), ("ViT-L-14/laion2b_s32b_b82k", False), ("ViT-H-14/laion2b_s32b_b79k", False),
    ],
)  # fmt: skip
def test_published_tags_decide_the_activation(name, quick, monkeypatch):
    import open_clip

    asked = {}

    def create(*names, **options):
        asked.update(options)
        raise OSError("no network")

    monkeypatch.setattr("t2ikit.hub.answers", lambda endpoint: False)
    monkeypatch.setattr(open_clip, "create_model_from_pretrained", create)
    with pytest.raises(UserError, match=f"CLIP model '{name}' could not be loaded .no network"):
        CLIPScore(name)
    assert asked["force_quick_gelu"] is quick


def broken(folder, to, change):
    """A copy of the model with its state dict changed."""
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "open_clip_model.safetensors")
    change(state)
    (to / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP, "preprocess_cfg": {}}))
    save_file(state, to / "open_clip_model.safetensors")
    return f"local-dir:{to}"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.pop("visual.proj"), "lacks the weights 'visual.proj': give the whole"),
        (lambda s: s.update(extra=torch.ones(2)), "has weights that the model does not know, 'extra'"),
        (lambda s: s.update(text_projection=torch.ones(3, 3)), "has in another shape the weights 'text_projection'"),
        (lambda s: s["ln_final.bias"].fill_(torch.nan), "holds NaN or infinity in 'ln_final.bias' .1 such"),
        (lambda s: s["visual.proj"][0].fill_(torch.inf), "holds NaN or infinity in 'visual.proj'"),
    ],
)
def test_weights_that_do_not_fit_or_are_not_finite_are_named(clip_folder, tmp_path, change, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        CLIPScore(broken(clip_folder, tmp_path, change))
    assert "\n" not in str(caught.value)
