"""Classified texts, pairs and images."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, ViTImageProcessor

from tlscale.data.examples import prepare
from tlscale.errors import DataError
from tlscale.recipe.types import Source
from tlscale.sources import Row, read

CLS, SEP = 1, 2
WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *"abcdefgh"]
TEXTS = Source(path="x.csv", text="text", label="label")
PAIRS = Source(path="x.csv", anchor="a", positive="p")
IMAGES = Source(path=".", image="image", label="label")


@pytest.fixture(scope="module")
def bert():
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


def made(rows, source, processor, task, **settings):
    options = {
        "max_length": 8,
        "overflow": "cut",
        "loss_on": "completion",
        "labels": ("x", "y"),
        **settings,
    }
    return prepare(rows, source, task=task, processor=processor, **options)


def labelled(text, label, line=2):
    return Row({"text": text, "label": label}, f"x.csv:{line}")


def test_texts_get_special_tokens_and_class_indices(bert):
    found = made([labelled("a b", "y"), labelled("c", "x")], TEXTS, bert, "sequence-classification")
    first, second = found.examples
    assert (first.tokens, first.label, first.reference) == ([CLS, 4, 5, SEP], 1, "y")
    assert (second.label, second.where, second.text) == (0, "x.csv:2", "c")
    assert (found.report.tokens, found.report.cut_rows) == (7, 0)


def test_long_texts_keep_their_closing_token_and_are_counted(bert):
    rows = [labelled("a b c d e f g h", "x"), labelled("a", "y", 3)]
    found = made(rows, TEXTS, bert, "sequence-classification")
    assert found.examples[0].tokens == [CLS, 4, 5, 6, 7, 8, 9, SEP]
    assert (found.report.cut_rows, found.report.cut_tokens) == (1, 2)
    dropped = made(rows, TEXTS, bert, "sequence-classification", overflow="drop")
    assert [e.where for e in dropped.examples] == ["x.csv:3"]
    assert dropped.report.dropped_rows == 1
    with pytest.raises(DataError, match=r"x\.csv:2: 10 tokens, but data\.max_length is 8"):
        made(rows, TEXTS, bert, "sequence-classification", overflow="error")


def test_labels_and_texts_that_can_not_be_used(bert):
    for row, message in (
        (
            labelled("a", "card_arival", 9),
            r"x\.csv:9: label 'card_arival': unknown label; did you mean card_arrival",
        ),
        (labelled(" ", "lost", 9), r"x\.csv:9: column 'text' is empty"),
        (labelled(None, "lost", 9), r"x\.csv:9: column 'text' is null"),
        (labelled("a", None, 9), r"x\.csv:9: label 'label' is null"),
    ):
        with pytest.raises(DataError, match=message):
            made([row], TEXTS, bert, "sequence-classification", labels=("card_arrival", "lost"))


def test_pairs(bert):
    rows = [Row({"a": "a b", "p": "c"}, "x.csv:2"), Row({"a": "a b c d e f g h", "p": "c"}, "x.csv:3")]
    found = made(rows, PAIRS, bert, "sentence-embedding")
    assert (found.examples[0].tokens, found.examples[0].pair) == ([CLS, 4, 5, SEP], [CLS, 6, SEP])
    assert found.report.cut_tokens == 2
    assert made(rows, PAIRS, bert, "sentence-embedding", overflow="drop").report.dropped_rows == 1
    with pytest.raises(DataError, match="format is pairs, which task sequence-classification can't use"):
        made(rows, PAIRS, bert, "sequence-classification")


@pytest.fixture(scope="module")
def processor():
    return ViTImageProcessor(size={"height": 8, "width": 8}, image_mean=[0.5] * 3, image_std=[0.5] * 3)


def pictured(image, label="x"):
    return Row({"image": image, "label": label}, "x.npz[3]")


def pixels(image, processor, source=IMAGES):
    (example,) = made([pictured(image)], source, processor, "image-classification", max_length=0).examples
    return example.pixels


def test_every_kind_of_image_gives_the_same_pixels(processor, tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(array)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    beside = Source(path=str(tmp_path / "a.png"), image="image", label="label")
    expected = torch.from_numpy(array).permute(2, 0, 1).float() / 127.5 - 1
    for image in (array, picture, buffer.getvalue(), tmp_path / "a.png", {"bytes": buffer.getvalue()}):
        found = pixels(image, processor)
        assert (found.shape, found.dtype) == ((3, 8, 8), torch.float32)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(pixels("a.png", processor, beside), expected, atol=1e-5, rtol=0)


def test_grey_arrays_become_rgb_and_share_their_channels(processor):
    grey = np.full((28, 28), 51, dtype=np.uint8)
    for array in (grey, grey[:, :, None]):
        found = pixels(array, processor)
        assert found.shape == (3, 8, 8)
        torch.testing.assert_close(found, torch.full((3, 8, 8), 51 / 127.5 - 1))
        assert found.untyped_storage().nbytes() == 8 * 8 * 4


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"no image", r"x\.npz\[3\]: can't be decoded as an image"),
        (np.zeros((8, 8)), r"image is an array of shape \(8, 8\) of float64; .* uint8"),
        (np.zeros((3, 8, 8), dtype=np.uint8), r"an array of shape \(3, 8, 8\)"),
        (None, "image is null"),
        ("../secret.png", "leaves the folder of the data file"),
        ("missing.png", "can't be decoded as an image"),
        (Image.new("I;16", (4, 4)), "more than 8 bits"),
    ],
)
def test_images_that_can_not_be_used(processor, tmp_path, image, message):
    (tmp_path / "x.csv").write_text("", encoding="utf-8")
    source = Source(path=str(tmp_path / "x.csv"), image="image", label="label")
    with pytest.raises(DataError, match=message):
        made([pictured(image)], source, processor, "image-classification")


def test_image_folder_by_a_relative_path(processor, tmp_path, monkeypatch):
    (tmp_path / "images" / "x").mkdir(parents=True)
    Image.new("RGB", (5, 5), "red").save(tmp_path / "images" / "x" / "1.png")
    monkeypatch.chdir(tmp_path)
    source = Source(path="images")
    (example,) = made(read(source, seed=0), source, processor, "image-classification").examples
    assert (example.where, example.reference, example.pixels[0, 0, 0]) == ("x/1.png", "x", 1.0)


def test_real_scans(processor, data_root):
    source = Source(
        path=str(data_root / "pneumoniamnist" / "pneumoniamnist_rebuilt.npz"),
        image="test_images",
        label="test_labels",
        limit=20,
    )
    found = made(read(source, seed=0), source, processor, "image-classification", labels=("0", "1"))
    assert {e.label for e in found.examples} == {0, 1}
    assert found.report.rows == found.report.examples == 20


def test_real_intents(bert, data_root):
    path = str(data_root / "banking77" / "test.csv")
    source = Source(path=path, text="text", label="category")
    rows = read(source, seed=0)
    labels = tuple(sorted({row.values["category"] for row in rows}))
    found = made(rows, source, bert, "sequence-classification", labels=labels, max_length=64)
    assert found.report.examples == 3080
    assert [labels[e.label] for e in found.examples] == [row.values["category"] for row in rows]
