"""Shards and tables: what is written comes back, in webdataset too; what is broken is named."""

import io
import tarfile

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from t2ikit.data.shards import (
    Sample,
    decode,
    read_index,
    read_shard,
    read_table,
    write_index,
    write_shards,
    write_table,
)
from t2ikit.errors import UserError

CAPTIONS = ["a red circle", "", "x" * 4000, "<script>alert(1)</script>", "../../etc/passwd", "naïve ☕\nline"]


def webp(colour, mode="RGB", kind="WEBP"):
    stream = io.BytesIO()
    Image.new(mode, (16, 16), colour).save(stream, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return stream.getvalue()


def samples(captions=CAPTIONS):
    return [Sample(f"{n:08d}", webp((n * 20, 10, 30)), text, {"n": n}) for n, text in enumerate(captions)]


@pytest.fixture
def folder(tmp_path):
    write_index(tmp_path, write_shards(tmp_path, samples(), per_shard=4))
    return tmp_path


def test_samples_come_back_in_order_with_any_caption(folder):
    entries = read_index(folder)
    assert [(e["url"], e["nsamples"]) for e in entries] == [("train-00000.tar", 4), ("train-00001.tar", 2)]
    back = [sample for entry in entries for sample in read_shard(folder / entry["url"], entry)]
    assert [s.caption for s in back] == CAPTIONS
    assert [s.key for s in back] == [f"{n:08d}" for n in range(len(CAPTIONS))]
    assert [s.facts["n"] for s in back] == list(range(len(CAPTIONS)))
    assert np.array_equal(decode(back[2]), np.broadcast_to(np.uint8([40, 10, 30]), (16, 16, 3)))


def test_member_names_are_numbers_whatever_the_caption(folder):
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as tar:
            assert all(name.partition(".")[0].isdigit() for name in tar.getnames())


def test_webdataset_reads_the_same(folder):
    import webdataset

    paths = [str(folder / entry["url"]) for entry in read_index(folder)]
    theirs = list(webdataset.WebDataset(paths, shardshuffle=False, empty_check=False))
    assert [s["txt"].decode() for s in theirs] == CAPTIONS
    assert [s["__key__"] for s in theirs] == [f"{n:08d}" for n in range(len(CAPTIONS))]


def test_writing_again_gives_the_same_bytes(folder, tmp_path_factory):
    again = tmp_path_factory.mktemp("again")
    assert write_shards(again, samples(), per_shard=4) == read_index(folder)


@pytest.mark.parametrize("cut", [0, 100, 512, 700, 1024, 1536, 4000])
def test_a_shard_cut_short_is_named_with_and_without_its_index(folder, cut):
    path = folder / "train-00000.tar"
    data = path.read_bytes()
    entry = read_index(folder)[0]
    path.write_bytes(data[:cut])
    for known in (entry, None):
        with pytest.raises(UserError, match=r"train-00000\.tar is corrupt"):
            list(read_shard(path, known))


def test_a_flipped_byte_is_named(folder):
    path = folder / "train-00001.tar"
    data = bytearray(path.read_bytes())
    data[600] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"train-00001\.tar is corrupt"):
        list(read_shard(path, read_index(folder)[1]))


def test_no_tar_at_all_and_no_file(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"not a tar" * 400)
    with pytest.raises(UserError, match=r"a\.tar is corrupt"):
        list(read_shard(tmp_path / "a.tar"))
    with pytest.raises(UserError, match=r"b\.tar cannot be read \(No such file"):
        list(read_shard(tmp_path / "b.tar"))


def foreign(path, **members):
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name.replace("_", "."))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_foreign_shards_png_and_a_caption_in_json(tmp_path):
    path = foreign(tmp_path / "f.tar", a_png=webp("red", kind="PNG"), a_json=b'{"caption": "hm"}', a_cls=b"1")
    (only,) = read_shard(path)
    assert (only.key, only.caption, only.suffix) == ("a", "hm", "png")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a_txt": b"x"}, "'a' of shard .* has no image"),
        ({"a_png": b"x"}, "'a' of shard .* has no caption"),
        ({"a_png": b"x", "a_json": b"{"}, "'a' of shard .* has no caption"),
        ({"a_png": b"x", "a_json": b'{"caption": 3}'}, "'a' of shard .* has no caption"),
        ({"a_png": b"x", "a_txt": b"\xff\xfe"}, "'a' of shard .* has no caption"),
    ],
)
def test_samples_that_lack_a_part_are_named(tmp_path, members, message):
    with pytest.raises(UserError, match=message):
        list(read_shard(foreign(tmp_path / "f.tar", **members)))


def test_an_image_that_does_not_decode_is_named(tmp_path):
    for broken in (b"no image", webp("red")[:30], b""):
        write_shards(tmp_path, [Sample("00000000", broken, "x")])
        (sample,) = read_shard(tmp_path / "train-00000.tar")
        with pytest.raises(UserError, match=r"'00000000' in shard train-00000\.tar does not decode"):
            decode(sample)


def test_transparency_is_put_on_white():
    assert decode(Sample("0", webp((255, 0, 0, 0), "RGBA", "PNG"), "x", suffix="png")).min() == 255


def test_tables_come_back_and_broken_ones_are_named(tmp_path):
    table = pa.table({"name": CAPTIONS, "n": range(len(CAPTIONS))})
    write_table(tmp_path / "t.parquet", table)
    assert read_table(tmp_path / "t.parquet").equals(table)
    assert read_table(tmp_path / "t.parquet", ["n"]).column_names == ["n"]
    (tmp_path / "t.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:50])
    with pytest.raises(UserError, match=r"t\.parquet cannot be read"):
        read_table(tmp_path / "t.parquet")
    with pytest.raises(UserError, match="There is no table"):
        read_table(tmp_path / "none.parquet")


def test_a_broken_index_is_named(tmp_path):
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(UserError, match=r"index\.json cannot be read"):
        read_index(tmp_path)
