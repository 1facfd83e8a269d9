"""ImageReward and HPSv2 from small checkpoints with the published keys, against forward passes of their own."""

import json
import math

import numpy as np
import open_clip
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import transforms as T

from t2ikit.errors import UserError
from t2ikit.metrics.images import as_pil
from t2ikit.metrics.preference import HPSv2, ImageReward

from .conftest import CLIP, PROMPTS, bert_vocabulary, randomised

VISION = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {"hidden_size": 24, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3}


class Attention(nn.Module):
    """BERT's, with BERT's names: query, key, value, then dense and LayerNorm with the residual."""

    def __init__(self, width, source, heads):
        super().__init__()
        widths = {"query": width, "key": source, "value": source}
        self.self = nn.ModuleDict({n: nn.Linear(w, width) for n, w in widths.items()})
        self.output = nn.ModuleDict({"dense": nn.Linear(width, width), "LayerNorm": nn.LayerNorm(width, eps=1e-12)})
        self.heads = heads

    def forward(self, x, source, mask=None):
        q, k, v = (
            self.self[n](s).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for n, s in (("query", x), ("key", source), ("value", source))
        )
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = scores + (1 - mask[:, None, None].float()) * -10000.0
        out = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self.output["LayerNorm"](self.output["dense"](out) + x)


class Layer(nn.Module):
    def __init__(self, width, source, heads, wide):
        super().__init__()
        self.attention, self.crossattention = Attention(width, width, heads), Attention(width, source, heads)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, wide)})
        self.output = nn.ModuleDict({"dense": nn.Linear(wide, width), "LayerNorm": nn.LayerNorm(width, eps=1e-12)})

    def forward(self, x, mask, image):
        x = self.crossattention(self.attention(x, x, mask), image)
        wide = F.gelu(self.intermediate["dense"](x))
        return self.output["LayerNorm"](self.output["dense"](wide) + x)


class Reference(nn.Module):
    """ImageReward as its authors wrote it: timm's ViT, BERT with cross-attention in every layer, an MLP."""

    def __init__(self):
        super().__init__()
        w, v = TEXT["hidden_size"], VISION["hidden_size"]
        self.blip = nn.Module()
        self.blip.visual_encoder = timm.models.VisionTransformer(
            img_size=224, patch_size=16, embed_dim=v, depth=2, num_heads=4, num_classes=0, global_pool=""
        )
        text = self.blip.text_encoder = nn.Module()
        text.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(30524, w),
                "position_embeddings": nn.Embedding(512, w),
                "LayerNorm": nn.LayerNorm(w, eps=1e-12),
            }
        )
        text.embeddings.register_buffer("position_ids", torch.arange(512)[None])
        text.encoder = nn.Module()
        text.encoder.layer = nn.ModuleList(Layer(w, v, 3, 4 * w) for _ in range(2))
        self.blip.vision_proj, self.blip.text_proj = nn.Linear(v, 256), nn.Linear(w, 256)
        self.mlp = nn.Module()
        self.mlp.layers = nn.Sequential(
            nn.Linear(w, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2), nn.Linear(128, 64),
            nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1),
        )  # fmt: skip

    def forward(self, pixels, ids, mask):
        image, text = self.blip.visual_encoder(pixels), self.blip.text_encoder
        x = text.embeddings["word_embeddings"](ids) + text.embeddings["position_embeddings"](torch.arange(ids.shape[1]))
        x = text.embeddings["LayerNorm"](x)
        for layer in text.encoder.layer:
            x = layer(x, mask, image)
        return (self.mlp.layers(x[:, 0]).squeeze(1) - 0.16717362830052426) / 1.0333394966054072


@pytest.fixture(scope="module")
def reward(tmp_path_factory):
    """The reference, and its checkpoint as `ImageReward.pt` is: a bare state dict."""
    model, path = randomised(Reference()), tmp_path_factory.mktemp("reward") / "ImageReward.pt"
    torch.save(model.state_dict(), path)
    return model, path


def bert_tokens(tmp_path):
    """bert-base-uncased's own tokenizer with BLIP's two tokens."""
    from transformers import BertTokenizer

    tokenizer = BertTokenizer.from_pretrained(bert_vocabulary(tmp_path))
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
    return tokenizer


def test_imagereward_is_its_authors_forward_pass(reward, images, tmp_path):
    model, path = reward
    prompts = [*PROMPTS[:2], "Ein GRÜNER café, " * 20 + "[ENC]"]  # longer than 35 tokens, accents, a special token
    transform = T.Compose(
        [
            T.Resize(224, interpolation=T.InterpolationMode.BICUBIC),
            T.CenterCrop(224),
            T.ToTensor(),
            T.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ]
    )
    tokens = bert_tokens(tmp_path)(prompts, padding="max_length", truncation=True, max_length=35, return_tensors="pt")
    assert tokens["input_ids"].max() < 30524
    with torch.no_grad():
        expected = model(torch.stack([transform(x) for x in as_pil(images)]), tokens.input_ids, tokens.attention_mask)
    metric = ImageReward(path, VISION, TEXT)
    found = metric(images, prompts)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.ptp(found) > 1e-2
    np.testing.assert_allclose(metric(images[1:2], prompts[1:2]), found[1:2], rtol=1e-4)


def test_imagereward_takes_the_whole_state_and_nothing_else(reward, tmp_path):
    model, _ = reward
    state, path = model.state_dict(), tmp_path / "ImageReward.pt"

    def refused(state, sentence):
        torch.save(state, path)
        with pytest.raises(UserError, match=sentence):
            ImageReward(path, VISION, TEXT)

    refused({k: v for k, v in state.items() if k != "mlp.layers.7.bias"}, r"lacks 'mlp.layers.7.bias' \(1 in all\)")
    key = "blip.visual_encoder.blocks.1.attn.qkv.weight"
    refused({k: v for k, v in state.items() if k != key}, f"lacks '{key}'")
    refused(state | {"blip.text_decoder.bias": torch.zeros(1)}, "a key that the model does not know, 'blip.text_dec")
    refused(state | {"mlp.layers.7.bias": torch.zeros(3)}, "has in another shape 'mlp.layers.7.bias'")
    refused({"state_dict": state}, "lacks 'blip.visual_encoder.cls_token'")
    for value in (torch.nan, torch.inf):
        refused(state | {key: torch.full_like(state[key], value)}, f"holds NaN or infinity in '{key}' .1 such")
    refused([1, 2], "holds a list, not a state dict")
    unused = ("vision_proj", "text_proj", "position_ids")
    torch.save({k: v for k, v in state.items() if not any(u in k for u in unused)}, path)
    ImageReward(path, VISION, TEXT)
    for left in (path.read_bytes()[:1000], b"rate limit exceeded", b".", b"a" * 600):  # torch's reader: IndexError
        path.write_bytes(left)
        with pytest.raises(UserError, match="no checkpoint of tensors alone, or it is damaged"):
            ImageReward(path, VISION, TEXT)
    with pytest.raises(UserError, match="gone.pt is missing"):
        ImageReward(tmp_path / "gone.pt", VISION, TEXT)


def test_the_published_size_has_the_published_number_of_parameters():
    """timm's ViT-L/16, and BERT with cross-attention to it. On the meta device: nothing is drawn."""
    from transformers import BlipTextConfig, BlipVisionConfig, BlipVisionModel
    from transformers.models.blip.modeling_blip_text import BlipTextModel

    from t2ikit.metrics import preference as p

    with torch.device("meta"):
        vision = BlipVisionModel(BlipVisionConfig(**p.VISION, image_size=224))
        text = BlipTextModel(BlipTextConfig(**p.TEXT, encoder_hidden_size=1024), add_pooling_layer=False)
        peer = timm.create_model("vit_large_patch16_224", num_classes=0)
    count = {m: sum(x.numel() for x in m.parameters()) for m in (vision, text, peer)}
    assert count[vision] == count[peer] == 303_301_632
    assert len(list(vision.parameters())) == len(list(peer.parameters()))
    per_layer = 4 * (768 * 768 + 768) + 2 * (768 * 768 + 768) + 2 * (1024 * 768 + 768) + 2 * 768 * 3072 + 3840 + 6 * 768
    assert count[text] == (30524 + 512 + 2) * 768 + 12 * per_layer


@pytest.fixture(scope="module")
def hps(tmp_path_factory):
    """A small architecture that open_clip knows by name, a model of it, and its checkpoint as HPSv2's is."""
    folder = tmp_path_factory.mktemp("hps")
    (folder / "ViT-small.json").write_text(json.dumps(CLIP))
    open_clip.add_model_config(folder / "ViT-small.json")
    model, path = randomised(open_clip.create_model("ViT-small")), folder / "HPS_v2.1_compressed.pt"
    torch.save({"epoch": 3, "name": "hps", "state_dict": model.state_dict()}, path)
    return model, path


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [(40, 56), (32, 32), (32, 20), (20, 16)])
def test_hpsv2_pads_and_is_the_cosine(hps, images, antialias, size):
    model, path = hps
    images = images[..., : size[0], : size[1]]
    resized = [round(s * 32 / max(size)) for s in size]
    x = torch.stack([T.ToTensor()(i) for i in as_pil(images)])
    x = T.Resize(resized, T.InterpolationMode.BICUBIC, antialias=antialias)(x)
    canvas = torch.zeros(3, 3, 32, 32)  # zero before normalising: black
    top, left = (32 - resized[0]) // 2, (32 - resized[1]) // 2
    canvas[..., top : top + resized[0], left : left + resized[1]] = x
    canvas = T.Normalize(open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)(canvas)
    with torch.no_grad():
        image, text, _ = model(canvas, open_clip.get_tokenizer("ViT-small")(PROMPTS))
    metric = HPSv2(path, "v2.1", antialias, architecture="ViT-small")
    np.testing.assert_allclose(metric(images, PROMPTS), (image * text).sum(1), atol=1e-5)
    assert metric.provenance["version"] == "v2.1" and metric.provenance["antialias"] is antialias


def test_hpsv2_takes_the_whole_state_and_nothing_else(hps, tmp_path):
    model, _ = hps
    state, path = model.state_dict(), tmp_path / "HPS_v2_compressed.pt"
    bad = state["ln_final.weight"].clone()
    bad[3] = torch.nan
    for wrong, sentence in (
        ({"state_dict": {k: v for k, v in state.items() if k != "visual.proj"}}, "lacks 'visual.proj'"),
        ({"state_dict": state | {"score_predictor.weight": torch.zeros(1)}}, "does not know, 'score_predictor.weight'"),
        ({"state_dict": state | {"ln_final.weight": bad}}, "holds NaN or infinity in 'ln_final.weight'"),
        (state, "has no 'state_dict'"),
    ):
        torch.save(wrong, path)
        with pytest.raises(UserError, match=sentence):
            HPSv2(path, architecture="ViT-small")
    with pytest.raises(UserError, match="Unknown HPS version 'v3'"):
        HPSv2(path, "v3", architecture="ViT-small")


def test_hps_versions_have_names_of_their_own(hps, tmp_path):
    model, _ = hps
    for file, version, name in (
        ("HPS_v2_compressed.pt", "v2.0", "hpsv2"),
        ("HPS_v2.1_compressed.pt", "v2.1", "hpsv2.1"),
    ):
        torch.save({"state_dict": model.state_dict()}, tmp_path / file)
        metric = HPSv2(tmp_path / file, architecture="ViT-small")
        assert (metric.name, metric.provenance["version"]) == (name, version)
    other = tmp_path / "mine.pt"
    (tmp_path / "HPS_v2_compressed.pt").rename(other)
    assert HPSv2(other, "v2.0", architecture="ViT-small").name == "hpsv2"
    assert HPSv2(other, version="v2.1", architecture="ViT-small").name == "hpsv2.1"
    with pytest.raises(UserError, match="gone.pt is missing"):
        HPSv2(tmp_path / "gone.pt", architecture="ViT-small")
    with pytest.raises(UserError, match="mine.pt may be either HPS version: name it HPS_v2_compressed.pt or HPS_v2.1_"):
        HPSv2(other, architecture="ViT-small")


def test_the_published_hps_architecture_is_open_clips():
    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config("ViT-H-14"))
    assert sum(p.numel() for p in model.parameters()) == 986_109_441
    assert "transformer.resblocks.23.attn.in_proj_weight" in model.state_dict()
