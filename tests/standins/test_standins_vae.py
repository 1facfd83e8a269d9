"""The small VAEs: that their command makes the same weights again, in a form that is loaded."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from t2ikit.data.world import get_world
from t2ikit.encoders import image_codec
from t2ikit.files import read_json
from t2ikit.standins import vae

SMALL = vae.VAEConfig(images=24, ema=False, batch=8, channels=(8, 8, 8))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders of small VAEs: one and the same twice, one trained less, one averaged."""
    root = tmp_path_factory.mktemp("vae")
    configs = {"a": SMALL, "b": SMALL, "fewer": replace(SMALL, images=16), "average": replace(SMALL, ema=True)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vae, "CONFIGS", configs)
        patch.setattr(vae, "get_world", lambda name: get_world("scenes"))
        patch.setattr(vae, "evaluate", lambda codec: {"of": codec})
        for name in configs:
            vae.train(name, root / name)
    return root


def test_the_same_command_makes_the_same_weights(trained):
    a, b, fewer, average = (
        load_file(trained / name / "diffusion_pytorch_model.safetensors") for name in ("a", "b", "fewer", "average")
    )
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], fewer[k]) for k in a)  # it trains
    # of three steps the last alone is in the last tenth: its average is what it is
    assert all(torch.equal(a[k], average[k]) for k in a)
    told = read_json(trained / "a" / "training.json")
    assert told["config"]["images"] == 24 and told["of"] == f"local-dir:{trained / 'a'}" and told["threads"] >= 1


def test_latents_have_unit_deviation(trained):
    latents = image_codec(f"local-dir:{trained / 'a'}").encode(get_world("scenes").images("train", np.arange(512)))
    assert latents.mean((0, 2, 3)).tolist() == pytest.approx([0] * 4, abs=0.1)
    assert latents.std((0, 2, 3)).tolist() == pytest.approx([1] * 4, abs=0.1)
