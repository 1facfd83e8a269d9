"""What the training of stand-ins shares: the same command makes the same weights, half of the pictures are spoiled."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from t2ikit.data.world import get_world
from t2ikit.standins import contrastive, training, vqa
from t2ikit.standins.assets import WEIGHTS

SMALL = {
    contrastive: contrastive.ContrastiveConfig(pool=16, images=32, batch=16, width=16),
    vqa: vqa.VQAConfig(pool=16, images=64, batch=16, questions=4, width=16),
}


@pytest.mark.parametrize("model, loaded", [(contrastive, "ContrastiveScore"), (vqa, "StandinVQA")])
def test_the_same_command_makes_the_same_weights(model, loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(contrastive, "WORLDS", {"scenes": ("sparse", "medium")})
    monkeypatch.setattr(model, "evaluate", lambda trained: {})
    monkeypatch.setattr(model, loaded, lambda folder: None)
    small = SMALL[model]
    configs = {"a": small, "b": small, "fewer": replace(small, images=small.images // 2)}
    for name, config in configs.items():
        model.train(tmp_path / name, config)
    first, second, fewer = (load_file(tmp_path / name / WEIGHTS) for name in configs)
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert any(not torch.equal(first[k], fewer[k]) for k in first)  # it trains


def test_pictures_are_spoiled_by_half_and_stay_pictures():
    index = np.arange(60)
    images = torch.from_numpy(get_world("scenes").images("val", index)).permute(0, 3, 1, 2).float() / 127.5 - 1
    made = training.spoiled(images, torch.Generator().manual_seed(0))
    assert made.shape == images.shape and made.abs().max() <= 1
    same = (made - images).abs().amax((1, 2, 3)) < 1e-3
    assert 0.1 < same.float().mean() < 0.5
