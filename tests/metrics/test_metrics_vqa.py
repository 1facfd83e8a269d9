"""VQA models from small random checkpoints in transformers' own formats, against teacher-forced forward passes."""

import json

import numpy as np
import pytest
import torch

from t2ikit.errors import UserError
from t2ikit.metrics.images import as_pil
from t2ikit.metrics.vqa import TransformersVQA

from .conftest import bert_vocabulary, randomised

QUESTIONS = ["what color is the circle?", "is there a dog?", "is there a cat?"]
CHOICES = [["red", "blue"], ["yes", "no"], ["yes", "no"]]
ROLES = ["<pad>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>"]
VISUAL = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
WORDS = [*" .?,:", *"abcdefghijklmnopqrstuvwxyz", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", *"0123456789\n-<|>_/"]


def characters(**roles):
    """A tokenizer whose tokens are characters: an answer of several tokens is the rule."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {w: k for k, w in enumerate([*ROLES, *VISUAL, *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    made.decoder = decoders.Fuse()
    special = dict(pad_token="<pad>", eos_token="</s>", unk_token="<unk>") | roles
    return PreTrainedTokenizerFast(tokenizer_object=made, additional_special_tokens=[*ROLES[3:], *VISUAL], **special)


def save_blip(folder, **image):
    from transformers import BertTokenizerFast, BlipConfig, BlipForQuestionAnswering, BlipImageProcessor, BlipProcessor

    tokenizer = BertTokenizerFast.from_pretrained(bert_vocabulary(folder))
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BlipConfig(
        text_config=size | {"encoder_hidden_size": 16, "vocab_size": 30524, "bos_token_id": 101},
        vision_config=size | {"image_size": 32},
    )
    randomised(BlipForQuestionAnswering(config)).save_pretrained(folder)
    image = {"size": {"height": 32, "width": 32}} | image
    BlipProcessor(BlipImageProcessor(**image), tokenizer).save_pretrained(folder)


def save_blip2(folder):
    from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor, BlipImageProcessor, T5Config

    tokenizer, size = characters(), {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    processor = Blip2Processor(BlipImageProcessor(size={"height": 28, "width": 28}), tokenizer, num_query_tokens=4)
    config = Blip2Config(
        vision_config=size | {"num_attention_heads": 2, "image_size": 28, "patch_size": 14},
        qformer_config=size | {"num_attention_heads": 2, "encoder_hidden_size": 16, "vocab_size": 30},
        text_config=T5Config(
            vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
            pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, bos_token_id=0,
        ).to_dict(),
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    randomised(Blip2ForConditionalGeneration(config)).save_pretrained(folder)
    processor.save_pretrained(folder)


TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}{% if c.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_qwen(folder):
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    tokenizer = characters()
    names, ids = ("vision_start", "vision_end", "image", "video"), tokenizer.convert_tokens_to_ids(VISUAL)
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0, "mrope_interleaved": True}
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3,
            "head_dim": 8, "num_attention_heads": 2, "num_key_value_heads": 1, "rope_parameters": rope,
            "pad_token_id": 0, "eos_token_id": 1,
        },
        vision_config={
            "depth": 3, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 16,
            "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1, 2],
        },
        **{f"{name}_token_id": k for name, k in zip(names, ids, strict=True)},
    )  # fmt: skip
    randomised(Qwen3VLForConditionalGeneration(config)).save_pretrained(folder)
    sizes = {"patch_size": 16, "size": {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}}
    video = Qwen3VLVideoProcessor()
    Qwen3VLProcessor(Qwen2VLImageProcessor(**sizes), tokenizer, video, chat_template=TEMPLATE).save_pretrained(folder)


@pytest.fixture(scope="module", params=["blip", "blip2", "qwen"])
def vqa(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    {"blip": save_blip, "blip2": save_blip2, "qwen": save_qwen}[request.param](folder)
    return TransformersVQA(f"local-dir:{folder}")


def prompt_of(vqa, question, choices):
    if vqa.prompt == "{question}":
        return question
    if "Choices" in vqa.prompt:
        return f"Answer the multiple-choice question. Question: {question} Choices: {', '.join(choices)} Answer:"
    return (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>"
        f"{question} Answer in one word.<|im_end|>\n<|im_start|>assistant\n"
    )


@torch.no_grad()
def logits(vqa, image, question, choices, answer):
    """Teacher-forced log probabilities [len(answer) + 1, vocabulary] of what follows each prefix of `answer`."""
    model = vqa.model
    inputs = vqa.processor(images=image, text=prompt_of(vqa, question, choices), return_tensors="pt")
    kind = model.config.model_type
    if kind == "blip":
        seen = model.vision_model(inputs["pixel_values"])[0]
        asked = model.text_encoder(inputs["input_ids"], inputs["attention_mask"], encoder_hidden_states=seen)[0]
        ids = torch.tensor([[101, *answer]])
        out = model.text_decoder(ids, encoder_hidden_states=asked, use_cache=False).logits
    elif kind == "blip-2":
        out = model(**inputs, decoder_input_ids=torch.tensor([[0, *answer]])).logits
    else:
        more = torch.tensor([answer], dtype=torch.long)
        for key, fill in (
            ("input_ids", more),
            ("attention_mask", torch.ones_like(more)),
            ("mm_token_type_ids", 0 * more),
        ):
            if key in inputs:
                inputs[key] = torch.cat([inputs[key], fill], 1)
        out = model(**inputs).logits[:, -len(answer) - 1 :]
    return out[0].float().log_softmax(-1)


def test_probabilities_are_those_of_a_teacher_forced_pass(vqa, images):
    answers = ["blue", "yes", "2"]
    found = vqa.probabilities(images, QUESTIONS, CHOICES, answers)
    pictures = as_pil(images)
    for k, answer in enumerate(answers):
        written = {"blue": ["blue", "Blue"], "yes": ["yes", "Yes"], "2": ["2", "two", "Two"]}[answer]
        forms = {
            tuple(vqa.processor.tokenizer(space + w, add_special_tokens=False)["input_ids"])
            for w in written
            for space in ("", " ")
        }
        expected = 0.0
        for form in forms:
            rows = logits(vqa, pictures[k], QUESTIONS[k], CHOICES[k], list(form))
            expected += float(sum(rows[i, token] for i, token in enumerate(form)).exp())
        assert found[k] == pytest.approx(expected, rel=1e-3)
    assert ((found > 0) & (found < 1)).all()


def test_answers_do_not_depend_on_the_batch(vqa, images):
    found = vqa.answers(images, QUESTIONS, CHOICES)
    alone = [vqa.answers(images[k : k + 1], QUESTIONS[k : k + 1], CHOICES[k : k + 1])[0] for k in range(3)]
    assert found == alone
    if vqa.decoding["num_beams"] == 1:
        rows = logits(vqa, as_pil(images)[0], QUESTIONS[0], CHOICES[0], [])
        first = vqa.processor.tokenizer.decode([int(rows[0].argmax())], skip_special_tokens=True).strip()
        assert found[0].startswith(first)
    shuffled = vqa.answers(images[[2, 0, 1]], [QUESTIONS[k] for k in (2, 0, 1)], [CHOICES[k] for k in (2, 0, 1)])
    assert shuffled == [found[2], found[0], found[1]]
    red = vqa.probabilities(images, QUESTIONS, CHOICES, ["red"] * 3)
    np.testing.assert_allclose(vqa.probabilities(images[:1], QUESTIONS[:1], CHOICES[:1], ["red"]), red[:1], rtol=1e-4)
    assert len(set(red)) == 3


def test_provenance_names_the_weights_and_the_prompt(vqa):
    assert len(vqa.provenance["weights"]) == 64 and vqa.provenance["prompt"] == vqa.prompt
    assert "{question}" in vqa.prompt


def search(vqa, image, question, choices, beams, longest=30, end=1):
    """The answer of a beam search, one prefix at a time: scores are means over tokens (length penalty 1), the end's
    among them; it stops when no beam scores above the worst of as many answers."""
    alive, done = [(0.0, [])], []
    for k in range(1, longest + 1):
        rows = [(total, ids, logits(vqa, image, question, choices, ids)[-1]) for total, ids in alive]
        more = sorted(((t + float(p[v]), [*ids, v]) for t, ids, p in rows for v in range(len(p))), reverse=True)
        done = sorted([*done, *((t / k, ids) for t, ids in more[:beams] if ids[-1] == end)], reverse=True)[:beams]
        alive = [(t, ids) for t, ids in more if ids[-1] != end][:beams]
        if len(done) == beams and alive[0][0] / k <= done[-1][0]:
            break
    else:
        done += [(t / longest, ids) for t, ids in alive]
    return vqa.processor.tokenizer.decode(max(done)[1], skip_special_tokens=True).strip()


def test_blip2_is_decoded_as_its_authors_package_does(tmp_path, images):
    """LAVIS's `Blip2T5.generate`: five beams, thirty new tokens, length penalty 1."""
    save_blip2(tmp_path)
    vqa, pictures = TransformersVQA(f"local-dir:{tmp_path}"), as_pil(images)
    assert vqa.provenance["decoding"] == {
        "num_beams": 5, "max_new_tokens": 30, "min_length": 1, "length_penalty": 1.0, "repetition_penalty": 1.0
    }  # fmt: skip
    randomised(vqa.model, seed=1)  # weights that do not end their answers at once
    vqa.model.language_model.decoder.final_layer_norm.weight.mul_(12)  # and are surer of some tokens than of others
    asked = list(zip(pictures, QUESTIONS, CHOICES, strict=True))
    found = vqa.answers(images, QUESTIONS, CHOICES)
    assert found == [search(vqa, *row, beams=5) for row in asked] and max(map(len, found)) == 30
    assert found != [search(vqa, *row, beams=1) for row in asked]


def test_provenance_holds_all_that_decides_an_answer(tmp_path):
    def loaded(name, **image):
        (tmp_path / name).mkdir()
        save_blip(tmp_path / name, **image)
        return TransformersVQA(f"local-dir:{tmp_path / name}").provenance

    first, again = loaded("a"), loaded("b")
    assert first == again  # wherever it lies
    assert first["transform"]["image_mean"] == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    assert first["decoding"] == {"num_beams": 1, "max_new_tokens": 49}
    other = loaded("c", image_mean=[0.5, 0.5, 0.5])
    assert other["transform"]["image_mean"] == [0.5, 0.5, 0.5]
    assert {k: v for k, v in other.items() if k != "transform"} == {k: v for k, v in first.items() if k != "transform"}
    assert json.loads(json.dumps(other)) == other

    def changed(file, change):
        path = tmp_path / "b" / file
        whole = path.read_text()
        path.write_text(json.dumps(change(json.loads(whole))))
        found = TransformersVQA(f"local-dir:{tmp_path / 'b'}").provenance
        path.write_text(whole)
        return found

    eps = changed("config.json", lambda c: c | {"vision_config": c["vision_config"] | {"layer_norm_eps": 1e-2}})
    assert eps["weights"] == first["weights"] and eps["settings"] != first["settings"]
    cased = changed("tokenizer_config.json", lambda t: t | {"do_lower_case": False})
    assert cased["settings"] != first["settings"]


@pytest.mark.parametrize("name", ["blip", "local-dir:/nowhere/at/all"])
def test_unknown_models_are_one_sentence(name):
    with pytest.raises(UserError, match="Unknown VQA model .*choose one of blip-large"):
        TransformersVQA(name)


def test_models_of_another_kind_or_in_part_are_one_sentence(tmp_path):
    save_blip(tmp_path)
    config = tmp_path / "config.json"
    whole = config.read_text()
    config.write_text(json.dumps(json.loads(whole) | {"model_type": "bert"}))
    with pytest.raises(UserError, match="Unknown kind of VQA model 'bert'"):
        TransformersVQA(f"local-dir:{tmp_path}")
    config.write_text(whole)
    from safetensors.torch import load_file, save_file

    weights = load_file(tmp_path / "model.safetensors")
    key = "vision_model.post_layernorm.weight"
    for change, sentence in (
        ({key: None}, f"lacks the weights '{key}'"),
        ({"score.head": torch.ones(2)}, "has weights that the model does not know, 'score.head'"),
        ({key: torch.full((16,), torch.nan)}, f"holds NaN or infinity in '{key}' .1 such"),
        ({key: torch.full((16,), torch.inf)}, f"holds NaN or infinity in '{key}'"),
    ):
        state = {k: v for k, v in (weights | change).items() if v is not None}
        save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
        with pytest.raises(UserError, match=sentence):
            TransformersVQA(f"local-dir:{tmp_path}")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="could not be loaded"):
        TransformersVQA(f"local-dir:{tmp_path}")
