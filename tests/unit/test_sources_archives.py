"""Arrays, parquet, images, zips and Hub data sets as rows."""

from __future__ import annotations

import io
import stat
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tlscale.errors import DataError
from tlscale.recipe.types import Source
from tlscale.sources import columns, read, survey


def png(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(buffer, "PNG")
    return buffer.getvalue()


def packed(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_npz_arrays_are_columns(tmp_path):
    images = np.arange(5 * 4, dtype=np.uint8).reshape(5, 2, 2)
    np.savez(tmp_path / "x.npz", image=images, label=np.array([[3], [1], [3], [1], [0]]), other=np.ones(2))
    source = Source(path=str(tmp_path / "x.npz"), image="image", label="label")
    rows = read(source, seed=0)
    assert [row.where for row in rows] == [f"x.npz[{i}]" for i in range(5)]
    assert np.array_equal(rows[3].values["image"], images[3])
    assert survey(source, need_labels=True).labels == ("0", "1", "3")
    assert survey(source, need_labels=False).rows == 5
    with pytest.raises(DataError, match="need as many rows each: image 5, other 2"):
        read(Source(path=str(tmp_path / "x.npz"), image="image", label="other"), seed=0)


def test_npz_folder_and_objects(tmp_path):
    np.savez(tmp_path / "x_test.npz", np.zeros((3, 2, 2), dtype=np.uint8))
    np.savez(tmp_path / "y_test.npz", np.arange(3))
    source = Source(path=str(tmp_path), image="x_test.npz/arr_0", label="y_test.npz/arr_0")
    assert columns(source) == ("x_test.npz/arr_0", "y_test.npz/arr_0")
    assert len(read(source, seed=0)) == 3
    np.savez(tmp_path / "y_test.npz", np.array([{"code": "run"}] * 3, dtype=object))
    with pytest.raises(DataError, match=r"y_test\.npz/arr_0: can't be read without running code"):
        read(source, seed=0)
    (tmp_path / "y_test.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"y_test\.npz: is no npz file"):
        read(source, seed=0)


def test_parquet(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": ["a", None], "label": [1, 0], "unused": [0.5, 1.5]}), path)
    source = Source(path=str(path))
    assert columns(source) == ("text", "label", "unused")
    rows = read(source, seed=0)
    assert [(dict(row.values), row.where) for row in rows] == [
        ({"text": "a", "label": 1}, "x.parquet[0]"),
        ({"text": None, "label": 0}, "x.parquet[1]"),
    ]
    assert survey(source, need_labels=True).labels == ("0", "1")
    assert survey(source, need_labels=False).rows == 2
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"x\.parquet: is no parquet file"):
        columns(source)


def test_image_folder(tmp_path):
    for label, name in (("dog", "b.png"), ("cat", "a.PNG"), ("cat", "c.jpeg")):
        (tmp_path / label).mkdir(exist_ok=True)
        (tmp_path / label / name).write_bytes(png("red"))
    (tmp_path / "README.md").write_text("about", encoding="utf-8")
    (tmp_path / "cat" / ".hidden").write_text("", encoding="utf-8")
    source = Source(path=str(tmp_path))
    rows = read(source, seed=0)
    assert [(row.where, row.values["label"]) for row in rows] == [
        ("cat/a.PNG", "cat"),
        ("cat/c.jpeg", "cat"),
        ("dog/b.png", "dog"),
    ]
    assert survey(source, need_labels=True).labels == ("cat", "dog")
    (tmp_path / "cat" / "notes.txt").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match=r"cat/notes\.txt: is no image"):
        read(source, seed=0)


def test_images_that_are_misplaced(tmp_path):
    with pytest.raises(DataError, match=r"top\.png: lies in no class folder"):
        read(Source(path=str(packed(tmp_path / "a.zip", {"top.png": b"", "x/y.png": b""}))), seed=0)
    deep = {"train/cat/1.png": b"", "test/cat/1.png": b""}
    with pytest.raises(DataError, match=r"lies too deep; .* give the folder that holds the class folders"):
        read(Source(path=str(packed(tmp_path / "b.zip", deep))), seed=0)


def test_zip_of_images_with_and_without_a_folder_around(tmp_path):
    for shared in ("", "animals/"):
        members = {f"{shared}cat/1.png": png("red"), f"{shared}dog/1.png": png("blue"), "__MACOSX/x": b""}
        source = Source(path=str(packed(tmp_path / "x.zip", members)))
        rows = read(source, seed=0)
        assert [row.values["label"] for row in rows] == ["cat", "dog"]
        assert rows[1].values["image"] == png("blue")


def test_zip_of_one_data_file(tmp_path):
    path = packed(tmp_path / "x.zip", {"data/train.csv": "text,label\na,b\n"})
    (row,) = read(Source(path=str(path)), seed=0)
    assert (row.values["text"], row.where) == ("a", "x.zip/data/train.csv:2")
    with pytest.raises(
        DataError, match=r"one data file or a folder of images or WAV files by class; in it: a\.csv, b\.csv"
    ):
        columns(Source(path=str(packed(tmp_path / "y.zip", {"a.csv": "text\n", "b.csv": "text\n"}))))
    (tmp_path / "z.zip").write_bytes(b"nothing")
    with pytest.raises(DataError, match="is no zip file"):
        columns(Source(path=str(tmp_path / "z.zip")))


@pytest.mark.parametrize("name", ["../x.csv", "a/../../x.csv", "/etc/x.csv", "C:\\x.csv", "..\\x.csv"])
def test_unsafe_names_in_a_zip_are_refused(tmp_path, name):
    with pytest.raises(DataError, match=r"outside of the archive|absolute or foreign path"):
        read(Source(path=str(packed(tmp_path / "x.zip", {name: "text\na\n"}))), seed=0)


def test_links_and_bombs_in_a_zip_are_refused(tmp_path):
    link = zipfile.ZipInfo("x.csv")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match=r"'x\.csv' is a link"):
        read(Source(path=str(tmp_path / "link.zip")), seed=0)
    path = packed(tmp_path / "bomb.zip", {"x.csv": "text\na\n"})
    content = bytearray(path.read_bytes())
    # The uncompressed size in the central directory (APPNOTE 4.3.12).
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = (0x7FFFFFFF).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"unpacks to 2,147,483,647 bytes from 7: not credible"):
        read(Source(path=str(path)), seed=0)


def test_hub_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "intents"
    folder.mkdir()
    (folder / "train.csv").write_text("text,label\na,x\nb,y\n", encoding="utf-8")
    rows = read(Source(hub=str(folder), text="text", label="label", split="train"), seed=0)
    assert [dict(row.values) for row in rows] == [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    assert rows[1].where == f"hub:{folder}[train][1]"
    with pytest.raises(DataError, match=r"can't be loaded: .*check hub, name, split, revision"):
        read(Source(hub=str(folder), split="tset"), seed=0)
    with pytest.raises(DataError, match="can't be loaded"):
        read(Source(hub=str(tmp_path / "none")), seed=0)


def test_real_arrays(data_root):
    scans = Source(
        path=str(data_root / "pneumoniamnist" / "pneumoniamnist_rebuilt.npz"),
        image="test_images",
        label="test_labels",
    )
    found = survey(scans, need_labels=True)
    assert (found.rows, found.labels, found.format) == (624, ("0", "1"), "image-classification")
    clothes = Source(
        path=str(data_root / "fashion_mnist_2k"),
        image="x_test.npz/arr_0",
        label="y_test.npz/arr_0",
        per_class=10,
    )
    assert len(read(clothes, seed=0)) == 100
