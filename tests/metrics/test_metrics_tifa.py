"""TIFA's numbers as its authors compute them, its files, and the questions about scenes."""

import json
from collections import Counter, defaultdict
from statistics import mean, stdev

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t2ikit.data.scenes_captions import describes
from t2ikit.data.scenes_graph import COLORS, SHAPES
from t2ikit.data.world import get_world
from t2ikit.errors import UserError
from t2ikit.metrics.scenes_questions import scene_questions
from t2ikit.metrics.tifa import TIFA, Sentences, aggregate, aggregate_soft, read_prompts, read_questions

# the authors' example: two captions, an image that shows one dog too few
SURFER = [("animal/human", 2), ("object", 1), ("location", 2), ("activity", 2), ("color", 4)]
CATS = [("animal/human", 1), ("animal/human", 0), ("object", 1), ("object", 1), ("activity", 1), ("counting", 1),
        ("counting", 0), ("counting", 0)]  # fmt: skip


def record(key, question, kind, score):
    return {"id": key, "question": str(question), "element_type": kind, "scores": score}


def authors_example():
    surfer = [kind for kind, count in SURFER for _ in range(count)]
    return [record("coco_301091", k, kind, 1) for k, kind in enumerate(surfer)] + [
        record("drawbench_52", k, kind, score) for k, (kind, score) in enumerate(CATS)
    ]


def test_the_authors_example_gives_the_authors_result():
    assert aggregate(authors_example()) == {
        "tifa_average": 0.8125,
        "tifa_stdev": 0.2651650429449553,
        "accuracy_by_type": {
            "animal/human": 0.75,
            "object": 1,
            "location": 1,
            "activity": 1,
            "color": 1,
            "counting": 1 / 3,
        },
    }


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from("abc"), st.booleans()), min_size=1, max_size=30))
def test_the_average_is_of_captions_and_types_pool_questions(rows):
    found = aggregate([record(key, k, kind, int(right)) for k, (key, kind, right) in enumerate(rows)])
    by_caption, by_type = defaultdict(list), defaultdict(list)
    for key, kind, right in rows:
        by_caption[key].append(int(right))
        by_type[kind].append(int(right))
    means = [mean(v) for v in by_caption.values()]
    assert found["tifa_average"] == mean(means)
    assert found["tifa_stdev"] == (stdev(means) if len(means) > 1 else None)
    assert found["accuracy_by_type"] == {k: mean(v) for k, v in by_type.items()}


def test_soft_tifa_is_the_arithmetic_and_the_geometric_mean():
    rows = [record("a", 0, "color", 1), record("a", 1, "shape", 0), record("b", 2, "color", 1)]
    found = aggregate_soft([r | {"probability": p} for r, p in zip(rows, (0.9, 0.4, 0.5), strict=True)])
    assert found["soft_tifa_am"] == pytest.approx((0.65 + 0.5) / 2)
    assert found["soft_tifa_gm"] == pytest.approx((0.6 + 0.5) / 2)
    assert found["probability_by_type"] == pytest.approx({"color": 0.7, "shape": 0.4})
    sure = aggregate_soft([r | {"probability": float(r["scores"])} for r in authors_example()])
    assert sure["soft_tifa_am"] == aggregate(authors_example())["tifa_average"]
    assert sure["soft_tifa_gm"] == pytest.approx(0.5)  # a caption with a wrong answer counts nothing


def test_probabilities_may_miss_zero_and_one_by_rounding_alone():
    rows = [record("a", k, "color", 1) for k in range(3)]
    found = aggregate_soft([r | {"probability": p} for r, p in zip(rows, (1.0000001, 1 + 1e-6, -1e-7), strict=True)])
    assert found["soft_tifa_am"] == 2 / 3 and found["probability_by_type"] == {"color": 2 / 3}
    for p in (1.00001, -1e-5, float("nan"), float("inf"), "1", None):
        with pytest.raises(UserError, match="it must be a number from 0 to 1"):
            aggregate_soft([rows[0] | {"probability": p}])
    with pytest.raises(UserError, match="it must be 0 or 1"):
        aggregate([rows[0] | {"scores": 1.0000001}])


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        ([], "no record to average"),
        ([record("a", "is it?", "color", 0.5)], "'is it.' of 'a' has scores 0.5: it must be 0 or 1"),
        ([record("a", "is it?", "color", None)], "has scores None"),
        ([record("a", "is it?", "color", 2)], "has scores 2"),
        ([record("a", "is it?", "color", float("nan"))], "has scores nan"),
        ([{"id": "a", "scores": 1}], "has no 'element_type'"),
    ],
)
def test_bad_records_are_one_sentence(records, sentence):
    with pytest.raises(UserError, match=sentence):
        aggregate(records)


QUESTION = {
    "id": "p1",
    "caption": "a red circle",
    "question": "what color is the circle?",
    "choices": ["red", "blue"],
    "answer": "red",
    "element_type": "color",
    "element": "red",
}


@pytest.fixture
def written(tmp_path):
    def write(entries):
        path = tmp_path / "file.json"
        path.write_text(entries if isinstance(entries, str) else json.dumps(entries))
        return path

    return write


def test_the_benchmarks_files_are_read_whole(written):
    more = QUESTION | {"id": 7, "caption": "a dog", "coco_val_id": "380711"}
    assert read_questions(written([QUESTION, QUESTION, more])) == [QUESTION, QUESTION, more | {"id": "7"}]
    prompts = [{"id": "a", "caption": "x"}, {"id": 2, "caption": "x", "coco_val_id": "1"}]
    assert read_prompts(written(prompts)) == {"a": "x", "2": "x"}


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ([QUESTION | {"choices": []}], "what color is the circle.' of 'p1' has no choices"),
        ([QUESTION | {"choices": "red"}], "has no choices"),
        ([QUESTION | {"answer": "green"}], "answer 'green', which is not among"),
        ([QUESTION, QUESTION | {"caption": "a dog"}], "the id 'p1' for two captions"),
        ([{k: v for k, v in QUESTION.items() if k != "element_type"}], "Entry 0 of .* has no 'element_type'"),
        ([QUESTION, QUESTION | {"caption": None}], "entry 1 has the caption None: it must be a text that is not empty"),
        ([QUESTION | {"caption": 3}], "entry 0 has the caption 3"),
        ([QUESTION | {"caption": " "}], "entry 0 has the caption ' '"),
        ([QUESTION | {"question": None}], "entry 0 has the question None"),
        ([QUESTION | {"answer": ["red"]}], r"entry 0 has the answer \['red'\]"),
        ([QUESTION | {"element_type": None}], "entry 0 has the element_type None"),
        ([QUESTION | {"element_type": ["color"]}], "entry 0 has the element_type"),
        ([QUESTION | {"choices": [["red"], ["blue"]]}], r"has the choice \['red'\]: each must be a text"),
        ([QUESTION | {"choices": ["red", None]}], "has the choice None"),
        ([QUESTION | {"choices": {"red": 1}}], "has no choices"),
        ([QUESTION | {"id": None}], "entry 0 has the id None: it must be a text or a whole number"),
        ([QUESTION | {"id": ["a"]}], "has the id"),
        ("[1]", "no list of entries"),
        ("{", "cannot be read as JSON"),
        ('[{"id": "a", "caption": "a smile \\ud83d"}]', "cannot be read as JSON .*surrogates not allowed"),
        ("[]", "no list of entries"),
    ],
)
def test_bad_question_files_are_one_sentence(written, entries, sentence):
    with pytest.raises(UserError, match=sentence):
        read_questions(written(entries))


def test_a_prompt_id_that_occurs_twice_is_refused(written):
    with pytest.raises(UserError, match="the id 'a' twice"):
        read_prompts(written([{"id": "a", "caption": "x"}, {"id": "a", "caption": "y"}]))


@pytest.mark.parametrize("wrong", [{"caption": None}, {"caption": 7}, {"caption": ""}, {"id": None}, {"id": True}])
def test_a_prompt_without_a_caption_or_an_id_is_one_sentence(written, wrong):
    (field, value), good = *wrong.items(), {"id": "a", "caption": "x"}
    with pytest.raises(UserError, match=f"Entry 1 of .* has the {field} {value!r}: it must be"):
        read_prompts(written([good, good | {"id": "b"} | wrong]))


@pytest.fixture(scope="module")
def sentences():
    return Sentences()


def test_free_form_answers_go_to_the_nearest_choice(sentences):
    assert sentences.nearest("pale green", ["black", "green", "yellow", "brown"]) == "green"  # the authors' own example
    assert sentences.nearest("puppy", ["cat", "dog", "car"]) == "dog"
    assert sentences.nearest("Yes", ["no", "yes"]) == "yes"
    assert sentences.nearest("one", ["1", "one"]) == "one"  # a choice to the letter is never looked up


def test_sentence_embeddings_are_means_over_tokens_without_padding(sentences):
    texts = ["a dog", "a much longer sentence about a dog that runs over the grass on a sunny day, barking " * 2]
    both = sentences(texts)
    assert both.shape == (2, 384)
    torch.testing.assert_close(both.norm(dim=1), torch.ones(2))
    for text, row in zip(texts, both, strict=True):
        tokens = sentences.tokenizer(text, return_tensors="pt")
        alone = sentences.model(**tokens).last_hidden_state[0].mean(0)
        torch.testing.assert_close(row, alone / alone.norm(), atol=1e-5, rtol=1e-4)


class Oracle:
    """Answers from the scenes themselves, and so knows the ceiling: what is true of the image, in free words."""

    name, provenance = "oracle", {}

    def __init__(self, scenes):
        self.scenes = scenes

    def answers(self, images, questions, choices):
        shown = [self.scenes[int(image[0, 0, 0])] for image in images]
        return [self.answer(*row) for row in zip(shown, questions, choices, strict=True)]

    def probabilities(self, images, questions, choices, answers):
        found = self.answers(images, questions, choices)
        return np.array([0.9 if f == a else 0.1 for f, a in zip(found, answers, strict=True)])

    @staticmethod
    def answer(scene, question, choices):
        words = question.rstrip("?").split()
        colors = [w for w in words if w in COLORS]
        shapes = [s for w in words for s in SHAPES if w in (s, f"{s}s", f"{s}es")]
        if question.startswith("is there"):
            fits = [set(colors) <= {t.color} and set(shapes) <= {t.shape} for t in scene.things]
            return "yes" if any(fits) else "no"
        if "background" in words:
            return scene.background
        things = [next(t for t in scene.things if t.color == c) for c in colors]
        if "or" in words:
            (true,) = set(choices) & set(things[0].relations(things[1]))
            return true
        thing = things[0] if things else next(t for t in scene.things if t.shape == shapes[0])
        if words[0] == "where":
            (true,) = [c for c in choices if set(c.split()) <= set(thing.place.split())]
            return true
        return str(thing.count) if words[0] == "how" else getattr(thing, words[1])


@pytest.mark.parametrize("density", ["sparse", "medium", "dense"])
def test_the_answers_are_true_of_the_scenes_and_no_other_choice_is(density):
    world, index = get_world("scenes"), np.arange(200)
    scenes, asked = world.scenes("val", index), scene_questions(world, "val", index, density)
    captions = dict(enumerate(world.captions("val", index, density)))
    oracle = Oracle(scenes)
    for q in asked:
        number = int(q["id"].split("_")[-1])
        assert q["caption"] == captions[number]
        assert len(set(q["choices"])) == len(q["choices"]) in (2, 3, 4) and q["answer"] in q["choices"]
        assert oracle.answer(scenes[number], q["question"], q["choices"]) == q["answer"], (q, scenes[number])
    assert all(describes(s, d) for s, d in zip(scenes, world.descriptions("val", index, density), strict=True))
    assert len({(q["id"], q["question"]) for q in asked}) == len(asked)
    categories = {"sparse": {"object", "counting"}, "medium": {"object", "color", "shape", "counting", "spatial"}}
    every = {"object", "color", "shape", "counting", "spatial", "other"}
    assert {q["element_type"] for q in asked} == categories.get(density, every)


def test_no_answer_is_given_away_by_its_place_or_by_saying_yes():
    asked = scene_questions(get_world("scenes"), "val", np.arange(300), "dense")
    yes = Counter(q["answer"] for q in asked if q["element_type"] == "object")
    assert yes["yes"] == yes["no"]
    for kind in ("color", "shape"):
        place = Counter(q["choices"].index(q["answer"]) for q in asked if q["element_type"] == kind)
        assert max(place.values()) < 0.45 * place.total()


def test_questions_are_the_same_in_any_order_and_make_a_benchmark_file(written):
    world = get_world("scenes")
    some, others = scene_questions(world, "val", [3, 5], "dense"), scene_questions(world, "val", [5, 3], "dense")
    assert sorted(some, key=str) == sorted(others, key=str)
    assert read_questions(written(some)) == some


def test_tifa_scores_images_by_an_oracle_that_sees_the_scene():
    world = get_world("scenes")
    scenes, asked = world.scenes("val", np.arange(6)), scene_questions(world, "val", np.arange(6), "medium")
    metric = TIFA(Oracle(scenes), asked, soft=True)
    pictures = torch.zeros(6, 3, 8, 8, dtype=torch.uint8)
    pictures[:, 0, 0, 0] = torch.arange(6)
    ids = [f"scenes_val_medium_{k}" for k in range(6)]
    right = metric.records(pictures, ids)
    assert [{k: r[k] for k in asked[0]} for r in right] == asked
    assert aggregate(right)["tifa_average"] == 1 and aggregate_soft(right)["soft_tifa_am"] == pytest.approx(0.9)
    captions = [q["caption"] for q in asked if q["element_type"] == "counting"]
    captions = list(dict.fromkeys(captions))
    assert metric(pictures, captions).tolist() == [1.0] * 6

    one = TIFA(Oracle([scenes[0]] * 6), asked).records(pictures[:1], ids[:1])
    assert {r["scores"] for r in one} == {1} and "probability" not in one[0]
    with pytest.raises(UserError, match="no questions about 'a dog'"):
        metric(pictures[:1], ["a dog"])
    with pytest.raises(UserError, match="no questions with the id 'x'"):
        metric.records(pictures[:1], ["x"])
