"""The training loop: golden losses, resuming bit for bit, one writer, and what stops a run."""

import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import torch

from t2ikit import files, runs
from t2ikit.cache import EncodedSplit, cached_latents
from t2ikit.errors import Busy, UserError
from t2ikit.files import read_json, read_lines, write_atomic, write_json
from t2ikit.runs import holder_of
from t2ikit.tensors import pack, read_tensors
from t2ikit.train import ema
from t2ikit.train.checkpoint import load_checkpoint, load_snapshot
from t2ikit.train.folder import is_done, run_folder
from t2ikit.train.loop import Loop, train
from t2ikit.train.setup import resolve
from t2ikit.workers import command, found

# Real processes that need not import torch again: forked from one that has, and that has no threads. Forked from the
# tests' own, which has them, a child could wait for ever for a lock that no thread of it holds.
CLEAN = multiprocessing.get_context("forkserver")
CLEAN.set_forkserver_preload(["t2ikit.commands.training", "t2ikit.train.loop"])
STAMPS = ("seconds", "images_per_second", "mfu", "memory_bytes", "eval_seconds")


def weights_of(folder):
    """Bytes of all snapshots, by name."""
    return {p.name: p.read_bytes() for p in (folder / "snapshots").glob("step-*")}


def log_of(folder):
    return [{k: v for k, v in e.items() if k not in STAMPS} for e in read_lines(folder / "log.jsonl")]


def apart(config, budget, root=None):
    """`t2ikit train` in a process of its own."""
    line = command(config, budget, root or runs.home() / "runs")[2:]
    code = f"import os, sys, t2ikit.cli\nos.environ |= {dict(os.environ)}\nsys.argv = {line}\nt2ikit.cli.main()"
    child = CLEAN.Process(target=exec, args=(code, {}))
    child.start()
    return child


# what a run computes

# Raise config.NUMERICS with these: a run's id stands for what it computes, so once these change, the same configuration
# is another run.
GOLDEN = [1.0254698, 0.9269443, 0.9790617, 0.9440984]


def test_golden_losses(smoke):
    config, budget = smoke("sd2-c320", batch=4, probe_images=4)
    entries = [e for e in log_of(train(config, budget)) if "loss" in e]
    assert [e["loss"] for e in entries] == pytest.approx(GOLDEN, rel=1e-4)


def test_a_run_learns_and_writes_down_what_was_promised(trained):
    row, entries = runs.row(trained), read_lines(trained / "log.jsonl")
    assert row["status"] == "done" and row["exact_resume"] is True
    assert (row["run"], row["steps"], row["images"]) == (trained.name, 4, 8)
    assert set(runs.ROW_KEYS) <= set(row) and all(not isinstance(v, float) or math.isfinite(v) for v in row.values())
    assert [e["step"] for e in entries if "loss" in e] == [1, 2, 3, 4]
    assert [e["step"] for e in entries if "val_loss" in e] == [2, 4]
    scores = [e["val_loss"] for e in entries if "val_loss" in e]
    assert scores[0] > scores[-1] > 0
    assert all(0 < e["mfu"] < 1 for e in entries if "mfu" in e)
    assert sorted(weights_of(trained)) == ["step-00000002.safetensors", "step-00000004.safetensors"]
    assert row["flops_exact"] == entries[-1]["flops_exact"] > row["flops_paper"] > 0
    config = read_json(trained / "config.json")
    assert config["id"] == trained.name and config["loss_space"] == row["loss_space"]
    (segment,) = read_lines(trained / "segments.jsonl")
    assert (
        segment["first_step"] == 0
        and segment["threads"] == 1
        and segment["processes"] == 1
        and segment["versions"]["torch"]
    )
    assert not list(trained.rglob(".*.tmp")) and not (trained / "lease.json").exists()


def test_the_step_is_the_textbooks(smoke):
    """One step against plain torch: MSE of the noise, clipped gradient, AdamW at the warmed-up rate, EMA."""
    config, budget = smoke(steps=1, grad_clip=0.5, caption_dropout=0.5)
    parts = resolve(config)
    with runs.leased(run_folder(parts)) as lease:
        loop = Loop(parts, budget, run_folder(parts), lease)
        x0, noise, u, states, mask = loop.batch()
        loop.train_step(x0, noise, u, states, mask)
    model = parts.spec.build(seed=config.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.lr / config.warmup, betas=config.betas, weight_decay=config.weight_decay
    )
    t = (u * 1000).long()
    a = parts.objective.scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
    loss = (model(a.sqrt() * x0 + (1 - a).sqrt() * noise, t, states, mask) - noise).square().mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    optimizer.step()
    for ours, theirs in zip(loop.weights, model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    assert all(torch.equal(a, w) for a, w in zip(loop.average, loop.weights, strict=True))  # after the first step


def test_averaged_weights_are_the_power_weighted_mean(smoke):
    config, budget = smoke(steps=3, eval_every=1)
    folder = train(config, budget)
    gamma, snapshots = ema.power_of(config.ema_std), [load_snapshot(folder, k) for k in (1, 2, 3)]
    share = np.diff((np.arange(4) / 3) ** (gamma + 1))
    for name in [k for k in snapshots[0] if not k.startswith("ema.")][::7]:
        wanted = sum(w * s[name].double() for w, s in zip(share, snapshots, strict=True))
        torch.testing.assert_close(snapshots[-1][f"ema.{name}"].double(), wanted, atol=1e-6, rtol=1e-5)


def test_averaged_weights_are_validated_at_a_studys_points_and_at_the_end(smoke):
    config, budget = smoke(steps=4, eval_every=1, eval_at=[2])
    averaged = {e["step"]: "val_loss_averaged" in e for e in log_of(train(config, budget)) if "val_loss" in e}
    assert averaged == {1: False, 2: True, 3: False, 4: True}


def test_dropped_captions_are_the_empty_caption(smoke):
    config, budget = smoke(batch=8, caption_dropout=0.5)
    parts = resolve(config)
    with runs.leased(run_folder(parts)) as lease:
        loop = Loop(parts, budget, run_folder(parts), lease)
        _, _, _, states, mask = loop.batch()
    null, null_mask = parts.text.encode([""])
    empty = [torch.equal(s, null[0]) and torch.equal(m, null_mask[0]) for s, m in zip(states, mask, strict=True)]
    assert 0 < sum(empty) < 8


def test_two_precisions_one_after_the_other(smoke):
    folders = [train(*smoke(steps=1, precision=p)) for p in ("fp32", "bf16", "fp32")]
    assert folders[0] == folders[2] != folders[1]
    assert all(runs.row(f)["status"] == "done" for f in folders)


# resuming


@pytest.fixture
def whole(tmp_path):
    """Where runs that were not stopped are kept for comparison."""
    return tmp_path / "whole"


def test_killed_at_any_moment_and_run_again_is_the_same_run(smoke, home, whole, until):
    """SIGKILL at random moments, writing included; then the same command again."""
    config, budget = smoke(steps=24, eval_every=5, checkpoint_seconds=0.0)
    unbroken = train(config, budget, whole)
    rng, folder, kills = random.Random(0), home / "runs" / unbroken.name, 0
    while True:
        first, more, delay = log_length(folder), rng.randint(0, 3), rng.choice([0.0, 0.002, 0.01, 0.03, 0.1])
        child = apart(config, budget)
        until(lambda: not child.is_alive() or log_length(folder) > first + more)  # noqa: B023
        time.sleep(delay)
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
            kills += 1
        child.join()
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
    assert kills >= 2
    assert weights_of(folder) == weights_of(unbroken)
    assert log_of(folder) == log_of(unbroken)
    assert load_checkpoint(folder)[0] == 24
    assert runs.row(folder)["exact_resume"] is True


def log_length(folder):
    path = folder / "log.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_killed_in_the_middle_of_writing_a_checkpoint(smoke, home, whole, until):
    config, budget = smoke("sd2-c320", steps=6, checkpoint_seconds=0.0)  # 37 MB a checkpoint
    unbroken, folder = train(config, budget, whole), None
    for _ in range(3):
        child = apart(config, budget)
        folder = home / "runs" / unbroken.name
        until(lambda: not child.is_alive() or any(folder.glob(".checkpoint*.tmp")))  # noqa: B023
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
        child.join()
    train(config, budget)
    assert weights_of(folder) == weights_of(unbroken) and log_of(folder) == log_of(unbroken)
    assert not list(folder.rglob(".*.tmp"))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal_it_checkpoints_and_then_goes_on(smoke, home, whole, signum, until):
    config, budget = smoke(steps=8, eval_every=3)
    unbroken = train(config, budget, whole)
    folder = home / "runs" / unbroken.name
    child = apart(config, budget)
    until(lambda: log_length(folder) >= 3)
    os.kill(child.pid, signum)
    child.join()
    assert child.exitcode == 128 + signum
    step, _ = load_checkpoint(folder)
    assert 0 < step < 8
    row = runs.row(folder)
    assert (row["status"], row["steps"]) == ("stopped", step)
    assert holder_of(folder) is None
    train(config, budget)
    assert weights_of(folder) == weights_of(unbroken)
    assert [s["first_step"] for s in read_lines(folder / "segments.jsonl")] == [0, step]
    assert runs.row(folder)["status"] == "done"


def test_a_signal_while_nothing_is_unsaved_ends_it_at_once(smoke, home, whole, monkeypatch):
    """An evaluation, or the encoding of a shard, may take longer than a job that is told to stop has."""
    config, budget = smoke(steps=2, eval_every=1, checkpoint_seconds=1e9)
    unbroken = train(config, budget, whole)
    folder = home / "runs" / unbroken.name
    for name, signum, saved in (("batch", signal.SIGTERM, None), ("evaluate", signal.SIGUSR1, 1)):

        def stopped(_, signum=signum):
            signal.raise_signal(signum)
            pytest.fail("it went on")

        with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
            patch.setattr(Loop, name, stopped)
            train(config, budget)
        assert stop.value.code == 143 and runs.row(folder)["status"] == "stopped" and holder_of(folder) is None
        assert (found := load_checkpoint(folder)) is saved or found[0] == saved
    train(config, budget)
    assert weights_of(folder) == weights_of(unbroken) and log_of(folder) == log_of(unbroken)


def test_what_encodes_for_all_runs_is_not_the_first_ones_time(smoke, monkeypatch, tmp_path):
    """Each shard takes a day to encode, and whichever run meets it first has not trained for days."""
    monkeypatch.setenv("T2IKIT_HOME", str(tmp_path))
    make, clock, days = EncodedSplit._make, time.monotonic, []

    def slow(split, shard):
        make(split, shard)
        days.append(shard)

    monkeypatch.setattr(EncodedSplit, "_make", slow)
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 86400 * len(days))
    folder = train(*smoke(steps=2, seed=3))
    assert len(days) >= 2 and runs.row(folder)["seconds"] < 86400


def test_a_training_leaves_the_process_the_threads_it_had(smoke):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        train(*smoke(steps=1, threads=1))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_more_steps_extend_a_run_bit_for_bit(smoke, whole):
    settings = {"eval_every": 3, "eval_at": [3]}
    at_once = train(*smoke(steps=6, **settings), whole)
    first = train(*smoke(steps=3, **settings))
    assert runs.row(first)["steps"] == 3
    extended = train(*smoke(steps=6, **settings))
    assert extended == first and extended.name == at_once.name
    assert weights_of(extended) == weights_of(at_once) and log_of(extended) == log_of(at_once)
    before = {p: p.stat().st_mtime_ns for p in extended.rglob("*")}
    assert train(*smoke(steps=3, **settings)) == extended  # has them already
    assert {p: p.stat().st_mtime_ns for p in extended.rglob("*")} == before


def test_a_run_is_also_evaluated_at_the_steps_asked_for(smoke):
    config, budget = smoke(steps=6, eval_every=4, eval_at=[1, 5])
    folder = train(config, budget)
    assert [e["step"] for e in log_of(folder) if "val_loss" in e] == [1, 4, 5, 6]
    assert sorted(weights_of(folder)) == [f"step-{n:08d}.safetensors" for n in (1, 4, 5, 6)]


def test_a_run_that_passed_a_step_without_the_evaluation_asked_for_is_a_sentence(smoke):
    folder = train(*smoke(steps=4, eval_every=4))
    for steps in (4, 6):
        with pytest.raises(UserError, match=r"has 4 steps and was not evaluated at step 2, .* move the folder away"):
            train(*smoke(steps=steps, eval_every=4, eval_at=[2]))
    assert train(*smoke(steps=4, eval_every=4, eval_at=[4])) == folder


def test_an_evaluation_of_the_raw_weights_alone_is_not_a_studys(smoke):
    train(*smoke(steps=4, eval_every=2))
    with pytest.raises(UserError, match="has 4 steps and was not evaluated at step 2"):
        train(*smoke(steps=4, eval_every=2, eval_at=[2]))


def test_a_run_stays_complete_for_its_steps_while_it_is_trained_further(smoke):
    """A figure that needs the shorter run would wait for all of the longer one."""
    folder = train(*smoke(steps=2))
    write_json(folder / "row.json", read_json(folder / "row.json") | {"status": "stopped", "steps": 3})
    assert is_done(folder, 2) and not is_done(folder, 3) and not is_done(folder, 4)
    with runs.leased(folder):
        assert train(*smoke(steps=2)) == folder
        with pytest.raises(Busy):
            train(*smoke(steps=4))


def test_a_run_whose_checkpoint_is_gone_does_not_begin_again(smoke):
    folder = train(*smoke(steps=2))
    for path in folder.glob("checkpoint*"):
        path.unlink()
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lease.lock"}
    with pytest.raises(UserError, match="was evaluated at step 2 and has no checkpoint.json to go on from: restore it"):
        train(*smoke(steps=4))
    assert {p: p.read_bytes() for p in before} == before
    assert train(*smoke(steps=2)) == folder  # it has what is asked for


def test_steps_that_are_trained_again_can_still_be_evaluated(smoke):
    """Killed after a log line, long after its last checkpoint: the row is ahead of what training goes on from."""
    folder = train(*smoke(steps=2, eval_every=10))
    write_json(folder / "row.json", read_json(folder / "row.json") | {"status": "running", "steps": 5})
    train(*smoke(steps=6, eval_every=10, eval_at=[4]))
    assert [e["step"] for e in log_of(folder) if "val_loss_averaged" in e] == [2, 4, 6]


def test_an_evaluation_that_was_lost_is_made_up(smoke, whole, home):
    """Killed between the last checkpoint and its evaluation."""
    config, budget = smoke(steps=2)
    unbroken = train(config, budget, whole)
    folder = train(config, budget)
    lines = (folder / "log.jsonl").read_bytes().splitlines(keepends=True)
    assert b"val_loss" in lines.pop()
    (folder / "log.jsonl").write_bytes(b"".join(lines))
    write_json(folder / "row.json", read_json(folder / "row.json") | {"status": "running"})
    (folder / "snapshots" / "step-00000002.safetensors").unlink()
    train(config, budget)
    assert log_of(folder) == log_of(unbroken) and weights_of(folder) == weights_of(unbroken)


def test_another_environment_is_told_and_the_first_threads_come_back(smoke):
    config, budget = smoke(steps=1)
    folder = train(config, budget)
    segments = read_lines(folder / "segments.jsonl")
    segments[0]["versions"]["torch"] = "1.0"
    files.write_lines(folder / "segments.jsonl", segments)
    config, budget = smoke(steps=2, threads=0)
    torch.set_num_threads(2)
    try:
        train(config, budget)
    finally:
        torch.set_num_threads(1)
    assert runs.row(folder)["exact_resume"] is False
    assert [s["threads"] for s in read_lines(folder / "segments.jsonl")] == [1, 1]


def test_a_batch_in_small_passes_has_the_same_gradient(smoke, whole):
    at_once = train(*smoke(steps=2, eval_every=1), whole)
    folder = train(*smoke(steps=1, eval_every=1, micro_batch=3))  # 8 images: 3, 3 and 2
    assert runs.row(folder)["exact_resume"] is True
    train(*smoke(steps=2, eval_every=1, micro_batch=4))
    assert runs.row(folder)["exact_resume"] is False
    for one, other in zip(log_of(folder), log_of(at_once), strict=True):
        for key in {"loss", "grad_norm", "val_loss"} & set(one):
            assert one[key] == pytest.approx(other[key], rel=1e-5)


# one writer


def test_a_second_process_is_told_and_writes_nothing(smoke, home, until):
    config, budget = smoke(steps=400, eval_every=400)
    folder = run_folder(resolve(config))
    child = apart(config, budget)
    try:
        until(lambda: log_length(folder) >= 2)
        second = apart(config, budget)
        second.join()
        assert second.exitcode == 75
        with pytest.raises(
            Busy, match=f"{folder.name} is being trained by process {child.pid} on .*: wait for it, or stop it"
        ):
            train(config, budget)
        assert len(read_lines(folder / "segments.jsonl")) == 1
        assert runs.row(folder)["status"] == "running"
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    assert runs.row(folder)["status"] == "stopped"


def test_a_writer_whose_lease_was_taken_over_stops_before_its_next_write(smoke, home, until):
    config, budget = smoke(steps=400, eval_every=400)
    folder = run_folder(resolve(config))
    child = apart(config, budget)
    until(lambda: log_length(folder) >= 2)
    write_json(
        folder / "lease.json", {"host": "elsewhere", "pid": 1, "born": 0.0, "token": "theirs", "beat": time.time()}
    )
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    child.join()
    assert child.exitcode == 75
    after = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    assert after["lease.json"] == before["lease.json"]
    # at most the one write that it had checked for when the lease was taken
    assert sum(after[name] != before.get(name) for name in after) <= 1


# what stops a run


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(smoke, home, tmp_path):
    """A shard with a NaN in it, its checksum in order, met after a good checkpoint."""
    config, budget = smoke(steps=2)
    folder = train(config, budget)
    good = {p.name: p.read_bytes() for p in folder.glob("checkpoint*")}
    (home / "cache").unlink()
    (home / "cache").mkdir()
    parts = resolve(config)
    latents = cached_latents(parts.world, "train", parts.codec)
    for shard in range(-(-latents.n // 2048)):
        write_atomic(
            latents.shard_path(shard), pack({"latents": torch.full((2048, 4, 16, 16), torch.nan, dtype=torch.half)})
        )
    with pytest.raises(
        UserError,
        match=r"is not finite between steps 2 and 3; the checkpoint of step 2 is kept: train again with a lower lr",
    ):
        train(*smoke(steps=6))
    assert {p.name: p.read_bytes() for p in folder.glob("checkpoint*")} == good
    row = runs.row(folder)
    assert (row["status"], row["steps"]) == ("failed", 2) and math.isfinite(row["loss"])
    assert holder_of(folder) is None


def test_a_rate_that_is_too_high_is_one_sentence_and_json_stays_json(smoke):
    config, budget = smoke(steps=60, log_every=1, lr=1.0, grad_clip=1e6, warmup=0, weight_decay=10.0)
    try:
        folder = train(config, budget)
    except UserError as error:
        assert "is not finite" in str(error) and "\n" not in str(error)
        folder = run_folder(resolve(config))
        assert runs.row(folder)["status"] == "failed"
    for path in [*folder.glob("*.json"), *folder.glob("*.jsonl")]:
        assert "NaN" not in path.read_text() and "Infinity" not in path.read_text()
    if found := load_checkpoint(folder):
        assert all(t.isfinite().all() for t in found[1].values())


@pytest.mark.parametrize(
    "name", ["config.json", "row.json", "log.jsonl", "segments.jsonl", "checkpoint.json", "checkpoint"]
)
@pytest.mark.parametrize("damage", ["cut", "rubbish"])
def test_a_damaged_file_is_named_and_nothing_is_lost(trained, smoke, home, name, damage):
    folder = home / "runs" / trained.name
    shutil.copytree(trained, folder)
    write_json(folder / "row.json", read_json(folder / "row.json") | {"status": "stopped", "steps": 4})
    path = folder / "checkpoint-00000004.safetensors" if name == "checkpoint" else folder / name
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2 - 3] + b"\n" if damage == "cut" else b"\x00\xff" * 30 + b"\n" + data[60:])
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=path.name.replace(".", r"\.")) as error:
        train(*smoke(steps=6, probe_images=3, eval_every=2))
    assert "\n" not in str(error.value)
    after = {
        p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name not in (".lease.lock", "config.json")
    }
    assert all(before[p] == v for p, v in after.items())


def test_a_run_folder_without_its_configuration_is_one_sentence(trained, smoke, home):
    folder = home / "runs" / trained.name
    shutil.copytree(trained, folder)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"has a run's files but no config.json: restore it, or delete the folder"):
        train(*smoke(steps=6, probe_images=3))
    assert not (folder / "config.json").exists()


def test_another_loss_space_does_not_go_on_in_the_same_log(trained, smoke, home):
    shutil.copytree(trained, home / "runs" / trained.name)
    with pytest.raises(UserError, match=r"another loss space \(probe_images=3; now 2\)"):
        train(*smoke(steps=6, probe_images=2))
    with pytest.raises(UserError, match="another loss space"):
        train(*smoke(steps=4, probe_images=2))  # done, but its losses are not those asked for
    (run,) = found([smoke(steps=4, probe_images=2)], home / "runs")
    assert not run.done and "another loss space" in run.wrong


def test_a_damaged_cache_shard_stops_training_with_its_name(smoke, home, shared_cache):
    config, budget = smoke(steps=1)
    parts = resolve(config)
    (home / "cache").unlink()
    latents = cached_latents(parts.world, "train", parts.codec)
    shutil.rmtree(latents.folder)
    shutil.copytree(shared_cache / latents.folder.name, latents.folder)
    for path in latents.folder.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(UserError, match=r"\.safetensors is damaged: delete this cache shard and run again"):
        train(config, budget)


def test_a_full_disk_keeps_the_last_checkpoint_and_the_run_goes_on_later(smoke, home, whole, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a file system of our own needs root: cannot fill a disk")
    try:
        config, budget = smoke(steps=6, eval_every=100, checkpoint_seconds=0.0)
        unbroken = train(config, budget, whole)
        train(*smoke(steps=2, eval_every=100, checkpoint_seconds=0.0), disk)
        folder = disk / unbroken.name
        kept = load_checkpoint(folder)[0]
        with (disk / "filler").open("wb") as f:
            free = os.statvfs(disk)
            f.write(bytes(free.f_bavail * free.f_frsize - 200_000))
        with pytest.raises(UserError, match=r"The disk is full: .* what was there is kept; free space under"):
            train(config, budget, disk)
        assert load_checkpoint(folder)[0] >= kept
        (disk / "filler").unlink()
        train(config, budget, disk)
        final = "step-00000006.safetensors"
        assert weights_of(folder)[final] == weights_of(unbroken)[final]
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_what_does_not_fit_is_said_before_anything_is_computed(smoke, home):
    for settings, said in [
        ({"backbone": "sd2-c321"}, "Unknown backbone 'sd2-c321'.*did you mean 'sd2-c320'"),
        ({"captions": "long"}, "Unknown captions of scenes 'long'"),
        ({"resolution": 96}, "Scenes of 96 px are not drawn: choose 64 or 128."),
        ({"resolution": 100}, "latent side 25 is no multiple of patch 2"),
        ({"text": "minilm"}, "gives 20 tokens of width 384 and pixart-h1024-d28 at tier smoke takes 20 of 64"),
        ({"codec": "sd3"}, "Unknown image codec 'sd3'"),
    ]:
        with pytest.raises(UserError, match=said):
            train(*smoke(**settings))
    assert not (home / "runs").exists()


def test_nothing_is_loaded_or_encoded_for_a_run_that_is_done(trained, smoke, monkeypatch, home):
    shutil.copytree(trained, home / "runs" / trained.name)
    monkeypatch.setattr("t2ikit.train.loop.Loop", None)
    config, budget = smoke(probe_images=3)
    assert is_done(train(config, budget), 4)


def test_the_id_is_what_decides_the_weights_and_no_path(smoke, codec, tmp_path, trained):
    shutil.copytree(codec.removeprefix("local-dir:"), tmp_path / "moved")
    moved = resolve(smoke(probe_images=3, codec=f"local-dir:{tmp_path / 'moved'}")[0])
    assert moved.id == trained.name
    assert moved.loss_space == runs.row(trained)["loss_space"]
    assert resolve(smoke(probe_images=4)[0]).id == trained.name
    assert resolve(smoke(probe_images=4)[0]).loss_space != moved.loss_space
    assert resolve(smoke(seed=1)[0]).id != trained.name


def test_snapshots_are_read_with_their_checksum(trained, tmp_path):
    tensors = read_tensors(trained / "snapshots" / "step-00000004.safetensors", "")
    assert {k for k in tensors if k.startswith("ema.")} == {f"ema.{k}" for k in tensors if not k.startswith("ema.")}
    json.dumps(sorted(tensors))


# several processes


def launched(processes, config, budget, root):
    """`t2ikit train` as one training of several processes on a CPU."""
    python, *line = command(config, budget, root)
    launcher = [python, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return subprocess.run([*launcher, *line], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_two_processes_train_the_run_of_one_and_the_first_writes(smoke, home, whole):
    config, budget = smoke(steps=4, eval_every=2)
    alone = train(config, budget, whole)
    done = launched(2, config, budget, home / "runs")
    assert done.returncode == 0, done.stderr[-2000:]
    folder = home / "runs" / alone.name
    assert read_lines(folder / "segments.jsonl")[0]["processes"] == 2
    for ours, theirs in zip(log_of(alone), log_of(folder), strict=True):
        assert ours["step"] == theirs["step"]
        key = "loss" if "loss" in ours else "val_loss"
        assert theirs[key] == pytest.approx(ours[key], rel=1e-5)
    assert runs.row(folder)["status"] == "done" and holder_of(folder) is None


@pytest.mark.slow
def test_a_batch_that_does_not_divide_among_the_processes(smoke, home):
    config, budget = smoke(batch=8)
    done = launched(3, config, budget, home / "runs")
    assert done.returncode != 0
    assert "A batch of 8 does not divide among 3 processes: choose another number" in done.stderr
