"""The CLIP score and features of a small open_clip model against its own forward pass."""

import numpy as np
import pytest
import torch

from t2ikit.errors import UserError
from t2ikit.metrics.clip import CLIPScore
from t2ikit.metrics.features import features
from t2ikit.metrics.images import as_pil

from .conftest import PROMPTS


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
