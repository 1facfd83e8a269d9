"""A run's configuration and its identity.

What changes the weights is in `RunConfig` and so in the run's id; what does not (device, logging intervals, and the
number of steps, since a constant rate makes more steps an extension) is in `Budget`. The id is the first 12 hex digits
of the SHA-256 of the canonical JSON of `RunConfig`, with its backbone resolved to numbers, and its world and encoders
to fingerprints in place of their names.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field, fields, replace
from typing import Any

from t2ikit.errors import UserError, choose

NUMERICS = 1  # raised by hand when a golden-loss test changes: the same config then means another run

# names whose meaning is in the id as numbers and fingerprints (a codec's name may be a path), and evaluation
NOT_IN_ID = ("tier", "world", "codec", "text", "probe_images")

TIERS = ("smoke", "tiny", "small", "paper")
OBJECTIVES = ("ddpm-eps", "ddpm-v", "rf-uniform", "rf-logit-normal")
PRECISIONS = ("fp32", "bf16")


def canonical(obj: Any) -> str:
    """JSON with sorted keys, no spaces, and only finite numbers: equal objects give equal text."""
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        obj = dataclasses.asdict(obj)
    return json.dumps(obj, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def digest(obj: Any, n: int = 12) -> str:
    """First `n` hex digits of the SHA-256 of `canonical(obj)`."""
    return hashlib.sha256(canonical(obj).encode()).hexdigest()[:n]


@dataclass(frozen=True)
class RunConfig:
    """What decides the weights and the loss space of a run.

    Built by `t2ikit.study.preset`, overridden with `--set key=value`.
    """

    backbone: str  # a name of `t2ikit models`
    world: str  # a name of `t2ikit data`
    tier: str = "tiny"  # decides the size of the backbone; not part of the id, the resolved spec is
    seed: int = 0
    objective: str = "ddpm-eps"
    captions: str = "medium"  # which captions of the world: its densities
    caption_dropout: float = 0.1  # share of samples trained on the empty caption (classifier-free guidance)
    resolution: int = 64  # pixels
    codec: str = "sdxl-like"  # image codec (VAE), see t2ikit.encoders
    text: str = "minilm-64"  # text encoder, see t2ikit.encoders
    batch: int = 64  # images a step, over all processes
    lr: float = 1e-3  # AdamW, after warm-up constant
    warmup: int = 100  # steps of linear warm-up
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    grad_clip: float = 1.0  # global norm
    ema_std: float = 0.10  # relative width of the power-function EMA (Karras et al. 2024, eq. 127)
    precision: str = "fp32"
    compile: bool = False
    probe_images: int = 256  # validation images of every evaluation; part of the loss space, not of the id

    def __post_init__(self) -> None:
        _check_types(self)
        choose("tier", self.tier, TIERS)
        choose("objective", self.objective, OBJECTIVES)
        choose("precision", self.precision, PRECISIONS)
        _between("seed", self.seed, 0, 2**31 - 1)
        _between("caption_dropout", self.caption_dropout, 0, 1)
        _between("resolution", self.resolution, 8, 4096)
        _between("batch", self.batch, 1, 65536)
        _between("lr", self.lr, 1e-8, 1)
        _between("warmup", self.warmup, 0, 10**7)
        _between("weight_decay", self.weight_decay, 0, 10)
        _between("grad_clip", self.grad_clip, 1e-6, 1e6)
        _between("ema_std", self.ema_std, 0.01, 0.28)
        for beta in self.betas:
            _between("betas", beta, 0, 0.999999)
        _between("probe_images", self.probe_images, 2, 65536)

    @property
    def setting(self) -> str:
        """Digest of all but backbone, seed and rate: runs of one comparison share it."""
        return digest({k: v for k, v in dataclasses.asdict(self).items() if k not in ("backbone", "seed", "lr")})


@dataclass(frozen=True)
class Budget:
    """How long, and how often to look. None of it changes the weights at a given step, so none of it is in the id."""

    steps: int = 1600
    log_every: int = 20  # steps between rows of the log
    eval_every: int = 160  # steps between validations, each with a weight-only snapshot
    eval_at: tuple[int, ...] = ()  # more steps to validate at: where a run passes the budgets of an isoFLOP study
    checkpoint_seconds: float = 120.0  # least time between checkpoints
    threads: int = field(default=0)  # CPU threads; 0: all cores
    micro_batch: int = 0  # images a forward pass, to save memory; 0: a process's whole share of the batch

    def __post_init__(self) -> None:
        _check_types(self)
        _between("steps", self.steps, 1, 10**9)
        _between("log_every", self.log_every, 1, 10**9)
        _between("eval_every", self.eval_every, 1, 10**9)
        for step in self.eval_at:
            _between("eval_at", step, 1, 10**9)
        _between("checkpoint_seconds", self.checkpoint_seconds, 0, 1e9)
        _between("threads", self.threads, 0, 4096)
        _between("micro_batch", self.micro_batch, 0, 10**9)

    def evaluates(self, step: int) -> bool:
        """Whether `step` is one to validate at, the last apart."""
        return step > 0 and (step % self.eval_every == 0 or step in self.eval_at)

    def averages(self, step: int) -> bool:
        """Whether the averaged weights are validated at `step` too: at a study's points and at the last."""
        return step in self.eval_at or step >= self.steps


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # a NaN is not
        raise UserError(f"{name} = {_shown(value)} is out of range: give a number from {low:g} to {high:g}.")


def _check_types(owner: RunConfig | Budget) -> None:
    """Every field as its declared type, so that 1 and 1.0 are one configuration, or a UserError."""
    for f in fields(owner):
        object.__setattr__(owner, f.name, _as_type(f.name, getattr(owner, f.name), str(f.type)))


def override(config: RunConfig, budget: Budget, settings: dict[str, Any]) -> tuple[RunConfig, Budget]:
    """`config` and `budget` with the fields in `settings` replaced; text read as JSON where the field is not text."""
    types = {f.name: (owner, f.type) for owner in (RunConfig, Budget) for f in fields(owner)}
    changed: dict[type, dict[str, Any]] = {RunConfig: {}, Budget: {}}
    for key, value in settings.items():
        choose("setting", key, types)
        owner, kind = types[key]
        changed[owner][key] = _read(key, value, kind)
    return replace(config, **changed[RunConfig]), replace(budget, **changed[Budget])


def _read(key: str, value: Any, kind: str) -> Any:
    """`value` as the type that the field `key` declares; text is read as JSON where the field is not text."""
    if isinstance(value, str) and kind != "str":
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise _wrong_type(key, value, kind) from None
    return _as_type(key, value, kind)


# declared type → what to call it, an example, and the types of its values
KINDS: dict[str, tuple[str, str, tuple[type, ...]]] = {
    "int": ("a whole number", "7", (int,)),
    "float": ("a number", "1e-3", (float, int)),
    "bool": ("true or false", "true", (bool,)),
    "str": ("text", "name", (str,)),
    "tuple[float, float]": ("a pair of numbers", "[0.9,0.99]", (tuple, list)),
    "tuple[int, ...]": ("a list of whole numbers", "[1000,2500]", (tuple, list)),
}


def _as_type(key: str, value: Any, kind: str) -> Any:
    types = KINDS[kind][2]
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise _wrong_type(key, value, kind)
    if kind.startswith("tuple"):
        element = kind[6 : kind.index(",")]
        some_length = "..." in kind or len(value) == 2
        if not some_length or not all(isinstance(v, KINDS[element][2]) and not isinstance(v, bool) for v in value):
            raise _wrong_type(key, value, kind)
        return tuple(_as_type(key, v, element) for v in value)
    if kind == "float":
        try:
            return float(value) + 0.0  # −0.0 becomes 0.0: one number, one text in the id
        except OverflowError:
            raise _wrong_type(key, value, kind) from None
    return value


def _wrong_type(key: str, value: Any, kind: str) -> UserError:
    what, example, _ = KINDS[kind]
    return UserError(f"{key} = {_shown(value)} is not {what}: write it as {key}={example}.")


def _shown(value: Any) -> str:
    """`value` on one line and not too long."""
    try:
        text = repr(value)
    except ValueError:  # Python prints no whole number of more than 4,300 digits
        text = "a number too long to print"
    return text if len(text) <= 80 else f"{text[:77]}…"


def run_id(config: RunConfig, resolved: dict[str, Any]) -> str:
    """`BACKBONE-` + 12 hex digits.

    `resolved` holds the backbone's numbers and the fingerprints of world, text encoder and codec.
    """
    identity = dataclasses.asdict(config) | resolved | {"numerics": NUMERICS}
    for name in NOT_IN_ID:
        del identity[name]
    return f"{config.backbone}-{digest(identity)}"
