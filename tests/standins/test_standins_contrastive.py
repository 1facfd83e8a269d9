"""The contrastive model: CLIP's loss, its shipped weights, and what it refuses."""

import numpy as np
import pytest
import torch

from t2ikit.data.world import get_world
from t2ikit.encoders import ASSETS
from t2ikit.errors import UserError
from t2ikit.files import read_json
from t2ikit.standins import contrastive
from t2ikit.standins.assets import WEIGHTS

shipped = pytest.mark.skipif(not (ASSETS / contrastive.NAME / WEIGHTS).exists(), reason="no weights")


def unit(n, seed):
    return torch.nn.functional.normalize(torch.randn(n, 8, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_the_loss_is_clips():
    from open_clip.loss import ClipLoss

    images, texts, scale = unit(6, 0), unit(6, 1), torch.tensor(2.5)
    ours = contrastive.contrastive_loss(images, texts, scale, list("abcdef"))
    torch.testing.assert_close(ours, ClipLoss()(images, texts, scale.exp()))


def test_an_equal_caption_is_no_wrong_one_and_a_flipped_one_is():
    images, texts, scale = unit(3, 0), unit(3, 1), torch.tensor(2.5)
    twice = torch.cat([texts[:2], texts[:1]])
    alone = contrastive.contrastive_loss(images[:2], texts[:2], scale, ["a", "b"])
    same = contrastive.contrastive_loss(torch.cat([images[:2], images[:1]]), twice, scale, ["a", "b", "a"])
    assert same < contrastive.contrastive_loss(torch.cat([images[:2], images[:1]]), twice, scale, ["a", "b", "c"])
    flipped = contrastive.contrastive_loss(images[:2], texts, scale, ["a", "b", "wrong for all"])
    assert flipped > alone
    assert contrastive.contrastive_loss(images[:2], twice, scale, ["a", "b", "a"]) < flipped


@pytest.fixture(scope="module")
def model():
    return contrastive.ContrastiveScore()


@shipped
def test_it_retrieves_as_well_as_it_is_said_to(model):
    world, index = get_world("scenes"), np.arange(500)
    images = contrastive.as_tensor(world.images("val", index))
    said = world.captions("val", index, "medium")
    scores = read_json(ASSETS / contrastive.NAME / "training.json")["retrieval_at_1"]["scenes/medium"]
    best = (model.images(images) @ model.texts(said).T).argmax(1)
    found = np.mean([said[k] == s for k, s in zip(best, said, strict=True)])
    assert found == pytest.approx(scores["to_text"], abs=0.02)
    own, others = model(images, said), model(images, said[1:] + said[:1])
    assert own.mean() > others.mean() + 0.3 and np.abs(own).max() <= 1 + 1e-6


@shipped
def test_a_score_is_the_same_whatever_is_scored_beside_it(model):
    world, index = get_world("scenes"), np.arange(5)
    images, said = contrastive.as_tensor(world.images("val", index)), world.captions("val", index, "dense")
    alone = [model(images[[k]], [said[k]])[0] for k in index]
    np.testing.assert_allclose(model(images, said), alone, atol=1e-5)


@shipped
def test_what_it_cannot_read_is_one_sentence(model):
    with pytest.raises(UserError, match="reads images of 64 × 64 px, not 32 × 32: choose a CLIP model by name"):
        model(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), ["a"])
    with pytest.raises(UserError, match="2 prompts: give a prompt for each image"):
        model(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), ["a", "b"])
