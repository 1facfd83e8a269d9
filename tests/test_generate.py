"""Images from a run: whose weights, which prompt, and nothing else."""

import shutil

import numpy as np
import pytest
import torch

from t2ikit import samples
from t2ikit.errors import UserError
from t2ikit.files import read_json, write_json
from t2ikit.generate import generate, load_run, snapshots
from t2ikit.train.checkpoint import load_snapshot

PROMPTS = ["a red circle", "two blue squares", "<script>alert(1)</script>"]


@pytest.fixture(scope="module")
def loaded(trained):
    return load_run(trained)


def test_snapshots_are_listed_in_order(trained, tmp_path):
    assert snapshots(trained) == [2, 4]
    assert snapshots(tmp_path) == []


def test_weights_are_those_of_the_step(trained):
    for step, averaged, prefix in [(None, False, ""), (4, False, ""), (2, False, ""), (4, True, "ema.")]:
        _, model = load_run(trained, step, averaged)
        wanted = load_snapshot(trained, step or 4)
        assert all(torch.equal(v, wanted[prefix + k]) for k, v in model.state_dict().items())
        assert not model.training


def test_a_prompts_image_is_the_same_whatever_the_batch(loaded):
    together = generate(*loaded, PROMPTS, steps=3)
    assert together.shape == (3, 64, 64, 3) and together.dtype == np.uint8
    for batch in (1, 2):
        apart = generate(*loaded, PROMPTS[::-1], steps=3, batch=batch)[::-1]
        assert np.abs(apart.astype(int) - together).max() <= 1  # the rounding of products of another size
    assert np.array_equal(generate(*loaded, PROMPTS, steps=3), together)


def test_seed_prompt_and_guidance_matter(loaded):
    images = [
        generate(*loaded, [p], seed=s, steps=3, guidance=g)[0]
        for p, s, g in [("a", 0, 7.5), ("b", 0, 7.5), ("a", 1, 7.5), ("a", 0, 30.0)]
    ]
    assert all(not np.array_equal(images[0], other) for other in images[1:])


def test_a_long_prompt_is_cut_and_an_empty_one_refused(loaded):
    assert generate(*loaded, ["red " * 1000], steps=1).shape == (1, 64, 64, 3)
    for wrong in ([], [""], ["a red circle", "  \n"]):
        with pytest.raises(UserError, match="A prompt is empty, or there is none"):
            generate(*loaded, wrong)
    with pytest.raises(UserError, match="0 DDIM steps"):
        generate(*loaded, ["a"], steps=0)


def test_what_is_not_there_is_one_sentence(trained, tmp_path):
    with pytest.raises(UserError, match="has no snapshot of step 3: choose one of 2, 4"):
        load_run(trained, 3)
    with pytest.raises(UserError, match="config.json is missing"):
        load_run(tmp_path)
    folder = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(folder / "snapshots")
    with pytest.raises(UserError, match="has no snapshot yet: train it first"):
        load_run(folder)


def test_a_damaged_snapshot_or_configuration_is_named(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    path = folder / "snapshots" / "step-00000004.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match="step-00000004.safetensors is damaged"):
        load_run(folder)
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", config | {"config": config["config"] | {"from_the_future": 1}})
    with pytest.raises(UserError, match="config.json is of another version of t2ikit .*from_the_future"):
        load_run(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match="config.json lacks 'config'"):
        load_run(folder)


def test_a_codec_that_changed_since_training_is_refused(trained, tmp_path, save_codec):
    """Latents of one codec decoded by another are noise that looks like a bad model."""
    folder = shutil.copytree(trained, tmp_path / "run")
    config = read_json(folder / "config.json")
    config["config"]["codec"] = f"local-dir:{save_codec(tmp_path / 'codec', seed=5)}"
    write_json(folder / "config.json", config)
    with pytest.raises(UserError, match="The codec_fingerprint of run is not what it was trained with"):
        load_run(folder)


def test_many_prompts_are_rows_of_one_sheet(trained, tmp_path):
    """WebP ends at 16,383 px: 255 images of 64 px side by side."""
    drawn = np.random.default_rng(0).integers(0, 256, (300, 64, 64, 3), np.uint8)
    (tmp_path / "s.webp").write_bytes(samples.sheet(drawn))
    columns = samples.columns_of(300, 64)
    write_json(tmp_path / "s.json", {"run": "run", "prompts": ["a"] * 300, "columns": columns})
    images = samples.read_sheet(tmp_path / "s.webp")[1]
    assert len(images) == 300 and all(map(np.array_equal, images, drawn))
    assert samples.columns_of(20, 2048) == 7  # 14,336 px
    with pytest.raises(UserError, match="^4081 prompts of 64 px do not fit one sheet: give at most 4080 at a time."):
        samples.sample(trained, ["a"] * 4081, steps=1)


def test_a_sheet_is_read_back_and_damaged_ones_are_named(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    path = samples.sample(folder, PROMPTS, steps=1)
    how, images = samples.read_sheet(path)
    assert (how["run"], how["step"], how["prompts"]) == ("run", 4, PROMPTS) and len(images) == 3
    assert samples.sample(folder, PROMPTS, step=4, steps=1) == path
    older = {key: value for key, value in read_json(path.with_suffix(".json")).items() if key != "columns"}
    write_json(path.with_suffix(".json"), older)  # of a time when all sheets were one row
    assert all(map(np.array_equal, samples.read_sheet(path)[1], images))
    with pytest.raises(UserError, match="has no snapshot of step 0: choose one of 2, 4"):
        samples.sample(folder, PROMPTS, step=0, steps=1)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match="webp cannot be read as an image"):
        samples.read_sheet(path)
    path.with_suffix(".json").write_text("{}")
    with pytest.raises(UserError, match="json lacks 'run'"):
        samples.read_sheet(path)
