"""The harness: rows with intervals and provenance, nothing scored twice or skipped, one sentence a fault."""

import json
import re
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import constants
from PIL import Image

from t2ikit import cli
from t2ikit.data.world import get_world
from t2ikit.errors import UserError
from t2ikit.evaluation import harness, measures, tables
from t2ikit.evaluation.scores import Scores, keys_of
from t2ikit.evaluation.sets import Sampling, captions_of, image_set, snapshots_of
from t2ikit.generate import load_run, snapshots
from t2ikit.metrics.scenes_questions import scene_questions
from t2ikit.standins.vqa import StandinVQA
from t2ikit.train.setup import resolve

N = 24
pytestmark = pytest.mark.skipif(not StandinVQA.__init__.__defaults__[0].exists(), reason="no weights")


@pytest.fixture
def folder(home, tmp_path):
    """`folder(name, shift)`: N renders of scenes with their prompts and questions; shifted, those of other scenes."""

    def make(name="true", shift=0, n=N):
        world, index, path = get_world("scenes"), np.arange(n), tmp_path / name
        path.mkdir()
        asked = scene_questions(world, "val", index, "medium")
        prompts = {q["id"]: q["caption"] for q in asked}
        (path / "prompts.json").write_text(json.dumps([{"id": k, "caption": c} for k, c in prompts.items()]))
        (path / "questions.json").write_text(json.dumps(asked))
        for key, image in zip(prompts, world.images("val", index + shift), strict=True):
            Image.fromarray(image).save(path / f"{key}.png")
        return path

    return make


def quiet(_):
    pass


def values(rows):
    return {r["metric"]: r["value"] for r in rows if r["versus"] is None}


def test_true_images_score_high_and_others_low(folder):
    true, other = folder(), folder("other", shift=500)
    said = []
    rows = harness.evaluate([true, other], reference=true, margin=0.05, say=said.append)
    good, bad = (values([r for r in rows if r["run"] == name]) for name in ("true", "other"))
    assert good["tifa"] > 0.95 > 0.75 > bad["tifa"]
    assert good["soft-tifa"] > bad["soft-tifa"] + 0.2 and good["contrastive-v1"] > bad["contrastive-v1"] + 0.1
    assert good["fd-efficientnet-lite0"] == pytest.approx(0, abs=1e-3) and bad["fd-efficientnet-lite0"] > 0.1
    assert good["tifa-floor"] < 0.75
    assert {k for k in good if k.startswith("tifa/")} == {
        f"tifa/{k}" for k in ("color", "counting", "object", "shape", "spatial")
    }
    assert "alignment is left out for true: it is measured on a run's weights, not on images." in said

    compared = {r["metric"]: r for r in rows if r["versus"]}
    assert set(compared) == {"tifa", "soft-tifa", "soft-tifa-geometric", "contrastive-v1"}
    difference = compared["tifa"]
    assert (difference["run"], difference["versus"]) == ("other", "true")
    assert difference["value"] == pytest.approx(bad["tifa"] - good["tifa"])
    assert difference["low"] < difference["value"] < difference["high"] < 0
    assert difference["provenance"]["metric"]["margin"] == 0.05
    assert difference["provenance"]["metric"]["equivalent"] is False
    assert any(s.startswith("tifa: to find a difference of 0.02 between other and true, ") for s in
               harness.needed(rows, 0.02))  # fmt: skip


def test_every_row_says_what_decided_it(folder):
    rows = harness.evaluate([folder()], ["tifa", "contrastive"], say=quiet)
    assert all(set(r) == set(tables.ROW) for r in rows)
    json.dumps(rows, allow_nan=False)
    for row in rows:
        assert row["n"] <= N and row["low"] <= row["value"] <= row["high"]
        assert len(row["provenance"]["metric"]["weights"]) == 64 and row["provenance"]["t2ikit"]


def test_what_was_scored_is_not_scored_again(folder, monkeypatch):
    path = folder()
    before = harness.evaluate([path], ["tifa", "contrastive"], say=quiet)
    monkeypatch.setattr(StandinVQA, "answers", None)
    monkeypatch.setattr(measures.ContrastiveScore, "__call__", None)
    assert harness.evaluate([path], ["tifa", "contrastive"], say=quiet) == before
    key = sorted(path.glob("*.png"))[0]
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(key)
    with pytest.raises(TypeError):  # another image is another score
        harness.evaluate([path], ["contrastive"], say=quiet)


def test_the_rank_correlation_with_tifa_is_that_of_the_rows():
    given = {"a": (0.3, 0.1), "b": (0.5, 0.4), "c": (0.4, 0.2), "d": (0.9, 0.3)}
    rows = [
        {"run": run, "step": 1, "metric": metric, "value": value, "versus": None}
        for run, pair in given.items()
        for metric, value in zip(("tifa", "caption_gap"), pair, strict=True)
    ]
    (sentence,) = harness.correlations(rows)
    assert sentence.startswith("Rank correlation of caption_gap with tifa over 4 runs: 0.800 (p = ")
    assert harness.correlations(rows[:4]) == []
    along = [row | {"run": "one", "step": k} for k, row in enumerate(rows)]  # checkpoints of one run are one run
    along = [row | {"step": row["step"] // 2} for row in along]
    assert harness.correlations(along) == []


def test_scores_survive_an_interruption_and_equal_images_are_scored_once(tmp_path):
    scores, asked = Scores(tmp_path / "scores.sqlite"), []

    def compute(rows):
        asked.extend(rows)
        if len(asked) > 150:
            raise KeyboardInterrupt
        return [np.array([float(k)]) for k in rows]

    keys = [str(k // 2) for k in range(400)]
    with pytest.raises(KeyboardInterrupt):
        scores.of("m", keys, compute)
    asked.clear()
    found = Scores(tmp_path / "scores.sqlite").of("m", keys, compute)
    assert len(asked) == 72 and [int(x[0]) for x in found] == [k // 2 * 2 for k in range(400)]
    assert scores.of("another metric", ["0"], compute)[0] == [0.0]


def test_a_score_that_is_no_number_and_a_damaged_file_are_refused(tmp_path):
    scores = Scores(tmp_path / "scores.sqlite")
    with pytest.raises(UserError, match="scoring of image 1 is not finite"):
        scores.of("m", ["a", "b"], lambda rows: [np.array([0.0 if k == 0 else np.nan]) for k in rows])
    (tmp_path / "scores.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(UserError, match="cannot be read or written .* delete it"):
        Scores(tmp_path / "scores.sqlite").of("m", ["a"], lambda rows: [np.zeros(1)])


def test_scores_that_are_only_out_of_reach_are_not_to_be_deleted(tmp_path):
    (tmp_path / "scores.sqlite").mkdir()
    with pytest.raises(UserError, match="unable to open database file.*: see that it can be written to"):
        Scores(tmp_path / "scores.sqlite")


def clear(image):
    image = image.convert("RGBA")
    image.putpixel((0, 0), (255, 0, 0, 0))
    return image


def test_a_grey_image_and_an_opaque_alpha_are_read_as_they_look(folder):
    path = folder()
    first, second, *_ = sorted(path.glob("*.png"))
    Image.open(first).convert("L").save(first)
    before = image_set(path, Sampling(), "cpu", quiet).images
    Image.open(second).convert("RGBA").save(second)
    assert torch.equal(image_set(path, Sampling(), "cpu", quiet).images, before)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda p: p.unlink(), "scenes_val_medium_0.png is missing: generate it again, nothing is skipped"),
        (lambda p: p.write_bytes(p.read_bytes()[:100]), "scenes_val_medium_0.png cannot be read"),
        (lambda p: clear(Image.open(p)).save(p), "scenes_val_medium_0.png is transparent in places"),
        (lambda p: Image.open(p).resize((32, 64)).save(p), r"is 64 × 64 px and .* is 32 × 64 px"),
        (lambda p: Image.open(p).save(p, save_all=True, append_images=[Image.new("RGB", (64, 64))]), "has 2 frames"),
    ],
)
def test_a_bad_image_is_named_and_the_scores_so_far_are_kept(folder, tmp_path, spoil, sentence):
    good, bad, out = folder("good"), folder("bad", shift=30), tmp_path / "rows.csv"
    spoil(bad / "scenes_val_medium_0.png")
    with pytest.raises(UserError, match=sentence):
        harness.evaluate([good, bad], ["contrastive"], say=quiet, keep=lambda rows: tables.export(out, rows))
    assert pd.read_csv(out)["run"].tolist() == ["good"]


def rewrite(path, change):
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


@pytest.mark.parametrize(
    ("file", "change", "sentence"),
    [
        ("prompts.json", lambda x: [x[0], *x], "has the id 'scenes_val_medium_0' twice"),
        ("prompts.json", lambda x: [x[0] | {"id": "../x"}], "The id '../x' in .* is no file name"),
        ("prompts.json", lambda x: [x[0] | {"caption": "a dog"}], "no question about 'scenes_val_medium_0', 'a dog'"),
        ("prompts.json", lambda x: [], "no list of entries"),
        ("questions.json", lambda x: [x[0] | {"choices": []}, *x[1:]], "has no choices"),
        ("questions.json", lambda x: [x[0] | {"question": "is there a dog?"}, *x[1:]], "is not one about scenes"),
    ],
)
def test_bad_prompts_and_questions_are_one_sentence(folder, file, change, sentence):
    path = folder()
    rewrite(path / file, change)
    with pytest.raises(UserError, match=sentence):
        harness.evaluate([path], ["tifa"], say=quiet)


def test_sets_of_different_n_are_not_compared_and_few_images_are_flagged(folder):
    path, less = folder(), folder("less", n=N - 1)
    with pytest.raises(UserError, match="true has 24 images and the reference 23: compare sets of one n and size"):
        harness.evaluate([path], ["fidelity"], reference=less, say=quiet)
    sentence = "less has other prompts than true ('scenes_val_medium_23' is one of 1)"
    with pytest.raises(UserError, match=re.escape(sentence)):
        harness.evaluate([path, less], ["contrastive"], say=quiet)
    rows = harness.evaluate([path], ["fidelity"], reference=path, say=quiet)
    flags = {r["metric"]: r["provenance"]["metric"]["flags"] for r in rows}
    assert any("singular: n = 24 ≤ d = 1280" in flag for flag in flags["fd-efficientnet-lite0"])
    first, *_ = harness.flagged(rows)  # and whoever reads the table is told
    assert first.startswith("fd-efficientnet-lite0, ") and first.endswith(" of true: singular: n = 24 ≤ d = 1280.")


def test_three_images_have_what_three_images_can(folder, tmp_path):
    few, said = folder(n=3), []
    found = values(harness.evaluate([few], ["fidelity"], reference=few, say=said.append))
    assert set(found) == {"fd-efficientnet-lite0", "kid-efficientnet-lite0"}
    assert "Precision and recall are left out for true: they need more than 3 images." in said


@pytest.mark.parametrize(
    ("metrics", "sentence"),
    [
        (["beauty"], "Unknown metric 'beauty': choose one of tifa, contrastive, fidelity, alignment"),
        (["fidelity"], "fidelity of true is not possible: there are no images to compare with"),
        (["alignment"], "alignment of true is not possible"),
        (["imagereward:/none.pt"], "There is no checkpoint /none.pt: give imagereward: the path of a file"),
        (["imagereward"], "'imagereward' is no metric: write it as imagereward:FILE"),
        (["contrastive:foo"], "'contrastive:foo' is no metric: write it as contrastive"),
        (["tifa:"], "'tifa:' is no metric: write it as tifa or tifa:VQA"),
        (["likelihood"], "likelihood of true is not possible: it is measured on a run's weights"),
        (["tifa:none"], "Unknown VQA model 'none'"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(folder, metrics, sentence):
    with pytest.raises(UserError, match=sentence):
        harness.evaluate([folder()], metrics, say=quiet)


def test_the_command_prints_one_document_or_a_table(folder, monkeypatch, capsys, tmp_path):
    path, out = folder(), tmp_path / "rows.csv"
    command = ["t2ikit", "evaluate", str(path), "--metrics", "tifa,contrastive", "--export", str(out)]
    monkeypatch.setattr(sys, "argv", [*command, "--json"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    rows = json.loads(capsys.readouterr().out)
    assert not stop.value.code and len(pd.read_csv(out)) == len(rows) > 3
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr().out
    assert "soft-tifa" in said and "to find a difference of 0.02 between true and a run unlike it," in said
    monkeypatch.setattr(sys, "argv", [*command[:3], "--metrics", "beauty"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2 and capsys.readouterr().err.startswith("t2ikit: Unknown metric 'beauty'")


def test_images_of_another_size_need_a_model_by_name(folder):
    path = folder()
    for file in path.glob("*.png"):
        Image.open(file).resize((32, 32)).save(file)
    with pytest.raises(UserError, match="tifa of true is not possible: its stand-in reads 64 px alone"):
        harness.evaluate([path], ["tifa"], say=quiet)
    with pytest.raises(UserError, match="^Nothing can be measured of true: see above why"):
        harness.evaluate([path], say=quiet)


@pytest.mark.parametrize("metric", ["clip:ViT-B-32/laion2b_s34b_b79k", "tifa:blip-large"])
def test_without_a_network_a_published_model_is_one_sentence(folder, monkeypatch, metric):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="could not be loaded .*give a local copy as .*local-dir:"):
        harness.evaluate([folder()], [metric], say=quiet)


def test_tifas_sentence_encoder_is_chosen_and_kept_in_the_row(folder, monkeypatch):
    path = folder(n=2)
    with pytest.raises(UserError, match="nowhere"):
        harness.evaluate([path], ["tifa:checker"], sentences="local-dir:nowhere", say=quiet)
    rows = harness.evaluate([path], ["tifa:checker"], sentences="minilm", say=quiet)
    assert {r["provenance"]["metric"]["sentences"] for r in rows} == {"minilm"}
    monkeypatch.setattr(measures, "TransformersVQA", lambda *_: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="all-mpnet-base-v2"):  # the authors' own beside a published model
        measures.build("tifa:blip-large", "cpu")


def test_a_margin_needs_two_runs_and_a_path_must_hold_something(folder, tmp_path):
    with pytest.raises(UserError, match="name at least two runs, and a margin above zero"):
        harness.evaluate([folder()], margin=0.1, say=quiet)
    with pytest.raises(UserError, match="is no run folder and has no prompts.json"):
        harness.evaluate([tmp_path], say=quiet)


def test_what_cannot_work_is_said_before_anything_is_scored(folder, tmp_path, monkeypatch, capsys):
    path, junk = folder(), tmp_path / "junk.csv"
    with pytest.raises(UserError, match="The device 'gpu' cannot be used .*: choose cpu, or cuda with a driver"):
        harness.evaluate([path], ["contrastive"], device="gpu", say=quiet)
    with pytest.raises(UserError, match="a margin above zero"):
        harness.evaluate([path, path], margin=-1.0, say=quiet)
    with pytest.raises(UserError, match="A guidance scale of nan is not possible"):
        Sampling(guidance=float("nan"))
    (tmp_path / "x").mkdir()
    shutil.copytree(path, tmp_path / "x" / path.name)
    with pytest.raises(UserError, match="Two of the paths are called 'true'"):  # rows are told apart by that name
        harness.evaluate([path, tmp_path / "x" / path.name], say=quiet)
    junk.write_text("a,b\n1,2\n")
    for option, sentence in (
        (["--export", str(junk)], "is no table of scores, it has no column 'run'"),
        (["--difference", "0"], "A difference of 0 needs no prompts"),
    ):
        monkeypatch.setattr(sys, "argv", ["t2ikit", "evaluate", str(path), *option])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 2 and sentence in capsys.readouterr().err


def test_faults_are_found_before_images_are_drawn(run, folder, monkeypatch, tmp_path):
    monkeypatch.setattr(harness, "image_set", None)
    with pytest.raises(UserError, match="Unknown VQA model 'none'"):
        harness.evaluate([run], ["contrastive", "tifa:none"], say=quiet)
    few = folder(n=3)
    with pytest.raises(UserError, match="has 3 images and 1000 prompts are to be drawn: .* with --prompts 3"):
        harness.evaluate([run], ["fidelity"], reference=few, say=quiet)
    with pytest.raises(UserError, match="true has other prompts than"):
        harness.evaluate([run, few], ["contrastive"], Sampling(prompts=4), say=quiet)
    with pytest.raises(UserError, match="true holds images that are drawn already: leave out --prompts"):
        harness.evaluate([few], ["contrastive"], Sampling(prompts=2), say=quiet)


def test_probabilities_are_asked_for_where_they_are_shown(folder, monkeypatch):
    """Soft scores cost a published model a pass a choice: the floor needs none."""
    asked = []
    real = StandinVQA.probabilities
    monkeypatch.setattr(StandinVQA, "probabilities", lambda self, *a: asked.append(len(a[0])) or real(self, *a))
    path = folder("unseen", shift=1777)  # nothing of it is in the cache
    rows = harness.evaluate([path], ["tifa"], say=quiet)
    assert {"tifa-floor", "soft-tifa"} <= set(values(rows))
    assert sum(asked) == len(json.loads((path / "questions.json").read_text()))


def test_rows_so_far_are_kept_after_each_metric(folder, tmp_path):
    path, less, out = folder(), folder("less", n=N - 1), tmp_path / "rows.csv"
    with pytest.raises(UserError, match="compare sets of one n"):
        harness.evaluate([path], ["contrastive", "fidelity"], reference=less, say=quiet,
                         keep=lambda rows: tables.export(out, rows))  # fmt: skip
    assert tables.read(out)["metric"].tolist() == ["contrastive-v1"]


def test_a_hash_of_digits_is_no_number(folder, tmp_path):
    rows, out = harness.evaluate([folder()], ["contrastive"], say=quiet), tmp_path / "rows.csv"
    for hashed in ("123456789012", "1234567890e1"):
        for row in rows:
            row["provenance"]["images"]["content"] = hashed
        for _ in range(3):
            tables.export(out, rows)
    assert tables.read(out)["images.content"].tolist() == ["123456789012"] * len(rows) + ["1234567890e1"] * len(rows)


def test_seeds_keep_their_digits_beside_a_folder_that_has_none(folder, tmp_path):
    rows, out = harness.evaluate([folder()], ["contrastive"], say=quiet), tmp_path / "rows.csv"
    tables.export(out, rows)
    for seed in (20240402, 20240403, 20240404):
        drawn = json.loads(json.dumps(rows))
        for row in drawn:
            row["provenance"]["images"] = {"seed": seed}
        tables.export(out, drawn)
    assert tables.read(out)["images.seed"].dropna().unique().tolist() == [20240402, 20240403, 20240404]


def test_folders_of_one_name_and_another_content_keep_their_rows(folder, tmp_path):
    out, first = tmp_path / "rows.csv", folder("drawn")
    (tmp_path / "elsewhere").mkdir()
    elsewhere = first.rename(tmp_path / "elsewhere" / "drawn")
    for path in (elsewhere, folder("drawn", shift=50), elsewhere):
        tables.export(out, harness.evaluate([path], ["contrastive"], say=quiet))
    kept = tables.read(out)
    assert kept["run"].tolist() == ["drawn", "drawn"] and kept["images.content"].nunique() == 2


def test_the_floor_shows_no_image_of_the_same_prompt(folder):
    path = folder(n=3)
    prompts = json.loads((path / "prompts.json").read_text())
    asked = json.loads((path / "questions.json").read_text())
    for k in range(3):  # three more images of each prompt
        for j in range(3):
            old, new = prompts[k]["id"], f"{k}-{j}"
            prompts.append(prompts[k] | {"id": new})
            asked += [q | {"id": new} for q in asked if q["id"] == old]
            shutil.copy(path / f"{old}.png", path / f"{new}.png")
    order = sorted(prompts, key=lambda p: p["caption"])
    (path / "prompts.json").write_text(json.dumps(order))
    (path / "questions.json").write_text(json.dumps(asked))
    found = values(harness.evaluate([path], ["tifa"], say=quiet))
    assert found["tifa"] > 0.9 and found["tifa-floor"] < 0.75


def test_what_is_left_out_is_said(folder):
    path, said = folder(n=2), []
    Image.new("RGB", (64, 64)).save(path / "stray.png")
    rewrite(path / "prompts.json", lambda x: x[:1])
    harness.evaluate([path], ["tifa"], say=said.append)
    assert any(s.startswith("true: 2 images belong to no prompt") for s in said)
    assert any("questions are about prompts it has not" in s for s in said)
    assert "tifa-floor is left out for true: it needs two different prompts." in said


def test_a_reference_may_be_any_folder_of_images_of_the_same_size(folder, tmp_path):
    path, plain = folder(), tmp_path / "plain"
    plain.mkdir()
    with pytest.raises(UserError, match="plain holds no images to compare with"):
        harness.evaluate([path], ["fidelity"], reference=plain, say=quiet)
    for file in path.glob("*.png"):
        shutil.copy(file, plain)
    assert values(harness.evaluate([path], ["fidelity"], reference=plain, say=quiet))[
        "fd-efficientnet-lite0"
    ] == pytest.approx(0, abs=1e-3)
    for file in plain.glob("*.png"):
        Image.open(file).resize((32, 32)).save(file)
    with pytest.raises(UserError, match=r"has \(64, 64\) pixels a side and the reference \(32, 32\)"):
        harness.evaluate([path], ["fidelity"], reference=plain, say=quiet)


def test_a_comparison_says_what_scored_it_and_a_folder_what_it_held(folder):
    true, other = folder(), folder("other", shift=500)
    rows = harness.evaluate([true, other], ["contrastive"], say=quiet)
    scored, compared = [r for r in rows if not r["versus"]], [r for r in rows if r["versus"]]
    assert compared[0]["provenance"]["metric"]["weights"] == scored[0]["provenance"]["metric"]["weights"]
    assert len({r["provenance"]["images"]["content"] for r in scored}) == 2


@pytest.fixture
def run(trained, home):
    return shutil.copytree(trained, home / "runs" / trained.name)


def test_a_run_is_drawn_once_scored_and_exported(run, home, tmp_path):
    how, said = Sampling(prompts=6, steps=2), []
    rows = harness.evaluate([run], how=how, say=said.append)
    found = values(rows)
    assert {"tifa", "tifa-floor", "tifa-ceiling", "contrastive-v1", "fd-efficientnet-lite0", "caption_gap",
            "information", "flip_accuracy"} <= set(found)  # fmt: skip
    assert said[0].startswith("Sampling 6 images of pixart-h1024-d28: 2 steps, 4 forward passes an image, ")
    (drawn,) = (run / "images").iterdir()
    times = {p: p.stat().st_mtime_ns for p in drawn.glob("*.png")}
    (gone, _), *_ = times.items()
    gone.unlink()
    said.clear()
    assert harness.evaluate([run], how=how, say=said.append) == rows  # that image is drawn again, and is the same
    assert said[0].startswith("Sampling 1 images")
    assert all(p.stat().st_mtime_ns == t for p, t in times.items() if p != gone)
    for _ in range(2):
        tables.export(tmp_path / "rows.csv", rows)
    kept = pd.read_csv(tmp_path / "rows.csv")
    assert len(kept) == len(rows)
    assert kept["step"].eq(4).all() and kept["images.guidance"].eq(7.5).all() and "metric.weights" in kept
    assert kept.loc[kept["metric"] == "tifa", "value"].item() == pytest.approx(found["tifa"], rel=1e-6)


def test_the_ceiling_is_of_the_true_images_through_the_samples_own_codec(run, monkeypatch):
    shown = []

    def seen(images, asked):
        shown.append(images)
        return keys_of(images, asked)

    monkeypatch.setattr(measures, "keys_of", seen)
    harness.evaluate([run], ["tifa"], Sampling(prompts=6, steps=1), say=quiet)
    parts, _ = load_run(run)
    index, _ = captions_of(parts.config, parts.world, 6)
    again = parts.codec.decode(parts.codec.encode(parts.world.images("val", index)))
    assert torch.equal(shown[-1], torch.from_numpy(again).permute(0, 3, 1, 2))


def test_every_snapshot_is_scored_in_one_command(run, tmp_path, monkeypatch):
    out = tmp_path / "rows.csv"
    options = ["--metrics", "contrastive", "--prompts", "3", "--steps", "1", "--step", "all", "--export", str(out)]
    monkeypatch.setattr(sys, "argv", ["t2ikit", "evaluate", str(run), *options])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    kept = tables.read(out)
    assert not stop.value.code
    assert kept["step"].tolist() == snapshots(run) and len(kept) > 1 and kept["n"].eq(3).all()


def test_a_step_without_a_snapshot_is_named_before_any_is_scored(run, folder):
    first, *_, last = snapshots(run)
    assert snapshots_of([run], None) == [None] and snapshots_of([run], f"{last}, {first},{last}") == [first, last]
    for text, sentence in (
        (f"{first},999", f"has no snapshot of step 999: choose one of {first}, "),
        ("first", "'first' is no step: write --step as 800, as 400,800 or as all"),
        ("4,", "'' is no step"),
    ):
        with pytest.raises(UserError, match=sentence):
            snapshots_of([run], text)
    with pytest.raises(UserError, match="No step has a snapshot in every run"):
        snapshots_of([run, folder()], "all")


def test_bound_and_likelihood_of_a_run_are_rows(run):
    rows = harness.evaluate([run], ["likelihood"], Sampling(prompts=3, steps=1), say=quiet)
    assert set(values(rows)) == {"vlb", "nll"}
    for row in rows:
        assert row["n"] == 3 and row["low"] < row["value"] < row["high"]
        assert row["provenance"]["metric"]["unit"] == "nats/dim"
    terms = next(r for r in rows if r["metric"] == "vlb")["provenance"]["metric"]["terms"]
    assert measures.CHAIN / 2 < len(terms) <= measures.CHAIN and terms[0] == 0 < terms[-1]


def test_without_dropped_captions_information_is_left_out(run, monkeypatch):
    said, config = [], json.loads((run / "config.json").read_text())
    assert config["config"]["caption_dropout"] > 0
    config["config"]["caption_dropout"] = 0
    (run / "config.json").write_text(json.dumps(config))
    found = values(harness.evaluate([run], ["alignment"], Sampling(prompts=3, steps=1), say=said.append))
    assert "information" not in found and "caption_gap" in found
    assert any("information is left out" in s for s in said)


def test_prompts_are_different_captions_of_validation(smoke):
    parts = resolve(smoke()[0])
    index, prompts = captions_of(parts.config, parts.world, 50)
    assert len(index) == len(set(prompts.values())) == 50
    assert list(prompts.values()) == parts.world.captions("val", index, parts.config.captions)
    assert captions_of(parts.config, parts.world, 20)[1].items() <= prompts.items()
    with pytest.raises(UserError, match="5000 prompts are not possible: scenes has"):
        captions_of(parts.config, parts.world, 5000)


def test_weights_that_are_no_numbers_are_refused(run, monkeypatch):
    from t2ikit.evaluation import sets

    load = sets.load_run

    def spoiled(*arguments):
        parts, model = load(*arguments)
        next(model.parameters()).data.view(-1)[0] = float("nan")
        return parts, model

    monkeypatch.setattr(sets, "load_run", spoiled)
    with pytest.raises(UserError, match="has NaN or infinity in .* at step 4: choose another step"):
        harness.evaluate([run], how=Sampling(prompts=2), say=quiet)


def test_help_lists_every_metric():
    import typer

    from t2ikit.commands import images

    command = typer.main.get_command(images.app).commands["evaluate"]
    (text,) = [p.help for p in command.params if p.name == "metrics"]
    assert all(form in text for form in harness.forms())
