"""The zoo's specs against paper S's tables, and the modules they build."""

import csv
import json
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

import papers_repro
from t2ikit.errors import UserError
from t2ikit.models import zoo
from t2ikit.models.ladder import LADDERS

PUBLISHED = Path(papers_repro.__file__).parent / "scalability" / "published"
TABLE1, TABLE2 = (
    {row["name"]: row for row in csv.DictReader((PUBLISHED / name).open())} for name in ("table1.csv", "table2.csv")
)
RUNGS = tuple(f"{ladder}-d2-w32" for ladder in LADDERS)
SMOKE = ("sd2-c320", "ifxl-c704", "sdxl-td4_4", "pixart-xl2-t5", "pixart-h1024-d56", *RUNGS)


def numbers(cell):
    return tuple(int(n) for n in cell.split(","))


def woken(spec, seed=0):
    """The module with every weight drawn: as published, the last layers start at zero and so does the prediction."""
    model = spec.build(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) / weight.shape[-1] ** 0.5
    return model.eval()


def inputs(spec, batch=2, seed=0):
    draw = torch.Generator().manual_seed(seed)
    side = spec.latent_side
    latents = torch.randn(batch, 4, side, side, generator=draw)
    states = torch.randn(batch, spec.text_tokens, spec.text_width, generator=draw)
    return latents, torch.tensor([3, 900][:batch]), states, torch.ones(batch, spec.text_tokens, dtype=torch.bool)


def test_names_are_the_tables_rows_in_order():
    assert zoo.names() == [*TABLE1, *TABLE2]


@pytest.mark.parametrize("name", TABLE1)
def test_unet_specs_are_the_rows(name):
    spec, row = zoo.spec(name), TABLE1[name]
    assert (spec.family, spec.channels, spec.channel_mult) == (
        row["unet"],
        int(row["channels"]),
        numbers(row["channel_mult"]),
    )
    assert spec.res_blocks == int(row["res_blocks"])
    rates = {2**i for i, depth in enumerate(spec.depth) if depth}
    assert rates == set(numbers(row["attn_res"]))
    assert spec.depth[: len(numbers(row["transformer_depth"]))] == numbers(row["transformer_depth"])


@pytest.mark.parametrize("name", TABLE2)
def test_pixart_specs_are_the_rows(name):
    spec, row = zoo.spec(name), TABLE2[name]
    for field, column in {
        "patch": "patch",
        "hidden": "hidden",
        "depth": "depth",
        "heads": "heads",
        "text_tokens": "max_tokens",
        "text_width": "token_dim",
    }.items():
        assert getattr(spec, field) == int(row[column])
    assert spec.caption_embedding == (row["caption_embedding"] == "yes")


def test_table_keeps_its_contract():
    rows = zoo.table("smoke")
    assert [row["name"] for row in rows] == zoo.names()
    for row in rows:
        assert list(row) == ["name", "family", "params", "macs", "attn_macs", "flops_train"]
        assert all(type(row[key]) is int and row[key] > 0 for key in list(row)[2:])


def test_listing_specs_loads_no_torch():
    code = (
        "import sys; from t2ikit.models import zoo; zoo.spec('sd2-c320').at('tiny'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", zoo.names())
def test_tiny_is_the_same_experiment(name):
    """MACs relative to SDXL within 0.02 of the paper's, the text's share of them within 0.01, depths as published."""
    paper, tiny = zoo.spec(name), zoo.spec(name).at("tiny")
    assert tiny.depth == paper.depth and tiny.width_divisor == 16
    printed = {name: float(row["gmacs"]) for name, row in (TABLE1 | TABLE2).items()}
    ratio = tiny.cost().macs / zoo.spec("sdxl-c320").at("tiny").cost().macs
    assert abs(ratio - printed[name] / printed["sdxl-c320"]) < 0.02

    def text_share(spec):
        return spec.cost(text_tokens=2 * spec.text_tokens).macs / spec.cost().macs - 1

    if name != "pixart-xl2-t5":  # at tiny every row reads the same text, so this one is pixart-h1152-d28
        assert abs(text_share(tiny) - text_share(paper)) < 0.01


def test_a_spec_is_frozen_hashable_and_json():
    spec = zoo.spec("sdxl-td4_4").at("tiny")
    assert hash(spec) == hash(zoo.spec("sdxl-td4_4").at("tiny"))
    resolved = json.loads(json.dumps(asdict(spec)))
    assert (resolved["channels"], resolved["heads"], resolved["text_width"]) == (20, list(spec.heads), 64)
    assert "tiny" not in json.dumps(resolved)
    with pytest.raises(AttributeError):
        spec.channels = 1


@pytest.mark.parametrize(
    "mistake, sentence",
    [
        (lambda: zoo.spec("sdxl-td44"), "did you mean 'sdxl-td4_4'"),
        (lambda: zoo.spec("sd2-c320").at("huge"), "Unknown tier 'huge': choose one of smoke, tiny, small, paper"),
        (lambda: zoo.spec("sd2-c320").at("tiny").at("tiny"), "already at 1/16 of its published width"),
        (
            lambda: replace(zoo.spec("sd2-c320"), channels=328, heads=(4, 4, 4, 4), norm_groups=8).at("tiny"),
            "channels 328",
        ),
        (lambda: replace(zoo.spec("sd2-c320"), heads=(3, 3, 3, 3)), "width 320 is no multiple of heads 3"),
        (lambda: replace(zoo.spec("sd2-c320"), depth=(1, 1)), "give 4, 2 and 4 levels"),
        (lambda: replace(zoo.spec("sdxl-c320"), depth=(0, 2, 4)), "mid_depth 10 differs from"),
        (lambda: replace(zoo.spec("ifxl-c512"), depth=(1, 2, 1, 0)), "each is 0 or 1"),
        (lambda: replace(zoo.spec("ifxl-c512"), attention_block="linear"), "Unknown attention_block 'linear'"),
        (lambda: replace(zoo.spec("pixart-h1024-d28"), text_width=768), "hidden 1024 differs from the text width 768"),
        (lambda: replace(zoo.spec("pixart-h1152-d28"), heads=7), "hidden 1152 is no multiple of heads 7"),
        (lambda: replace(zoo.spec("pixart-h1152-d28"), resolution=0), "resolution 0"),
    ],
)
def test_a_mistake_is_one_sentence(mistake, sentence):
    with pytest.raises(UserError) as error:
        mistake()
    assert sentence in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", SMOKE)
def test_every_family_trains_through_the_uniform_call(name):
    spec = zoo.spec(name).at("smoke")
    model = woken(spec).train()
    latents, t, states, mask = inputs(spec)
    prediction = model(latents, t, states, mask)
    assert prediction.shape == latents.shape
    prediction.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", zoo.names())
def test_every_tiny_row_predicts(name):
    spec = zoo.spec(name).at("tiny")
    latents, t, states, mask = inputs(spec, batch=1)
    with torch.no_grad():
        assert spec.build()(latents, t[:1], states, mask).abs().max() == 0  # the last layer starts at zero


@pytest.mark.parametrize("name", SMOKE)
def test_predictions_depend_on_time_text_and_image(name):
    spec = zoo.spec(name).at("smoke")
    model = woken(spec)
    latents, t, states, mask = inputs(spec)
    with torch.no_grad():
        here = model(latents, t, states, mask)
        assert torch.equal(here, model(latents, t, states, mask))
        for changed in ((latents + 1, t, states), (latents, t + 50, states), (latents, t, states.flip(0))):
            assert not torch.allclose(here, model(*changed, mask), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", SMOKE)
def test_a_flow_time_is_a_thousandth_of_a_timestep(name):
    spec = zoo.spec(name).at("smoke")
    model = woken(spec)
    latents, _, states, mask = inputs(spec)
    with torch.no_grad():
        flow = model(latents, torch.tensor([0.25, 0.5]), states, mask)
        steps = model(latents, torch.tensor([250, 500]), states, mask)
    torch.testing.assert_close(flow, steps)


def test_padding_is_masked_in_pixart_and_read_by_unets():
    for name, ignored in (("pixart-h1152-d28", True), ("sd2-c320", False)):
        spec = zoo.spec(name).at("smoke")
        model = woken(spec)
        latents, t, states, mask = inputs(spec)
        mask[:, 5:] = False
        other = states.clone()
        other[:, 5:] += 1
        with torch.no_grad():
            assert torch.allclose(model(latents, t, states, mask), model(latents, t, other, mask), atol=1e-5) == ignored


def test_build_is_a_function_of_the_seed_alone():
    spec = zoo.spec("sd2-c320").at("smoke")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = spec.build(seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = spec.build(seed=3).state_dict(), spec.build(seed=4).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_heads_are_the_specs_in_every_block():
    """diffusers hands the up blocks of IF-XL the head widths in the down blocks' order."""
    for name in ("sd2-c512", "ifxl-c512", "ifxl-c704", "sdxl-c192"):
        for spec in (zoo.spec(name), zoo.spec(name).at("tiny")):
            heads = dict(zip(spec.widths, spec.heads, strict=True))
            layers = [m for m in spec.build("meta").modules() if hasattr(m, "to_q")]
            assert layers and all(layer.heads == heads[layer.to_q.out_features] for layer in layers)


def test_attention_can_be_moved_between_levels():
    """Two transformer blocks a depth on the way down, three on the way up, and the middle's own."""
    for depth, mid in (([2, 1, 1], 1), ((1, 1, 0), 0), ((0, 1, 0), 2)):
        spec = replace(zoo.spec("sdxl-c320"), name="moved", depth=depth, mid_depth=mid)
        blocks = Counter(
            "mid" if "mid_block" in name else int(name.split("_blocks.")[1][0]) + ("up" in name) * 10
            for name, module in spec.build("meta").named_modules()
            if type(module).__name__ == "BasicTransformerBlock"
        )
        expected = {"mid": mid} | {i: 2 * d for i, d in enumerate(depth)}
        expected |= {10 + i: 3 * d for i, d in enumerate(reversed(depth))}
        assert blocks == {level: n for level, n in expected.items() if n}
        assert spec.cost().attn_macs > 0


def test_pixart_runs_at_twice_its_resolution():
    spec = zoo.spec("pixart-h1152-d28").at("smoke")
    latents = torch.zeros(1, 4, 32, 32)
    with torch.no_grad():
        assert spec.build()(latents, torch.tensor([1]), torch.zeros(1, 20, 64)).shape == latents.shape
