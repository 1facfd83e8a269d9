"""Rungs of the ladders: names, sizes against closed forms, cost, and our own forward passes against plain torch.nn."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from t2ikit.errors import UserError
from t2ikit.models import zoo
from t2ikit.models.attention import quick_attention
from t2ikit.models.cost import cost
from t2ikit.models.ladder import HEAD_WIDTH, LADDERS, RUNGS, rungs

OWN = ("incontext-d3-w64", "incontext-adaln-d3-w64", "crossattn-d3-w64")
MASKED = (*OWN, "pixart-d3-w64")
IN, FREQUENCIES = 4 * 2 * 2, 256  # numbers in a patch; sines and cosines of a timestep


def woken(spec, seed=0):
    """The module with every weight drawn: as initialised, the last layer is zero and so is the prediction."""
    model, generator = spec.build(seed=seed), torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) / weight.shape[-1] ** 0.5
    return model.eval()


def inputs(spec, lengths, seed=0):
    """Latents, times, states and mask of a batch whose captions have `lengths` tokens."""
    draw, n = torch.Generator().manual_seed(seed), len(lengths)
    latents = torch.randn(n, 4, spec.latent_side, spec.latent_side, generator=draw)
    states = torch.randn(n, spec.text_tokens, spec.text_width, generator=draw)
    mask = torch.arange(spec.text_tokens) < torch.tensor(lengths)[:, None]
    return latents, torch.rand(n, generator=draw), states, mask


# names


def test_every_rung_of_every_ladder_has_a_name_that_says_its_size():
    for ladder in LADDERS:
        for name, (depth, width) in zip(rungs(ladder), RUNGS, strict=True):
            spec = zoo.spec(name)
            assert (spec.name, spec.depth) == (name, depth)
            assert (spec.hidden if ladder == "pixart" else spec.width) == width
    assert {depth for depth, _ in RUNGS} == set(range(2, 16))


def test_a_rung_that_is_in_no_list_is_built_from_its_name():
    assert zoo.spec("crossattn-d7-w352").cost().params > 0


@pytest.mark.parametrize("ladder", LADDERS)
def test_tiers_change_what_goes_in_and_not_the_size(ladder):
    spec = zoo.spec(f"{ladder}-d4-w128")
    small, tiny = spec.at("small"), spec.at("tiny")
    assert spec.at("smoke") == tiny == tiny.at("tiny") and spec.at("paper") == spec
    changed = {k for k, v in asdict(tiny).items() if v != asdict(spec)[k]}
    assert changed == {"resolution", "vae_factor", "text_tokens", "text_width"}
    assert (spec.latent_side, tiny.latent_side) == (32, 16) and (tiny.text_width, small.text_width) == (64, 256)
    assert json.dumps(asdict(tiny)) and hash(tiny)


@pytest.mark.parametrize(
    "mistake, sentence",
    [
        (lambda: zoo.spec("incontext-d4-w100"), "width 100 is no multiple of the head width 32"),
        (lambda: zoo.spec("pixart-d4-w100"), "width 100 is no multiple of the head width 32"),
        (lambda: zoo.spec("incontext-d4w128"), "did you mean 'incontext-dDEPTH-wWIDTH'"),
        (
            lambda: zoo.spec("incontext-d0-w64"),
            "a depth of 0 and a width of 64 are not possible: choose a depth from 1",
        ),
        (lambda: zoo.spec("incontext-d-2-w64"), "a depth of -2 and a width of 64 are not possible"),
        (lambda: zoo.spec("crossattn-d100-w64"), "a depth of 100 and a width of 64 are not possible"),
        (lambda: zoo.spec("flux-d4-w999999"), "a width of 999999 are not possible: choose a depth"),
        (lambda: zoo.spec("incontext-d04-w64"), "Unknown backbone"),
        (lambda: zoo.spec("unet-d4-w64"), "Unknown backbone"),
        (lambda: zoo.spec("flux-dDEPTH-wWIDTH"), "is the form of a name: write numbers, as in incontext-d4-w128"),
        (lambda: rungs("context"), "Unknown ladder 'context': choose one of incontext, incontext-adaln, crossattn"),
        (lambda: replace(zoo.spec("mmdit-d4-w64"), resolution=264), "latent side 33 is no multiple of patch 2"),
        (lambda: replace(zoo.spec("crossattn-d4-w64"), patch=3), "latent side 32 is no multiple of patch 3"),
    ],
)
def test_a_mistake_is_one_sentence(mistake, sentence):
    with pytest.raises(UserError) as error:
        mistake()
    assert sentence in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", OWN)
def test_what_does_not_fit_the_built_backbone_is_one_sentence(name):
    spec = zoo.spec(name).at("tiny")
    model, (latents, t, states, mask) = spec.build(), inputs(spec, [20])
    with pytest.raises(UserError, match="^Latents of 24 × 16 do not fit a backbone of 16 × 16: build it at the"):
        model(torch.zeros(1, 4, 24, 16), t, states, mask)
    if name.startswith("incontext"):
        with pytest.raises(UserError, match="^21 text tokens are longer than the context of 20: shorten the captions"):
            model(latents, t, F.pad(states, (0, 0, 0, 1)), F.pad(mask, (0, 1)))


# size and cost


def closed_form(ladder, spec, width, depth):
    """Parameters, and those that a sample meets once, by hand."""
    w, x, tokens, head = width, spec.text_width, spec.text_tokens, HEAD_WIDTH
    time = FREQUENCIES * w + w + w * w + w
    image, out, text = IN * w + w, w * IN + IN, x * w + w
    attention, feed_forward = 4 * w * w + 4 * w, 8 * w * w + 5 * w
    adaln, adaln_out = 6 * w * w + 6 * w, 2 * w * w + 2 * w
    if ladder == "incontext":
        norms = 2 * w
        return time + image + text + tokens * w + depth * (attention + feed_forward + 2 * norms) + norms + out, time
    if ladder == "incontext-adaln":
        once = time + depth * adaln + adaln_out
        return image + text + tokens * w + depth * (attention + feed_forward) + out + once, once
    if ladder == "crossattn":
        once = time + depth * adaln + adaln_out
        return image + text + depth * (2 * attention + 2 * w + feed_forward) + out + once, once
    pooled = x * w + w + w * w + w
    if ladder == "mmdit":  # the last block has no more use for its text
        once = time + pooled + (2 * depth - 1) * adaln + 2 * adaln_out
        unused = w * w + w + feed_forward
        return image + text + depth * 2 * (attention + feed_forward) - unused + out + once, once
    if ladder == "flux":
        double = max(1, round(depth / 3))
        single = depth - double
        once = time + pooled + double * 2 * adaln + single * (3 * w * w + 3 * w) + adaln_out
        of_double = 2 * (attention + feed_forward) + 4 * head
        of_single = 3 * w * w + 3 * w + 4 * w * w + 4 * w + 5 * w * w + w + 2 * head
        return image + text + double * of_double + single * of_single + out + once, once
    once = time + adaln
    tables = depth * 6 * w + 2 * w
    return image + pooled + depth * (2 * attention + feed_forward) + tables + out + once, once


@pytest.mark.parametrize("ladder", LADDERS)
def test_every_rung_has_the_parameters_of_the_closed_form(ladder):
    sizes = []
    for name, (depth, width) in zip(rungs(ladder), RUNGS, strict=True):
        spec = zoo.spec(name).at("tiny")
        sizes.append(sum(p.numel() for p in spec.build("meta").parameters()))
        assert sizes[-1] == closed_form(ladder, spec, width, depth)[0]
    assert sizes == sorted(sizes) and sizes[0] < 1e5 and sizes[-1] > 1e9
    assert all(b < 2.7 * a for a, b in zip(sizes, sizes[1:], strict=False))


@pytest.mark.parametrize("tier", ["tiny", "paper"])
@pytest.mark.parametrize("ladder", LADDERS)
def test_exact_flops_equal_torchs_counter(ladder, tier):
    for depth, width in ((2, 32), (4, 160)):
        spec = zoo.spec(f"{ladder}-d{depth}-w{width}").at(tier)
        model, side = spec.build("meta"), spec.latent_side
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(
                torch.empty(1, 4, side, side, device="meta"),
                torch.empty(1, device="meta"),
                torch.empty(1, spec.text_tokens, spec.text_width, device="meta"),
                torch.ones(1, spec.text_tokens, dtype=torch.bool, device="meta"),
            )
        counted = spec.cost()
        assert counted.flops_forward == counter.get_total_flops()
        assert (counted.params, counted.params_per_sample) == closed_form(ladder, spec, width, depth)
        assert counted.params_per_token == counted.params - counted.params_per_sample


def test_tokens_are_the_images_and_the_texts_where_it_is_joined():
    joined = {name: zoo.spec(f"{name}-d2-w32").at("tiny").cost().tokens for name in LADDERS}
    assert joined == {"incontext": 84, "incontext-adaln": 84, "mmdit": 84, "flux": 84, "crossattn": 64, "pixart": 64}
    assert zoo.spec("incontext-d2-w32").cost().tokens == 256 + 77
    assert zoo.spec("pixart-h1024-d28").cost().tokens == 256 and zoo.spec("sd2-c320").cost().tokens == 32 * 32
    assert cost(zoo.spec("incontext-d2-w32").at("tiny"), resolution=128, text_tokens=40).tokens == 256 + 40


def test_in_context_by_hand():
    """6ND is right for a large vanilla transformer: what it leaves out, the attention products, are 2% there."""
    spec = zoo.spec("incontext-d15-w2368").at("tiny")
    w, depth, image, text = 2368, 15, 64, 20
    length = 1 + text + image
    linear = depth * 12 * w * w * length + image * 2 * IN * w + text * 64 * w + FREQUENCIES * w + w * w
    assert spec.cost().macs == linear
    assert spec.cost().flops_forward == 2 * (linear + depth * 2 * w * length**2)
    assert spec.cost().flops_train == pytest.approx(6 * spec.cost().params_per_token * spec.cost().tokens, rel=0.02)


# forward passes


class Reference:
    """Our own networks' forward passes, written with torch.nn's layers."""

    def __init__(self, spec, network):
        self.spec, self.network, self.heads = spec, network, spec.width // HEAD_WIDTH

    def attention(self, layer):
        made = nn.MultiheadAttention(self.spec.width, self.heads, batch_first=True)
        weights = {"in_proj_weight": torch.cat([layer.q.weight, layer.kv.weight])}
        weights |= {"in_proj_bias": torch.cat([layer.q.bias, layer.kv.bias])}
        made.load_state_dict(weights | {f"out_proj.{k}": v for k, v in layer.out.state_dict().items()})
        return made

    def encoder_layer(self, block):
        made = nn.TransformerEncoderLayer(
            self.spec.width,
            self.heads,
            4 * self.spec.width,
            dropout=0.0,
            activation=nn.GELU(),
            layer_norm_eps=1e-6,
            batch_first=True,
            norm_first=True,
        )
        made.self_attn = self.attention(block.attention)
        made.linear1, made.linear2 = block.feed_forward[0], block.feed_forward[2]
        made.norm1, made.norm2 = block.norm1, block.norm2
        return made

    def time(self, t):
        angles = 1000 * t[:, None] * 10_000 ** (-torch.arange(FREQUENCIES // 2) / (FREQUENCIES / 2))
        mlp = self.network.time[1]
        return mlp.linear_2(F.silu(mlp.linear_1(torch.cat([angles.cos(), angles.sin()], 1))))

    def image(self, latents):
        grid, quarter = self.spec.latent_side // 2, self.spec.width // 4
        rows, columns = torch.arange(grid).repeat_interleave(grid), torch.arange(grid).repeat(grid)
        angles = [place[:, None] * 10_000.0 ** (-torch.arange(quarter) / quarter) for place in (columns, rows)]
        places = torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], 1)
        return self.network.image.project(F.unfold(latents, 2, stride=2).mT) + places

    def adaptive(self, x, shift, scale):
        return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]

    def head(self, x, time):
        head = self.network.head
        if head.modulation is None:
            x = head.norm(x)
        else:
            x = self.adaptive(x, *head.modulation(F.silu(time)).chunk(2, 1))
        return F.fold(head.project(x).mT, (self.spec.latent_side,) * 2, 2, stride=2)

    def __call__(self, latents, t, states, mask):
        time, x, text = self.time(t), self.image(latents), self.network.text(states)
        n, hidden, cross = x.shape[1], ~mask, hasattr(self.network.blocks[0], "cross")
        vanilla = self.network.blocks[0].modulation is None if not cross else False
        if not cross:
            x = torch.cat([time[:, None]] * vanilla + [text + self.network.text_places, x], 1)
            hidden = torch.cat([torch.zeros(len(x), 1, dtype=torch.bool)] * vanilla + [hidden], 1)
            hidden = F.pad(hidden, (0, n))
        for block in self.network.blocks:
            if vanilla:
                x = self.encoder_layer(block)(x, src_key_padding_mask=hidden)
                continue
            shift1, scale1, gate1, shift2, scale2, gate2 = block.modulation(F.silu(time)).chunk(6, 1)
            y = self.adaptive(x, shift1, scale1)
            x = x + gate1[:, None] * self.attention(block.attention)(y, y, y, None if cross else hidden)[0]
            if cross:
                x = x + self.attention(block.cross)(block.norm2(x), text, text, hidden)[0]
            x = x + gate2[:, None] * block.feed_forward(self.adaptive(x, shift2, scale2))
        return self.head(x[:, -n:], time)


@pytest.mark.parametrize("name", OWN)
def test_the_forward_pass_is_that_of_torchs_own_layers(name):
    spec = zoo.spec(name).at("tiny")
    model, batch = woken(spec), inputs(spec, [20, 3, 11])
    torch.testing.assert_close(model(*batch), Reference(spec, model.network)(*batch), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MASKED)
def test_what_stands_in_the_padding_changes_nothing(name):
    """In batches of mixed lengths, gradients included."""
    spec = zoo.spec(name).at("tiny")
    model, (latents, t, states, mask) = woken(spec), inputs(spec, [20, 3, 11, 1])
    other = torch.where(mask[..., None], states, 100 * torch.randn(states.shape))
    found = []
    for some in (states, other):
        model.zero_grad()
        prediction = model(latents, t, some, mask)
        prediction.square().mean().backward()
        found.append([prediction.detach(), *(p.grad.clone() for n, p in model.named_parameters() if "blocks" in n)])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MASKED)
def test_a_caption_is_read_the_same_alone_without_its_padding(name):
    spec, lengths = zoo.spec(name).at("tiny"), [20, 3, 11]
    model, (latents, t, states, mask) = woken(spec), inputs(spec, lengths)
    with torch.no_grad():
        together = model(latents, t, states, mask)
        for i, n in enumerate(lengths):
            alone = model(latents[i : i + 1], t[i : i + 1], states[i : i + 1, :n], None)
            torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-4)


def test_mmdit_and_flux_pool_words_alone():
    for name in ("mmdit-d2-w32", "flux-d2-w32"):
        spec = zoo.spec(name).at("tiny")
        model, (latents, t, states, mask) = woken(spec), inputs(spec, [20, 7])
        calls = []
        model.network.time_text_embed.register_forward_pre_hook(lambda _, inputs: calls.append(inputs))  # noqa: B023
        with torch.no_grad():
            model(latents, t, states, mask)
        timesteps, words = calls[0]
        torch.testing.assert_close(timesteps, 1000 * t)
        torch.testing.assert_close(words, torch.stack([states[0].mean(0), states[1, :7].mean(0)]))


@pytest.mark.parametrize("ladder", LADDERS)
def test_an_untrained_rung_predicts_zero_and_is_a_function_of_its_seed(ladder):
    spec = zoo.spec(f"{ladder}-d2-w32").at("tiny")
    first, again, other = (spec.build(seed=s) for s in (3, 3, 4))
    with torch.no_grad():
        assert first(*inputs(spec, [20, 5])).abs().max() == 0
    weights = [torch.cat([p.detach().flatten() for p in m.parameters()]) for m in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert weights[0].isfinite().all()


@pytest.mark.parametrize("length", [10, 200])
@pytest.mark.parametrize("masked", ["bool", "added", None])
def test_attention_in_bf16_is_that_of_float32_up_to_rounding(masked, length):
    draw = torch.Generator().manual_seed(0)
    q, k, v, upstream = (torch.randn(3, 2, length, 32, generator=draw) for _ in range(4))
    mask = (torch.arange(length) < torch.tensor([length, 4, 1])[:, None])[:, None, None] if masked else None
    if masked == "added":  # as PixArt's
        mask = -1e4 * (~mask).float()
    exact = [x.clone().requires_grad_() for x in (q, k, v)]
    rounded = [x.bfloat16().requires_grad_() for x in (q, k, v)]
    wanted = F.scaled_dot_product_attention(*exact, attn_mask=mask)
    with torch.autocast("cpu", torch.bfloat16), quick_attention(q):
        found = F.scaled_dot_product_attention(*rounded, attn_mask=mask, dropout_p=0.0, is_causal=False)
    wanted.backward(upstream)
    found.backward(upstream.to(found.dtype))
    torch.testing.assert_close(found.float(), wanted, atol=0.03, rtol=0.03)
    for one, two in zip(rounded, exact, strict=True):
        torch.testing.assert_close(one.grad.float(), two.grad, atol=0.06, rtol=0.06)


def test_attention_is_torchs_own_in_float32_and_where_it_is_asked_for_more():
    q = torch.randn(1, 2, 5, 16, generator=torch.Generator().manual_seed(0))
    wanted = F.scaled_dot_product_attention(q, q, q, is_causal=True)
    with quick_attention(q):
        assert torch.equal(F.scaled_dot_product_attention(q, q, q, is_causal=True), wanted)
    with torch.autocast("cpu", torch.bfloat16), quick_attention(q):
        causal = F.scaled_dot_product_attention(q, q, q, is_causal=True)
    torch.testing.assert_close(causal.float(), wanted, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("name", [*OWN, "mmdit-d3-w64", "flux-d3-w64", "pixart-d3-w64"])
def test_a_step_in_bf16_is_that_in_float32_up_to_rounding(name):
    spec = zoo.spec(name).at("tiny")
    model, batch = woken(spec), inputs(spec, [20, 3, 11])
    losses = []
    for bf16 in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            losses.append(model(*batch).float().square().mean())
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.02)
    losses[1].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
