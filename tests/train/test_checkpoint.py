"""Checkpoints and snapshots: round trips, the pointer, and what is damaged."""

import json

import pytest
import torch

from t2ikit.errors import Busy, UserError
from t2ikit.files import write_json
from t2ikit.runs import Lease
from t2ikit.tensors import pack, unpack
from t2ikit.train.checkpoint import (
    load_checkpoint,
    load_snapshot,
    pack_optimizer,
    save_checkpoint,
    save_snapshot,
    snapshot_path,
    unpack_optimizer,
)


@pytest.fixture
def lease(tmp_path):
    lease = Lease(tmp_path)
    lease.acquire()
    yield lease
    lease.release()


def tensors(seed=0):
    g = torch.Generator().manual_seed(seed)
    return {
        "model.a": torch.randn(3, 4, generator=g),
        "model.b": torch.randn(5, generator=g).bfloat16(),
        "n": torch.tensor(7),
    }


def test_round_trip_keeps_every_bit_and_one_file(tmp_path, lease):
    assert load_checkpoint(tmp_path) is None
    for step in (3, 12):
        save_checkpoint(tmp_path, step, tensors(step), lease)
    step, found = load_checkpoint(tmp_path)
    assert step == 12
    assert all(torch.equal(found[k], v) and found[k].dtype == v.dtype for k, v in tensors(12).items())
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-00000012.safetensors"]


def test_a_file_written_without_its_pointer_is_not_the_checkpoint(tmp_path, lease):
    save_checkpoint(tmp_path, 3, tensors(3), lease)
    (tmp_path / "checkpoint-00000012.safetensors").write_bytes(b"the process was killed here")
    assert load_checkpoint(tmp_path)[0] == 3


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_checkpoint_is_named(tmp_path, lease, damage):
    save_checkpoint(tmp_path, 3, tensors(), lease)
    path = tmp_path / "checkpoint-00000003.safetensors"
    damaged(path, damage)
    with pytest.raises(UserError, match="checkpoint-00000003.safetensors is missing or damaged"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("text", ["", '{"step": 3', "{}", '{"step": 3, "file": "x"}', "null"])
def test_a_damaged_pointer_is_named(tmp_path, text):
    (tmp_path / "checkpoint.json").write_text(text)
    with pytest.raises(UserError, match="checkpoint.json"):
        load_checkpoint(tmp_path)


def test_without_the_lease_nothing_is_written(tmp_path, lease):
    save_checkpoint(tmp_path, 3, tensors(), lease)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file() and p.name != "lease.json"}
    write_json(tmp_path / "lease.json", json.loads((tmp_path / "lease.json").read_text()) | {"token": "another's"})
    with pytest.raises(Busy):
        save_checkpoint(tmp_path, 4, tensors(), lease)
    with pytest.raises(Busy):
        save_snapshot(tmp_path, 4, torch.nn.Linear(2, 2), None, lease)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file() and p.name != "lease.json"} == before


def test_a_lease_lost_between_the_two_writes_leaves_the_pointer(tmp_path, lease, monkeypatch):
    save_checkpoint(tmp_path, 3, tensors(3), lease)
    checks = iter([None, Busy("taken over")])

    def check():
        if error := next(checks):
            raise error

    monkeypatch.setattr(lease, "check", check)
    with pytest.raises(Busy):
        save_checkpoint(tmp_path, 4, tensors(4), lease)
    assert load_checkpoint(tmp_path)[0] == 3


def test_snapshots_hold_raw_and_averaged_weights(tmp_path, lease):
    model = torch.nn.Linear(3, 2)
    average = {k: v + 1 for k, v in model.named_parameters()}
    save_snapshot(tmp_path, 20, model, average, lease)
    found = load_snapshot(tmp_path, 20)
    assert torch.equal(found["weight"], model.weight) and torch.equal(found["ema.bias"], model.bias + 1)


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "empty", "plain"])
def test_a_damaged_snapshot_is_named(tmp_path, lease, damage):
    save_snapshot(tmp_path, 20, torch.nn.Linear(3, 2), None, lease)
    damaged(snapshot_path(tmp_path, 20), damage)
    with pytest.raises(UserError, match="step-00000020.safetensors"):
        load_snapshot(tmp_path, 20)


def damaged(path, damage):
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "plain":  # a valid file of another origin
        from safetensors.torch import save_file

        save_file({"weight": torch.zeros(2, 3)}, path)
    else:
        path.write_bytes({"cut": data[:-3], "flipped": data[:-1] + bytes([data[-1] ^ 1]), "empty": b""}[damage])


def test_any_changed_byte_of_a_packed_file_is_seen(tmp_path):
    data = pack(tensors())
    for at in range(len(data)):
        try:
            unpack(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :], tmp_path / "x", "delete it.")
        except UserError as error:
            assert str(error).endswith("x is damaged: delete it.")
        else:
            pytest.fail(f"byte {at}")
    found = unpack(data, tmp_path / "x", "")
    assert all(torch.equal(found[k], v) for k, v in tensors().items())


def test_packed_files_are_plain_safetensors(tmp_path):
    from safetensors.torch import load

    assert load(pack(tensors())).keys() == tensors().keys()


def test_adamw_goes_on_as_if_it_had_not_stopped():
    def steps(model, optimizer, count, start):
        for k in range(start, start + count):
            x = torch.randn(4, 3, generator=torch.Generator().manual_seed(k))
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()

    def fresh():
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        return (
            model,
            torch.optim.AdamW(model.parameters(), lr=0.1, fused=True),
            [n for n, _ in model.named_parameters()],
        )

    whole, optimizer, names = fresh()
    steps(whole, optimizer, 6, 0)
    first, optimizer, _ = fresh()
    steps(first, optimizer, 3, 0)
    kept = pack_optimizer(optimizer, names)
    second, optimizer, _ = fresh()
    second.load_state_dict(first.state_dict())
    unpack_optimizer(optimizer, names, kept)
    steps(second, optimizer, 3, 3)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))
