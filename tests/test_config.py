"""The configuration: what it refuses, and what a run's id is made of."""

import dataclasses
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2ikit.config import NOT_IN_ID, Budget, RunConfig, canonical, digest, override, run_id
from t2ikit.errors import UserError, choose, need

CONFIG, BUDGET = RunConfig("sd2-c320", "scenes"), Budget()
RESOLVED = {"spec": {"channels": 20}, "world_fingerprint": "w", "codec_fingerprint": "c", "text_fingerprint": "t"}


@pytest.mark.parametrize(
    "key, value, said",
    [
        ("seed", "true", "seed = True is not a whole number"),
        ("seed", "1.5", "seed = 1.5 is not a whole number"),
        ("seed", "-1", "seed = -1 is out of range"),
        ("seed", "9" * 400, "out of range"),
        ("seed", "9" * 5000, "not a whole number"),
        ("steps", "1e3", "steps = 1000.0 is not a whole number: write it as steps=7"),
        ("steps", "0", "from 1 to"),
        ("lr", "nan", "lr = 'nan' is not a number"),
        ("lr", "NaN", "lr = nan is out of range"),
        ("lr", "Infinity", "lr = inf is out of range"),
        ("lr", "9" * 400, "is not a number"),
        ("lr", "fast", "lr = 'fast' is not a number: write it as lr=1e-3"),
        ("lr", "[" * 100_000, "is not a number"),
        ("betas", "[1]", "betas = [1] is not a pair of numbers"),
        ("betas", '["a", "b"]', "is not a pair of numbers"),
        ("betas", "[true, 0.9]", "is not a pair of numbers"),
        ("betas", "[0.9, 1]", "betas = 1.0 is out of range"),
        ("eval_at", "[3, 1.5]", "is not a list of whole numbers: write it as eval_at=[1000,2500]"),
        ("eval_at", "[0]", "eval_at = 0 is out of range"),
        ("compile", "1", "compile = 1 is not true or false"),
        ("objective", "ddpm", "choose one of ddpm-eps, ddpm-v, rf-uniform, rf-logit-normal; did you mean 'ddpm-"),
        ("precision", "fp16", "Unknown precision 'fp16'"),
        ("tier", "huge", "Unknown tier 'huge'"),
        ("batchsize", "3", "Unknown setting 'batchsize'"),
        ("", "3", "Unknown setting ''"),
        ("probe_images", "1", "from 2 to"),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_names_it(key, value, said):
    with pytest.raises(UserError) as error:
        override(CONFIG, BUDGET, {key: value})
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_a_wrong_value_is_refused_where_it_is_constructed_too():
    for wrong in ({"seed": 1.5}, {"betas": None}, {"lr": "1e-3"}, {"compile": 1}, {"backbone": 5}, {"batch": True}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            RunConfig(**{"backbone": "sd2-c320", "world": "scenes"} | wrong)
    with pytest.raises(UserError, match="steps"):
        Budget(steps=2.0)


def test_settings_from_text_and_from_values_are_the_same():
    texts = {"seed": "3", "lr": "1e-4", "betas": "[0.9, 0.95]", "compile": "true", "captions": "dense", "steps": "7"}
    values = {"seed": 3, "lr": 1e-4, "betas": (0.9, 0.95), "compile": True, "captions": "dense", "steps": 7}
    assert override(CONFIG, BUDGET, texts) == override(CONFIG, BUDGET, values)


def test_one_number_written_in_two_ways_is_one_configuration():
    assert run_id(RunConfig("a", "w", lr=1, weight_decay=0), RESOLVED) == run_id(
        RunConfig("a", "w", lr=1.0, weight_decay=-0.0, betas=[0.9, 0.999]), RESOLVED
    )


IN_ID = {
    "seed": 1, "objective": "ddpm-v", "captions": "dense", "caption_dropout": 0.2, "resolution": 128, "batch": 32,
    "lr": 2e-3,
    "warmup": 7,
    "betas": (0.9, 0.95), "weight_decay": 0.1, "grad_clip": 2.0, "ema_std": 0.05, "precision": "bf16", "compile": True,
    "backbone": "sd2-c512",
}  # fmt: skip


def test_every_field_is_either_in_the_id_or_named_as_left_out():
    assert {f.name for f in dataclasses.fields(RunConfig)} == set(IN_ID) | set(NOT_IN_ID)


@pytest.mark.parametrize("key", IN_ID)
def test_what_decides_the_weights_is_in_the_id(key):
    assert run_id(dataclasses.replace(CONFIG, **{key: IN_ID[key]}), RESOLVED) != run_id(CONFIG, RESOLVED)


@pytest.mark.parametrize("key", RESOLVED)
def test_resolved_numbers_and_fingerprints_are_in_the_id(key):
    assert run_id(CONFIG, RESOLVED | {key: "other"}) != run_id(CONFIG, RESOLVED)


def test_names_and_evaluation_are_not_in_the_id():
    """The same codec at another path, the tier's name and the probe's size leave the weights as they are."""
    other = dataclasses.replace(
        CONFIG, tier="small", codec="local-dir:/elsewhere", text="local-dir:/there", probe_images=9
    )
    assert run_id(other, RESOLVED) == run_id(CONFIG, RESOLVED)


def test_id_is_the_backbone_and_twelve_hex_digits():
    name, _, hexadecimal = run_id(CONFIG, RESOLVED).rpartition("-")
    assert name == "sd2-c320"
    assert len(hexadecimal) == 12 and int(hexadecimal, 16) >= 0


def test_id_is_the_same_in_another_process():
    code = f"from t2ikit.config import *; print(run_id(RunConfig('sd2-c320', 'scenes'), {RESOLVED!r}))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == run_id(CONFIG, RESOLVED)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_canonical_json_is_json_and_has_one_form(value):
    assert json.loads(canonical(value)) == value
    assert canonical(json.loads(canonical(value))) == canonical(value)


@given(st.dictionaries(st.text(max_size=3), st.integers(), min_size=2, max_size=5))
def test_order_of_keys_does_not_matter(value):
    assert digest(dict(reversed(value.items()))) == digest(value)


def test_numbers_that_are_not_finite_are_no_json():
    with pytest.raises(ValueError):
        canonical(float("nan"))


def test_choose_names_the_closest_and_need_names_the_command():
    with pytest.raises(
        UserError, match=r"Unknown backbone 'sd2-c32': choose one of sd2-c320, sd2-c512; did you mean 'sd2-c320'\?"
    ):
        choose("backbone", "sd2-c32", ["sd2-c320", "sd2-c512"])
    assert "pip install 't2ikit[data]'" in str(need("data", "webdataset"))
