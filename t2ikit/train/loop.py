"""The training loop: one run, resumable bit for bit. To resume, run the same command again."""

from __future__ import annotations

import dataclasses
import functools
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from tqdm.auto import tqdm

from t2ikit import files, runs
from t2ikit.cache import EncodedSplit, cached_latents, cached_states
from t2ikit.config import Budget, RunConfig
from t2ikit.encoders import batches
from t2ikit.errors import UserError
from t2ikit.hardware import gemm_peak
from t2ikit.objectives import sample_losses
from t2ikit.probe import Probe, make_probe
from t2ikit.processes import STOPS, catching, leave
from t2ikit.train import ema
from t2ikit.train.checkpoint import load_checkpoint, pack_optimizer, save_checkpoint, save_snapshot, unpack_optimizer
from t2ikit.train.draw import draw
from t2ikit.train.folder import check_evaluated, check_folder, check_resumable, is_done, run_folder, writer
from t2ikit.train.journal import Journal, memory_bytes
from t2ikit.train.setup import Parts, resolve


def train(config: RunConfig, budget: Budget, root: Path | None = None, parts: Parts | None = None) -> Path:
    """Train `config` up to `budget.steps` steps and return its run folder; a run that has as many is returned as it is.

    Under `accelerate launch` its processes share each batch, and the first alone writes. Raises `Busy` if another
    training has the run, `UserError` if a part does not fit or the loss stops being finite.
    """
    parts = parts or resolve(config)
    folder = run_folder(parts, root)
    check_folder(folder, parts)
    check_evaluated(folder, budget)
    if is_done(folder, budget.steps):
        return folder
    with writer(folder) as lease, same_threads():
        if not is_done(folder, budget.steps):  # it may have been trained while this process asked for the lease
            check_resumable(folder)
            identity = {"id": parts.id, "config": dataclasses.asdict(config), "loss_space": parts.loss_space}
            if lease:
                files.write_json(folder / "config.json", identity | parts.resolved)
            Loop(parts, budget, folder, lease).run()
    return folder


@contextmanager
def same_threads() -> Iterator[None]:
    """As many threads after a training as before it: one that asks for all cores may follow in this process."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Loop:
    """One start of one run: what the configuration and the checkpoint give, and the steps after it."""

    def __init__(self, parts: Parts, budget: Budget, folder: Path, lease: runs.Lease | None) -> None:
        config = parts.config
        segments = files.read_lines(folder / "segments.jsonl", ("threads",))
        if budget.threads or segments:  # another number of threads gives other weights after a few steps
            torch.set_num_threads(budget.threads or segments[0]["threads"])
        self.parts, self.config, self.budget, self.folder, self.lease = parts, config, budget, folder, lease
        AcceleratorState._reset_state()  # a process may train runs of several precisions, one after the other
        self.accelerator = Accelerator(mixed_precision={"fp32": "no", "bf16": "bf16"}[config.precision])
        self.device, self.processes = self.accelerator.device, self.accelerator.num_processes
        parts.codec.to(self.device), parts.text.to(self.device)
        if config.batch % self.processes:
            raise UserError(
                f"A batch of {config.batch} does not divide among {self.processes} processes: choose another number "
                "of processes, or another batch with --set batch=…."
            )
        model = parts.spec.build(seed=config.seed)
        self.names = [name for name, _ in model.named_parameters()]
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
        )
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.raw = self.accelerator.unwrap_model(self.model)
        self.weights = list(self.raw.parameters())
        self.average = [p.detach().clone() for p in self.weights]
        self.gamma = ema.power_of(config.ema_std)
        self.forward: nn.Module = torch.compile(self.model) if config.compile else self.model
        self.journal = Journal(folder, lease, parts, parts.spec.cost())
        self.step = self.saved = self.restore()

    def state(self) -> dict[str, Tensor]:
        """All that the coming steps depend on, besides the configuration and the step's number."""
        tensors = {f"model.{n}": p for n, p in zip(self.names, self.weights, strict=True)}
        tensors |= {f"ema.{n}": p for n, p in zip(self.names, self.average, strict=True)}
        return tensors | pack_optimizer(self.optimizer, self.names)

    @torch.no_grad()
    def restore(self) -> int:
        """Take up the last checkpoint, if there is one; returns the steps done."""
        found = load_checkpoint(self.folder)
        if found is None:
            return 0
        step, tensors = found
        for name, weight, average in zip(self.names, self.weights, self.average, strict=True):
            weight.copy_(tensors[f"model.{name}"])
            average.copy_(tensors[f"ema.{name}"])
        unpack_optimizer(self.optimizer, self.names, tensors)
        return step

    def run(self) -> None:
        """From the restored step to the budget's last. What a killed run still owes is found in its folder."""
        self.journal.begin(self.step, self.device, self.processes, self.budget.micro_batch)
        self.journal.write_row(self.step, "running")
        since, received = time.monotonic(), list[int]()

        def note(signum: int) -> None:
            received.append(signum)
            if (self.processes == 1 and self.saved == self.step) or received.count(signal.SIGINT) > 1:
                leave(signum)  # at once: nothing would be lost, or there is no more patience

        with catching(note, *STOPS), self.progress() as bar:
            while True:
                last = self.step >= self.budget.steps
                due = last or self.budget.evaluates(self.step)
                if due and self.journal.evaluated != self.step:
                    self.evaluate()
                if last:
                    break
                self.interval(received, bar)
                stop = received if self.processes == 1 else self.anywhere(received)
                old = time.monotonic() - since >= self.budget.checkpoint_seconds
                # before an evaluation too, which takes longer than a job that is told to stop may have
                if stop or old or self.step >= self.budget.steps or self.budget.evaluates(self.step):
                    if not torch.stack(torch._foreach_norm(self.weights)).isfinite().all():
                        self.fail(f"after step {self.step}", self.step)
                    if self.lease:
                        save_checkpoint(self.folder, self.step, self.state(), self.lease)
                    since, self.saved = time.monotonic(), self.step
                if stop and self.step < self.budget.steps:
                    self.journal.write_row(self.step, "stopped")
                    leave(signal.SIGINT if signal.SIGINT in received else signal.SIGTERM)
        self.journal.write_row(self.step, "done")

    def encoding(self) -> float:
        """Seconds that shards took which were not there: whichever run comes first encodes them for all, and its hours
        are not that run's."""
        return self.latents.encoding + self.states.encoding

    def interval(self, received: list[int], bar: tqdm) -> None:
        """Train to the next step that is logged or evaluated, or until a signal, and log the interval."""
        _ = self.null  # loads the text encoder
        encoding, start, first = self.encoding(), time.monotonic(), self.step
        total = torch.zeros(2, device=self.device)  # losses and gradient norms: not finite if any of them is not
        while True:
            total += self.train_step(*self.batch())
            bar.update()
            marked = self.step % self.budget.log_every == 0 or self.budget.evaluates(self.step)
            if marked or self.step >= self.budget.steps or (received and self.processes == 1):
                break
        loss, norm = self.accelerator.reduce(total / (self.step - first), "mean").tolist()
        if not math.isfinite(loss + norm):
            self.fail(f"between steps {first} and {self.step}", first)
        seconds = time.monotonic() - start - (self.encoding() - encoding)
        rate = (self.step - first) * self.config.batch / seconds
        self.journal.seconds += seconds
        bar.set_postfix(loss=f"{loss:.4f}", images_s=f"{rate:.0f}", refresh=False)
        self.journal.log(
            self.step,
            {
                "loss": loss,
                "grad_norm": norm,
                "images_per_second": rate,
                "mfu": rate * self.journal.cost.flops_train / self.peak / self.processes,
                "memory_bytes": memory_bytes(self.device),
            },
        )
        self.journal.write_row(self.step, "running")

    def anywhere(self, received: list[int]) -> bool:
        """Whether any process received a signal: all stop at the same step."""
        return bool(self.accelerator.reduce(torch.tensor(len(received), device=self.device), "sum"))

    def fail(self, where: str, step: int) -> None:
        """Stop at a loss that is not finite; the last checkpoint, from before it, stays."""
        found = load_checkpoint(self.folder)
        self.journal.write_row(step, "failed")
        raise UserError(
            f"The loss of {self.parts.id} is not finite {where}; the checkpoint of step {found[0] if found else 0} is "
            f"kept: train again with a lower lr (now {self.config.lr:g}) or grad_clip (now {self.config.grad_clip:g})."
        )

    @functools.cached_property
    def latents(self) -> EncodedSplit:
        return cached_latents(self.parts.world, "train", self.parts.codec)

    @functools.cached_property
    def states(self) -> EncodedSplit:
        return cached_states(self.parts.world, "train", self.config.captions, self.parts.text)

    @functools.cached_property
    def null(self) -> tuple[Tensor, ...]:
        """States and mask of the empty caption."""
        return tuple(x.to(self.device) for x in self.parts.text.encode([""]))

    @functools.cached_property
    def probe(self) -> Probe:
        parts = self.parts
        return make_probe(parts.world, self.config.captions, parts.codec, parts.text, self.config.probe_images)

    @functools.cached_property
    def peak(self) -> float:
        return gemm_peak(self.config.precision)

    def batch(self) -> tuple[Tensor, ...]:
        """x0, noise, u, states, mask of the coming step: this process's slots."""
        config, shape = self.config, self.parts.latent_shape
        drawn = draw(config.seed, self.step, config.batch, self.latents.n, shape, config.caption_dropout)
        mine = slice(self.accelerator.process_index, None, self.processes)
        x0 = self.latents.rows(drawn.indices[mine])["latents"]
        text = self.states.rows(drawn.indices[mine])
        tensors = (x0, drawn.noise[mine], drawn.u[mine], text["states"], text["mask"], drawn.dropped[mine])
        x0, noise, u, states, mask, dropped = (x.to(self.device, non_blocking=True) for x in tensors)
        states = torch.where(dropped[:, None, None], self.null[0], states)
        return x0, noise, u, states, torch.where(dropped[:, None], self.null[1], mask)

    def train_step(self, x0: Tensor, noise: Tensor, u: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """One optimiser step; returns (mean loss, gradient norm) as a tensor of two."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * min(1.0, (self.step + 1) / max(1, self.config.warmup))
        objective, n = self.parts.objective, len(x0)
        tensors = (x0, noise, objective.timesteps(u), states, mask)
        loss = torch.zeros((), device=self.device)
        for piece in batches(n, self.budget.micro_batch or n):
            # gradients are exchanged between processes once a step
            with nullcontext() if piece.stop >= n else self.accelerator.no_sync(self.model):
                part = sample_losses(self.forward, objective, *(x[piece] for x in tensors))
                part = part.mean() * (len(part) / n)
                self.accelerator.backward(part)
            loss += part.detach()
        norm = self.accelerator.clip_grad_norm_(self.weights, self.config.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        ema.update(self.average, self.weights, self.step, self.gamma)
        return torch.stack([loss, norm.detach()])

    def evaluate(self) -> None:
        """Log the probe's numbers for the raw weights (paper S scores those), where it is asked for the validation loss
        of the averaged ones (an isoFLOP study's, at a constant rate), and keep a snapshot."""
        probe, start, objective = self.probe, time.monotonic(), self.parts.objective
        self.raw.eval()
        found = probe.measure(self.raw, objective, self.device)
        if self.budget.averages(self.step):
            with self.averaged():
                found |= {"val_loss_averaged": probe.loss(self.raw, objective, self.device)["val_loss"]}
        self.raw.train()
        if not math.isfinite(found["val_loss"] + found["caption_gap"]):
            self.fail(f"on validation images at step {self.step}", self.step)
        if self.lease:
            average = dict(zip(self.names, self.average, strict=True))
            save_snapshot(self.folder, self.step, self.raw, average, self.lease)
        self.journal.log(self.step, found | {"eval_seconds": round(time.monotonic() - start, 2)})

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The averaged weights in place of the raw ones, which come back unchanged."""
        kept = [p.detach().clone() for p in self.weights]
        try:
            self.replace(self.average)
            yield
        finally:
            self.replace(kept)

    @torch.no_grad()
    def replace(self, tensors: list[Tensor]) -> None:
        torch._foreach_copy_(self.weights, tensors)

    def progress(self) -> tqdm:
        return tqdm(
            total=self.budget.steps,
            initial=self.step,
            desc=self.parts.id,
            unit="step",
            mininterval=1.0,
            disable=not self.accelerator.is_main_process,
        )
