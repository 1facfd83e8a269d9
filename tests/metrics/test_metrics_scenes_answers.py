"""Right answers from the scene graph, and the same from pixels without learning."""

import numpy as np
import pytest
import torch

from t2ikit.data.world import get_world
from t2ikit.errors import UserError
from t2ikit.metrics.scenes_answers import NONE, Parsed, Seen, Shape, answer, parse
from t2ikit.metrics.scenes_checker import Checker, look
from t2ikit.metrics.scenes_questions import scene_questions
from t2ikit.metrics.tifa import TIFA, aggregate, aggregate_soft

WORLD, INDEX = get_world("scenes"), np.arange(150)


@pytest.mark.parametrize("density", WORLD.densities)
def test_the_scene_graph_answers_every_question_about_its_own_captions(density):
    seen = [Seen.of(s) for s in WORLD.scenes("val", INDEX)]
    for q in scene_questions(WORLD, "val", INDEX, density):
        assert answer(seen[int(q["id"].split("_")[-1])], q["question"], q["choices"]) == q["answer"], q


def test_questions_are_taken_apart():
    assert parse("is there an orange shape?") == Parsed("object", ("orange", None))
    assert parse("what color are the crosses?") == Parsed("color", (None, "cross"))
    assert parse("what shape is the red thing?") == Parsed("shape", ("red", None))
    assert parse("how many pink hearts are there?") == Parsed("count", ("pink", "heart"))
    assert parse("what size is the red ring?") == Parsed("size", ("red", "ring"))
    assert parse("where are the blue stars?") == Parsed("place", ("blue", "star"))
    relation = Parsed("horizontal", ("red", "circle"), ("blue", "ring"))
    assert parse("is the red circle left of or right of the blue ring?") == relation
    assert parse("are the red circles above or below the blue ring?") == relation._replace(kind="vertical")
    assert parse("what color is the background?") == Parsed("background")
    for strange in ("is there a dog?", "why?", "", "what color is love?"):
        with pytest.raises(UserError, match="is not one about scenes"):
            parse(strange)


def test_what_is_not_there_has_no_answer():
    seen = Seen("gray", (Shape("red", "ring", "small", 11.5, 11.5), Shape("red", "ring", "small", 32.5, 11.5)))
    assert answer(seen, "how many red rings are there?", ["1", "2"]) == "2"
    assert answer(seen, "how many red rings are there?", ["1", "3"]) == NONE
    assert answer(seen, "what color are the stars?", ["red", "blue"]) == NONE
    assert answer(seen, "is there a blue ring?", ["yes", "no"]) == "no"
    assert answer(seen, "where are the red rings?", ["top left", "right"]) == "top left"
    assert answer(seen, "are the red rings left of or right of the blue star?", ["left of", "right of"]) == NONE


def test_the_checker_reads_renders_without_a_fault():
    scenes = [Seen.of(s) for s in WORLD.scenes("val", INDEX)]
    for image, true in zip(WORLD.images("val", INDEX), scenes, strict=True):
        found = look(image)
        assert found.background == true.background
        left = list(found.shapes)
        for shape in true.shapes:
            near = min(left, key=lambda s, shape=shape: abs(s.x - shape.x) + abs(s.y - shape.y))
            assert near[:3] == shape[:3] and abs(near.x - shape.x) <= 0.5 and abs(near.y - shape.y) <= 0.5
            left.remove(near)
        assert not left


def test_the_checker_is_a_vqa_of_tifa():
    metric = TIFA(Checker(), scene_questions(WORLD, "val", INDEX[:20], "dense"), soft=True)
    images = torch.from_numpy(WORLD.images("val", INDEX[:20])).permute(0, 3, 1, 2)
    assert aggregate(metric.records(images, list(metric.questions)))["tifa_average"] == 1
    wrong = aggregate(metric.records(images.roll(1, 0), list(metric.questions)))
    assert wrong["tifa_average"] < 0.7


def test_where_the_checker_has_no_answer_the_question_is_answered_wrongly():
    """Of black images nothing is true but that shapes which no caption names are not there, and black backgrounds."""
    metric = TIFA(Checker(), scene_questions(WORLD, "val", INDEX[:60], "dense"), soft=True)
    records = metric.records(torch.zeros(60, 3, 64, 64, dtype=torch.uint8), list(metric.questions))
    for r in records:
        answered = r["element_type"] == "object" or r["question"] == "what color is the background?"
        assert (r["free_form_vqa"] is None) is (r["multiple_choice_vqa"] is None)
        right = answered and r["answer"] in ("no", "black")
        assert (r["scores"], r["probability"]) == (right, right), r
        assert answered or r["free_form_vqa"] is None
    by_type = aggregate(records)["accuracy_by_type"]
    assert by_type["color"] == by_type["shape"] == by_type["counting"] == by_type["spatial"] == 0
    assert by_type["object"] == 0.5 and aggregate(records)["tifa_average"] < 0.25
    assert aggregate_soft(records)["soft_tifa_am"] == pytest.approx(aggregate(records)["tifa_average"])


@pytest.mark.parametrize("size", [(32, 32), (64, 48), (128, 128)])
def test_the_checker_refuses_images_of_another_size(size):
    with pytest.raises(UserError, match=f"checker-scenes reads images of 64 × 64 px, not {size[1]} × {size[0]}"):
        Checker().answers(torch.zeros(1, 3, *size, dtype=torch.uint8), ["is there a circle?"], [["yes", "no"]])


def test_the_checker_says_something_of_any_picture():
    noise = np.random.default_rng(0).integers(256, size=(3, 64, 64, 3), dtype=np.uint8)
    plain = np.full((1, 64, 64, 3), 250, np.uint8)
    for image in (*noise, *plain):
        assert look(image).background in ("black", "gray", "brown", "navy")
