"""The images that the recipes of configs/proofs/ read, and the networks that they begin with.

`python benchmarks/proof_data.py` writes all of it below runs/proof-data/. Of images there are
NAME-images.npz and NAME-labels.npz, each with one array, `rows`.

digits/             mnist and usps, -train and -test (LeCun et al. 1998; Hull 1994)
digit-network/      a convolutional network for 28 x 28 pixels, with random weights and an image processor
cifar/              train and test as they are, and test under three corruptions like the strongest of
                    Hendrycks and Dietterich 2019, noise, contrast and blur: -tune and -test, half each
cifar-network/      the same for CIFAR-10 (Krizhevsky 2009), enlarged to 64 x 64

USPS is an h5 file, which needs h5py to read.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Arrays = tuple[Bytes, Bytes]

SIDE = 28
TRAIN_ROWS = 6000
IDX_HEADER = {"images": 16, "labels": 8}
KINDS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NOISE = 0.10
CONTRAST = 0.15
BLUR = 2.0


def mnist(data: Path) -> dict[str, Arrays]:
    """The first training rows and the published test rows of MNIST: images [n, 28, 28] and labels [n]."""
    folder = data / "mnist"
    images, labels = (np.load(folder / f"{side}_train.npz")["arr_0"][:TRAIN_ROWS] for side in "xy")
    tests = []
    for kind, count in (("images", 3), ("labels", 1)):
        packed = (folder / f"t10k-{kind}-idx{count}-ubyte.gz").read_bytes()
        tests.append(np.frombuffer(gzip.decompress(packed), np.uint8, offset=IDX_HEADER[kind]))
    return {"train": (images, labels), "test": (tests[0].reshape(-1, SIDE, SIDE), tests[1])}


def usps(data: Path) -> dict[str, Arrays]:
    """The published training and test rows of USPS: images [n, 16, 16] and labels [n]."""
    import h5py

    found = {}
    with h5py.File(data / "restricted" / "usps" / "usps.h5") as opened:
        for part in ("train", "test"):
            grey = (opened[part]["data"][:] * 255).round().astype(np.uint8).reshape(-1, 16, 16)
            found[part] = (grey, opened[part]["target"][:].astype(np.uint8))
    return found


def cifar(data: Path) -> dict[str, Arrays]:
    """CIFAR-10's clean rows, mixed, and each half of the test rows under each corruption."""
    folder = data / "restricted" / "cifar10_jpeg"
    train, test = (
        _unpacked(folder / f"cifar10_{part}_1000_per_class.tar.gz") for part in ("train", "test")
    )
    found = {"train": train, "test": test}
    half = len(test[1]) // 2
    for name, corrupt in CORRUPTIONS.items():
        images = corrupt(test[0])
        found |= {f"{name}-tune": (images[:half], test[1][:half])}
        found |= {f"{name}-test": (images[half:], test[1][half:])}
    return found


def _unpacked(path: Path) -> Arrays:
    """The images [n, 32, 32, 3] of an archive of PART/CLASS/NUMBER.jpg, and their classes by number."""
    from PIL import Image

    rows: list[tuple[Bytes, int]] = []
    with tarfile.open(path) as archive:
        for member in sorted((m for m in archive if m.isfile()), key=lambda m: m.name):
            packed = archive.extractfile(member)
            assert packed is not None
            picture = Image.open(io.BytesIO(packed.read())).convert("RGB")
            rows.append((np.asarray(picture), KINDS.index(member.name.split("/")[1])))
    order = np.random.default_rng(0).permutation(len(rows))
    return np.stack([rows[i][0] for i in order]), np.array([rows[i][1] for i in order], np.uint8)


def noisy(images: Bytes) -> Bytes:
    """Gaussian noise, the same wherever it is made."""
    noise = np.random.default_rng(0).normal(0, NOISE * 255, images.shape)
    return (images + noise).round().clip(0, 255).astype(np.uint8)


def faint(images: Bytes) -> Bytes:
    """Each image drawn to its own mean colour."""
    mean = images.mean(axis=(1, 2), keepdims=True)
    return ((images - mean) * CONTRAST + mean).round().clip(0, 255).astype(np.uint8)


def blurred(images: Bytes) -> Bytes:
    """Gaussian blur, in place of Hendrycks and Dietterich's disc."""
    from scipy.ndimage import gaussian_filter

    return (
        gaussian_filter(images.astype(np.float32), (0, BLUR, BLUR, 0)).round().clip(0, 255).astype(np.uint8)
    )


CORRUPTIONS: Mapping[str, Callable[[Bytes], Bytes]] = {"noise": noisy, "contrast": faint, "blur": blurred}


def write_images(folder: Path, parts: Mapping[str, Arrays]) -> None:
    """Writes images and labels of each part in files of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, arrays in parts.items():
        for kind, rows in zip(("images", "labels"), arrays, strict=True):
            np.savez_compressed(folder / f"{name}-{kind}.npz", rows=rows)
        print(f"{folder.name} {name}: {len(arrays[1]):,} images")


def write_network(folder: Path, side: int, widths: tuple[int, ...]) -> None:
    """Writes a small BiT with random weights: group norm, so that no statistic of a batch stays behind."""
    import torch
    from transformers import BitConfig, BitForImageClassification, BitImageProcessor

    torch.manual_seed(0)
    config = BitConfig(
        embedding_size=32, hidden_sizes=list(widths), depths=[1] * len(widths), num_groups=8, num_labels=10
    )
    BitForImageClassification(config).save_pretrained(folder)
    processor = BitImageProcessor(
        size={"height": side, "width": side}, do_center_crop=False, image_mean=[0.5] * 3,
        image_std=[0.5] * 3, resample=2,
    )  # fmt: skip
    processor.save_pretrained(folder)


def write_all(data: Path, folder: Path) -> None:
    """Everything that the head of this file lists."""
    for name, made in (("mnist", mnist), ("usps", usps)):
        write_images(folder / "digits", {f"{name}-{part}": rows for part, rows in made(data).items()})
    write_images(folder / "cifar", cifar(data))
    write_network(folder / "digit-network", SIDE, (64, 128))
    write_network(folder / "cifar-network", 64, (64, 128, 256))
