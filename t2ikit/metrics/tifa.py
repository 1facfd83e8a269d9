"""TIFA (Hu et al. 2023): the share of questions about a prompt that a VQA model answers rightly on its image.

Benchmark file, records and scores are those of the authors' code. Beside the score stands Soft-TIFA (GenEval 2,
Kamath et al. 2025), with the probability of the right answer where TIFA has 0 or 1.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from statistics import geometric_mean, mean, stdev
from typing import Any

import numpy as np
import torch
from torch import Tensor

from t2ikit.encoders import batches, not_loaded, text_encoder
from t2ikit.errors import UserError
from t2ikit.hub import loading
from t2ikit.metrics.images import checked
from t2ikit.metrics.vqa import VQA
from t2ikit.tensors import only_finite, tensors_hash

FIELDS = ("id", "caption", "question", "choices", "answer", "element_type")
ROWS = 256  # questions prepared at once
ROUNDING = 1e-6  # by which a probability, a sum in float32, may miss 0 … 1
TINY = 1e-300  # a probability of zero would make a geometric mean zero whatever the others are: GenEval 2's floor


def read_prompts(path: str | Path) -> dict[str, str]:
    """Captions by id from the authors' text inputs, a list of `{id, caption, …}`; every id once."""
    captions: dict[str, str] = {}
    for number, entry in enumerate(_read_list(path, ("id", "caption"))):
        _texts(entry, ("caption",), f"Entry {number} of {path}")
        if str(entry["id"]) in captions:
            raise UserError(f"{path} has the id {entry['id']!r} twice: give each prompt an id of its own.")
        captions[str(entry["id"])] = entry["caption"]
    return captions


def read_questions(path: str | Path) -> list[dict[str, Any]]:
    """The authors' question file: a list of `{id, caption, question, choices, answer, element_type, …}`."""
    return checked_questions(_read_list(path, FIELDS), str(path))


def checked_questions(questions: Sequence[dict[str, Any]], source: str = "The list") -> list[dict[str, Any]]:
    """`questions` with ids as text, if each has choices, its answer among them, and each id one caption."""
    captions: dict[str, str] = {}
    for number, q in enumerate(questions):
        _texts(q, ("caption", "question", "answer", "element_type"), f"{source}: entry {number}")
        where = f"{source}: the question {q['question']!r} of {q['id']!r}"
        if not isinstance(q["choices"], list) or not q["choices"]:
            raise UserError(f"{where} has no choices: list at least its answer.")
        if wrong := [c for c in q["choices"] if not isinstance(c, str)]:
            raise UserError(f"{where} has the choice {wrong[0]!r}: each must be a text.")
        if q["answer"] not in q["choices"]:
            raise UserError(f"{where} has the answer {q['answer']!r}, which is not among {q['choices']}: add it.")
        if captions.setdefault(str(q["id"]), q["caption"]) != q["caption"]:
            raise UserError(f"{source} has the id {q['id']!r} for two captions: give each prompt an id of its own.")
    return [q | {"id": str(q["id"])} for q in questions]


def _texts(entry: Mapping[str, Any], fields: Sequence[str], where: str) -> None:
    """A UserError unless the id is a text or a whole number, and the fields are texts that are not empty."""
    key = entry["id"]
    if isinstance(key, bool) or not isinstance(key, (str, int)) or key == "":
        raise UserError(f"{where} has the id {key!r}: it must be a text or a whole number.")
    for field in fields:
        if not isinstance(entry[field], str) or not entry[field].strip():
            raise UserError(f"{where} has the {field} {entry[field]!r}: it must be a text that is not empty.")


def _read_list(path: str | Path, fields: Sequence[str]) -> list[dict[str, Any]]:
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
        json.dumps(entries, ensure_ascii=False).encode()  # half a surrogate pair is JSON, and no text
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): give one of TIFA's files.") from None
    if not entries or not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise UserError(f"{path} is no list of entries: give one of TIFA's files.")
    for number, entry in enumerate(entries):
        if lacks := [f for f in fields if f not in entry]:
            raise UserError(f"Entry {number} of {path} has no {lacks[0]!r}: it needs {', '.join(fields)}.")
    return entries


class Sentences:
    """Sentence embeddings, mean over tokens, normalised: the kit's MiniLM (384 wide), or a model by name.

    The authors' is `sentence-transformers/all-mpnet-base-v2`; a hub's OWNER/MODEL or `local-dir:FOLDER` loads it.
    """

    def __init__(self, name: str = "minilm") -> None:
        self.name = name
        if name == "minilm":
            encoder = text_encoder(name)
            self.tokenizer, self.model = encoder.tokenizer, encoder.model
        else:
            self._load(name.removeprefix("local-dir:"), local=name.startswith("local-dir:"))
        self.fingerprint = tensors_hash([p for _, p in sorted(self.model.named_parameters())])

    def _load(self, source: str, local: bool) -> None:
        from transformers import AutoModel, AutoTokenizer

        try:
            with loading(from_hub=not local):
                self.tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local)
                self.model, report = AutoModel.from_pretrained(source, local_files_only=local, output_loading_info=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise not_loaded("sentence encoder", self.name, error) from error
        if missing := sorted(k for k in report["missing_keys"] if not k.startswith("pooler.")):  # nothing is pooled so
            raise UserError(f"{self.name} lacks the weights {missing[0]!r}: give the whole checkpoint of this model.")
        only_finite(self.model.state_dict(), self.name)
        self.model.eval()

    @torch.no_grad()
    def __call__(self, sentences: Sequence[str]) -> Tensor:
        """[n, width], rows of length one."""
        tokens = self.tokenizer(list(sentences), padding=True, truncation=True, return_tensors="pt")
        mask = tokens["attention_mask"][..., None].float()
        states = self.model(**tokens).last_hidden_state
        return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)

    def nearest(self, answer: str, choices: Sequence[str]) -> str:
        """`answer` if it is one of the choices to the letter, else the choice whose embedding is most alike."""
        if answer in choices:
            return answer
        vectors = self([answer, *choices])
        return choices[int((vectors[1:] @ vectors[0]).argmax())]


class TIFA:
    """Scores images by the questions of a benchmark; without `soft`, no probabilities are computed.

    As a metric of (images, prompts) it is the mean over a prompt's questions.
    """

    name = "tifa"

    def __init__(
        self, vqa: VQA, questions: Sequence[dict[str, Any]], sentences: Sentences | None = None, soft: bool = False
    ) -> None:
        self.vqa, self.sentences, self.soft = vqa, sentences or Sentences(), soft
        self.questions: dict[str, list[dict[str, Any]]] = {}
        for q in checked_questions(questions):
            self.questions.setdefault(q["id"], []).append(q)
        self.by_caption = {some[0]["caption"]: key for key, some in reversed(self.questions.items())}
        self.provenance = {"vqa": vqa.name, **vqa.provenance, "sentences": self.sentences.name,
                           "sentences_weights": self.sentences.fingerprint}  # fmt: skip

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> np.ndarray:
        """uint8 [n, 3, H, W] and n captions of the benchmark → scores [n] in [0, 1]."""
        if unknown := [p for p in prompts if p not in self.by_caption]:
            raise UserError(f"There are no questions about {unknown[0]!r}: score the benchmark's own captions.")
        keys = [self.by_caption[p] for p in prompts]
        scores = iter(self.records(images, keys))
        return np.array([mean(next(scores)["scores"] for _ in self.questions[key]) for key in keys], dtype=float)

    def records(self, images: Tensor, ids: Sequence[str]) -> list[dict[str, Any]]:
        """An entry for each question of each image: the question's own fields, `free_form_vqa`, `multiple_choice_vqa`,
        `scores` (0 or 1), and with `soft` the `probability` of the right answer. Where the VQA model has no answer,
        both are None and the question is answered wrongly.
        """
        checked(images, ids)
        if unknown := [k for k in ids if str(k) not in self.questions]:
            raise UserError(f"There are no questions with the id {unknown[0]!r}: score the benchmark's own prompts.")
        pairs, out = [(k, q) for k, key in enumerate(ids) for q in self.questions[str(key)]], []
        for piece in batches(len(pairs), ROWS):
            index, some = zip(*pairs[piece], strict=True)
            rows = images[list(index)], [q["question"] for q in some], [q["choices"] for q in some]
            entries = []
            for q, answer in zip(some, self.vqa.answers(*rows), strict=True):
                choice = None if answer is None else self.sentences.nearest(answer, q["choices"])
                made = {"free_form_vqa": answer, "multiple_choice_vqa": choice, "scores": int(choice == q["answer"])}
                entries.append(q | made)
            if self.soft:
                right = self.vqa.probabilities(*rows, [q["answer"] for q in some])
                entries = [e | {"probability": float(p)} for e, p in zip(entries, right, strict=True)]
            out += entries
        return out


def aggregate(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The authors' result from records of `id, question, element_type, scores` (0 or 1).

    `tifa_average`: the mean of the captions' means. `tifa_stdev`: their sample standard deviation, None with one
    caption. `accuracy_by_type`: questions pooled. A question that a caption has twice counts twice, as theirs does.
    """
    by_caption, by_type = _grouped(records, "scores")
    means = [mean(scores) for scores in by_caption.values()]
    return {
        "tifa_average": float(mean(means)),
        "tifa_stdev": float(stdev(means)) if len(means) > 1 else None,
        "accuracy_by_type": {kind: float(mean(scores)) for kind, scores in by_type.items()},
    }


def aggregate_soft(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Soft-TIFA from records with a `probability`: `soft_tifa_am` and `soft_tifa_gm`, the mean over captions of the
    arithmetic and of the geometric mean of their questions, and `probability_by_type`.
    """
    by_caption, by_type = _grouped(records, "probability")
    return {
        "soft_tifa_am": float(mean(mean(p) for p in by_caption.values())),
        "soft_tifa_gm": float(mean(geometric_mean(max(x, TINY) for x in p) for p in by_caption.values())),
        "probability_by_type": {kind: float(mean(p)) for kind, p in by_type.items()},
    }


def _grouped(records: Iterable[Mapping[str, Any]], key: str) -> tuple[dict[str, list], dict[str, list]]:
    """Numbers by caption and by element type, in the order of the records."""
    by_caption, by_type = defaultdict(list), defaultdict(list)
    for r in records:
        if lacks := [k for k in ("id", "element_type", key) if k not in r]:
            raise UserError(f"The record {dict(r)} has no {lacks[0]!r}: aggregate what TIFA.records returns.")
        value, scores = r[key], key == "scores"
        inside = isinstance(value, (Real, np.bool_)) and -ROUNDING <= value <= 1 + ROUNDING
        if not inside or (scores and value not in (0, 1)):
            raise UserError(
                f"The question {r.get('question')!r} of {r['id']!r} has {key} {value!r}: it must be "
                f"{'0 or 1' if scores else 'a number from 0 to 1'}."
            )
        by_caption[r["id"]].append(int(value) if scores else min(max(float(value), 0.0), 1.0))
        by_type[r["element_type"]].append(by_caption[r["id"]][-1])
    if not by_caption:
        raise UserError("There is no record to average: answer at least one question.")
    return by_caption, by_type
