"""From a configuration to its parts: resolved backbone, world, frozen encoders, and the identity that hashes them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from t2ikit.config import RunConfig, digest, run_id
from t2ikit.data.world import World, get_world
from t2ikit.encoders import ImageCodec, TextEncoder, image_codec, text_encoder
from t2ikit.errors import UserError, choose
from t2ikit.models import zoo
from t2ikit.models.spec import BackboneSpec
from t2ikit.objectives import Objective, objective


@dataclass(frozen=True)
class Parts:
    """What a configuration names, found and checked against one another before anything is computed."""

    config: RunConfig
    spec: BackboneSpec
    world: World
    codec: ImageCodec
    text: TextEncoder
    objective: Objective

    @property
    def resolved(self) -> dict[str, Any]:
        """The numbers and fingerprints behind the names, part of the run's id."""
        return {
            "spec": dataclasses.asdict(self.spec),
            "world_fingerprint": self.world.fingerprint,
            "codec_fingerprint": self.codec.fingerprint,
            "text_fingerprint": self.text.fingerprint,
        }

    @property
    def id(self) -> str:
        return run_id(self.config, self.resolved)

    @property
    def loss_space(self) -> str:
        """Hash of what two losses must share to be compared: codec, objective, captions, validation images, probe."""
        return digest(
            {
                "codec": self.codec.fingerprint,
                "objective": self.config.objective,
                "captions": self.config.captions,
                "validation": self.world.split_fingerprint("val"),
                "resolution": self.config.resolution,
                "probe": [1, self.config.probe_images],
            }
        )

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return (self.spec.latent_channels, self.spec.latent_side, self.spec.latent_side)


def resolve(config: RunConfig) -> Parts:
    """The parts of `config`. A pair that does not fit is one sentence."""
    spec = zoo.spec(config.backbone).at(config.tier, config.resolution)
    world = get_world(config.world, size=config.resolution)
    choose(f"captions of {config.world}", config.captions, world.densities)
    codec, text = image_codec(config.codec), text_encoder(config.text)
    if (codec.factor, codec.channels) != (spec.vae_factor, spec.latent_channels):
        raise UserError(
            f"The codec {config.codec!r} gives {codec.channels} channels at 1/{codec.factor}, and {spec.name} at "
            f"tier {config.tier} takes "
            f"{spec.latent_channels} at 1/{spec.vae_factor}: choose another codec or tier."
        )
    if (text.max_tokens, text.width) != (spec.text_tokens, spec.text_width):
        raise UserError(
            f"The text encoder {config.text!r} gives {text.max_tokens} tokens of width {text.width} and {spec.name} "
            f"at tier {config.tier} "
            f"takes {spec.text_tokens} of {spec.text_width}: choose another text encoder or tier."
        )
    return Parts(config, spec, world, codec, text, objective(config.objective))
