"""The VQA network: its shape, its shipped weights, and what it refuses."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from t2ikit.data.scenes_graph import COLORS, SHAPES
from t2ikit.data.world import get_world
from t2ikit.encoders import ASSETS
from t2ikit.errors import UserError
from t2ikit.files import read_json
from t2ikit.metrics.scenes_answers import NONE, Seen
from t2ikit.metrics.scenes_questions import scene_questions
from t2ikit.metrics.tifa import TIFA, aggregate
from t2ikit.standins import vqa
from t2ikit.standins.assets import WEIGHTS, load_asset, save_asset

SHIPPED = ASSETS / vqa.NAME / WEIGHTS
shipped = pytest.mark.skipif(not SHIPPED.exists(), reason="no weights")
WORLD, INDEX = get_world("scenes"), np.arange(60)


def pictures(index=INDEX):
    return torch.from_numpy(WORLD.images("val", index)).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def network():
    return vqa.StandinVQA()


@shipped
def test_it_answers_true_images_as_well_as_it_is_said_to(network):
    metric = TIFA(network, scene_questions(WORLD, "val", INDEX, "dense"))
    right = aggregate(metric.records(pictures(), list(metric.questions)))["tifa_average"]
    assert right == pytest.approx(
        read_json(SHIPPED.with_name("training.json"))["accuracy"]["dense/renders"]["tifa"], abs=0.02
    )
    wrong = aggregate(metric.records(pictures().roll(1, 0), list(metric.questions)))["tifa_average"]
    assert wrong < right - 0.3


@shipped
def test_answers_are_choices_and_probabilities_sum_to_one(network):
    asked = scene_questions(WORLD, "val", INDEX[:4], "dense")
    images = pictures()[[int(q["id"].split("_")[-1]) for q in asked]]
    questions, choices = [q["question"] for q in asked], [q["choices"] for q in asked]
    answers = network.answers(images, questions, choices)
    assert all(a in some for a, some in zip(answers, choices, strict=True))
    total = np.zeros(len(asked))
    for k in range(5):
        forms = [[*some, NONE][k] if k <= len(some) else None for some in choices]
        rows = [i for i, f in enumerate(forms) if f]
        if not rows:
            continue
        some = [[x[i] for i in rows] for x in (questions, choices, forms)]
        total[rows] += network.probabilities(images[rows], *some)
    np.testing.assert_allclose(total, 1, atol=1e-5)


@shipped
def test_an_answer_is_the_same_whatever_is_asked_beside_it(network):
    asked = scene_questions(WORLD, "val", INDEX[:3], "medium")
    images = pictures()[[int(q["id"].split("_")[-1]) for q in asked]]
    columns = [[q[k] for q in asked] for k in ("question", "choices", "answer")]
    together = network.probabilities(images, *columns)
    alone = [network.probabilities(images[[k]], *([c[k]] for c in columns))[0] for k in range(len(asked))]
    np.testing.assert_allclose(together, alone, atol=1e-5)


@shipped
def test_what_it_cannot_read_is_one_sentence(network):
    row = ["is there a red ring?"], [["yes", "no"]]
    with pytest.raises(UserError, match="reads images of 64 × 64 px, not 32 × 64: choose another VQA model"):
        network.answers(torch.zeros(1, 3, 64, 32, dtype=torch.uint8), *row)
    with pytest.raises(UserError, match="Images are torch.float32"):
        network.answers(torch.zeros(1, 3, 64, 64), *row)
    with pytest.raises(UserError, match="has no word for the choice 'mauve'"):
        network.answers(pictures()[:1], ["what color is the ring?"], [["red", "mauve"]])
    with pytest.raises(UserError, match="'is there a dog.' is not one about scenes"):
        network.answers(pictures()[:1], ["is there a dog?"], [["yes", "no"]])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "plain.bias"}, "lacks 'plain.bias' \\(1 in all\\)"),
        (lambda s: s | {"more": torch.zeros(1)}, "has a key that the model does not know, 'more'"),
        (lambda s: s | {"plain.bias": torch.zeros(3)}, "has in another shape 'plain.bias'"),
        (lambda s: s | {"plain.bias": torch.full((4,), torch.nan)}, "has NaN or infinity in 'plain.bias'"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, change, sentence):
    network = vqa.SceneVQA(16)
    save_asset(network, tmp_path)
    assert len(load_asset(network, tmp_path)) == 64
    save_file(change(load_file(tmp_path / WEIGHTS)), tmp_path / WEIGHTS)
    with pytest.raises(UserError, match=sentence):
        load_asset(network, tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"{")
    with pytest.raises(UserError, match="model.safetensors cannot be read"):
        load_asset(network, tmp_path)
    with pytest.raises(UserError, match="none/model.safetensors cannot be read"):
        load_asset(network, tmp_path / "none")


def test_targets_are_right_and_some_are_that_no_choice_is():
    questions, allowed, target = vqa.asked_of(WORLD, "val", INDEX, 0, 20)
    assert questions.shape == (60, 20, 5) and allowed.shape == (60, 20, len(vqa.ANSWERS)) and target.shape == (60, 20)
    assert allowed.gather(2, target[..., None]).all()
    assert not (target[:, :10] == vqa.INDEX[NONE]).any()  # an image's own questions all have an answer
    assert 0.1 < (target[:, 10:] == vqa.INDEX[NONE]).float().mean() < 0.9


def test_marks_stand_where_the_shapes_are():
    scenes = WORLD.scenes("val", INDEX)
    what, offset, ground = vqa.marks_of(scenes)
    for row, scene in enumerate(scenes):
        assert vqa.GROUND[ground[row]] == scene.background
        shapes = Seen.of(scene).shapes
        assert (what[row, :, 0] >= 0).sum() == len(shapes)
        for s in shapes:
            cell = int(s.y // 8) * 8 + int(s.x // 8)
            assert [list(COLORS)[what[row, cell, 0]], SHAPES[what[row, cell, 1]]] == [s.color, s.shape]
            x, y = 4 * (offset[row, cell] + 1) + 8 * torch.tensor([cell % 8, cell // 8])
            assert (float(x), float(y)) == (s.x, s.y)


def test_perfect_marks_answer_nothing_wrongly_about_what_is_not_named():
    """The gates of a question let through what fits its words, and of that everything."""
    network, scenes = vqa.SceneVQA(16), WORLD.scenes("val", INDEX)
    what, _, ground = vqa.marks_of(scenes)
    marks = torch.full((len(scenes), 64, sum(vqa.PARTS)), -20.0)
    marks[..., 0] = torch.where(what[..., 0] >= 0, 20.0, -20.0)
    for k, start in enumerate((1, 9, 17)):
        marks.scatter_(2, start + what[..., k : k + 1].clamp(min=0), 20.0)
    marks[..., -2:] = 0
    found = {}
    network.out.register_forward_pre_hook(lambda _, x: found.setdefault("in", x[0]))
    asked = torch.tensor([vqa.encode("how many red shapes are there?")]).expand(len(scenes), 1, -1)
    network(marks, torch.nn.functional.one_hot(ground, 4) * 40.0, asked)
    counts = [sum(s.color == "red" for s in Seen.of(scene).shapes) for scene in scenes]
    assert found["in"][:, 0, 32].round().tolist() == counts
