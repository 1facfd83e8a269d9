"""Visual question answering through transformers: a free-form answer, and the probability of a given one."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from t2ikit.config import digest
from t2ikit.encoders import not_loaded
from t2ikit.errors import UserError, choose
from t2ikit.hub import loading
from t2ikit.metrics.images import as_pil, checked
from t2ikit.tensors import only_finite, tensors_hash

# BLIP and BLIP-2 as TIFA's authors asked them, the Qwen family as GenEval 2's did
PROMPTS = {
    "blip": "{question}",
    "blip-2": "Answer the multiple-choice question. Question: {question} Choices: {choices} Answer:",
    "qwen2_vl": "{question} Answer in one word.",
    "qwen2_5_vl": "{question} Answer in one word.",
    "qwen3_vl": "{question} Answer in one word.",
}
# How an answer is decoded: BLIP as TIFA's authors do (greedy, `max_length=50` with the token that starts it), BLIP-2 by
# the defaults of LAVIS's `Blip2T5.generate`, which they call, Qwen greedily as GenEval 2 does, but to the answer's end
DECODING: dict[str, dict[str, Any]] = {
    "blip": {"num_beams": 1, "max_new_tokens": 49},
    "blip-2": {
        "num_beams": 5, "max_new_tokens": 30, "min_length": 1, "length_penalty": 1.0, "repetition_penalty": 1.0
    },
    **{kind: {"num_beams": 1, "max_new_tokens": 50} for kind in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")},
}  # fmt: skip
NAMES = {
    "blip-large": "Salesforce/blip-vqa-capfilt-large",
    "blip-base": "Salesforce/blip-vqa-base",
    "blip2-flant5xl": "Salesforce/blip2-flan-t5-xl",
    "qwen3-vl-8b": "Qwen/Qwen3-VL-8B-Instruct",
}
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
BATCH = 16  # rows in one forward pass


class VQA(Protocol):
    """A row is an image and a question about it."""

    name: str
    provenance: dict[str, Any]

    def answers(self, images: Tensor, questions: Sequence[str], choices: Sequence[Sequence[str]]) -> list[str | None]:
        """uint8 [n, 3, H, W], n questions and each one's choices → n answers, which may be none of the choices; None
        where the model says that no choice is true."""
        ...

    def probabilities(
        self, images: Tensor, questions: Sequence[str], choices: Sequence[Sequence[str]], answers: Sequence[str]
    ) -> np.ndarray:
        """The probability [n] that the model's answer is the given one."""
        ...


class TransformersVQA:
    """A BLIP, BLIP-2 or Qwen-VL checkpoint: one of `NAMES`, a hub's OWNER/MODEL, or `local-dir:FOLDER`.

    Decoding as in `DECODING`. Rows are batched only with rows of as many tokens: transformers' BLIP lets its decoder
    look at the padding of a question, so that an answer would depend on the questions beside it.
    """

    def __init__(self, name: str = "blip-large", device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, BlipForQuestionAnswering

        local = name.startswith("local-dir:")
        source = name.removeprefix("local-dir:") if local else NAMES.get(name, name)
        if (local and not Path(source).is_dir()) or (not local and source.count("/") != 1):
            raise UserError(
                f"Unknown VQA model {name!r}: choose one of {', '.join(NAMES)}, a hub's OWNER/MODEL, or the folder of "
                "a checkpoint as local-dir:FOLDER."
            )
        try:
            with loading(from_hub=not local):
                kind = AutoConfig.from_pretrained(source).model_type
                choose("kind of VQA model", kind, PROMPTS)
                kit = BlipForQuestionAnswering if kind == "blip" else AutoModelForImageTextToText
                self.processor = AutoProcessor.from_pretrained(source)
                model, report = kit.from_pretrained(source, dtype=dtype, output_loading_info=True)
        except UserError:
            raise
        except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
            raise not_loaded("VQA model", name, error) from error
        misfits = {"missing_keys": "lacks the weights", "unexpected_keys": "has weights that the model does not know,"}
        for which, what in misfits.items():
            if keys := sorted(report[which]):
                raise UserError(f"{name} {what} {keys[0]!r}: give the whole checkpoint of this model.")
        only_finite(model.state_dict(), name)
        self.name, self.prompt, self.chat, self.device = name, PROMPTS[kind], kind.startswith("qwen"), device
        self.decoding, self.model = DECODING[kind], model.eval().requires_grad_(False).to(device)
        # a decoder that reads the question through its encoder starts anew, others go on from the prompt
        self.anew = kind == "blip" or model.config.text_config.is_encoder_decoder
        self.provenance: dict[str, Any] = {
            "weights": tensors_hash([p for _, p in sorted(model.named_parameters())]),
            "prompt": self.prompt,
            "dtype": str(dtype),
            "decoding": self.decoding,
            "transform": json.loads(self.processor.image_processor.to_json_string()),
            "settings": self._settings(),
        }

    def _settings(self) -> str:
        """Digest of all else that decides an answer: both configurations (the library's version is in them), tokenizer,
        chat template, and how many tokens stand for an image."""
        model, tokenizer = self.model, self.processor.tokenizer
        configs = [json.loads(c.to_json_string(use_diff=False)) for c in (model.config, model.generation_config)]
        configs[0].pop("_name_or_path", None)  # where it lies
        words = [tokenizer.backend_tokenizer.to_str(), tokenizer.special_tokens_map]
        return digest([configs, words, self.processor.chat_template, getattr(self.processor, "num_query_tokens", None)])

    def answers(self, images: Tensor, questions: Sequence[str], choices: Sequence[Sequence[str]]) -> list[str]:
        """See `VQA`."""
        out = [""] * len(questions)
        for rows, inputs in self._batches(self._rows(images, questions, choices)):
            made = self._generate(inputs, **self.decoding)[:, 1 if self.anew else inputs["input_ids"].shape[1] :]
            words = self.processor.batch_decode(made, skip_special_tokens=True)
            for row, text in zip(rows, words, strict=True):
                out[row] = text.strip()
        return out

    def probabilities(
        self, images: Tensor, questions: Sequence[str], choices: Sequence[Sequence[str]], answers: Sequence[str]
    ) -> np.ndarray:
        """See `VQA`. A sum over the ways to write the answer (case, a space before it, a number in digits or in words),
        as GenEval 2 has it; all tokens count, not the first alone, which `tennis ball` and `tennis racket` share.
        """
        out = np.zeros(len(questions))
        rows = self._rows(images, questions, choices)
        tasks = [(row, form) for row, answer in enumerate(answers) for form in self._forms(answer)]
        for picked, inputs in self._batches([rows[row] | {"form": form} for row, form in tasks]):
            forms = [tasks[k][1] for k in picked]
            start: list[int] = []

            def forced(row: int, ids: Tensor, forms: list = forms, start: list = start) -> list[int]:
                start.append(len(ids))  # what was there before the answer: the first call sees no more
                return [forms[row][len(ids) - start[0]]]

            options = {"num_beams": 1, "max_new_tokens": len(forms[0]), "prefix_allowed_tokens_fn": forced}
            logits = self._generate(inputs, **options, output_logits=True, return_dict_in_generate=True).logits
            steps = torch.stack([x.float().log_softmax(-1).cpu() for x in logits], 1)
            taken = steps.gather(2, torch.tensor(forms)[..., None]).sum((1, 2)).exp()
            for k, p in zip(picked, taken.tolist(), strict=True):
                out[tasks[k][0]] += p
        return out

    def _forms(self, answer: str) -> set[tuple[int, ...]]:
        digits = {str(k): w for k, w in enumerate(DIGITS)}
        digits |= {w: k for k, w in digits.items()}
        words = [answer, *([digits[answer]] if answer in digits else [])]
        words = [space + w for x in words for w in (x, x[:1].upper() + x[1:]) for space in ("", " ")]
        return {tuple(self.processor.tokenizer(w, add_special_tokens=False)["input_ids"]) for w in words}

    def _rows(self, images: Tensor, questions: Sequence[str], choices: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
        rows = []
        for image, question, some in zip(as_pil(checked(images, questions)), questions, choices, strict=True):
            text = self.prompt.format(question=question, choices=", ".join(some))
            if self.chat:
                message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}
                text = self.processor.apply_chat_template([message], add_generation_prompt=True)
            rows.append(dict(self.processor(images=image, text=text, return_tensors="pt")))
        return rows

    def _batches(self, rows: list[dict[str, Any]]) -> list[tuple[list[int], dict[str, Tensor]]]:
        """Which rows go together, of as many tokens in and out, and their tensors one below the other."""
        alike = defaultdict(list)
        for k, row in enumerate(rows):
            alike[row["input_ids"].shape[1], len(row.get("form", ()))].append(k)
        picked = [some[i : i + BATCH] for some in alike.values() for i in range(0, len(some), BATCH)]
        keys = [k for k in rows[0] if k != "form"] if rows else []
        return [
            (some, {key: torch.cat([rows[k][key] for k in some]).to(self.device) for key in keys}) for some in picked
        ]

    @torch.no_grad()
    def _generate(self, inputs: dict[str, Tensor], **options: Any) -> Any:
        inputs = {k: v.to(self.model.dtype) if v.is_floating_point() else v for k, v in inputs.items()}
        return self.model.generate(**inputs, **options, do_sample=False)
