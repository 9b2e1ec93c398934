"""The data: 1,797 handwritten digits (8 × 8 pixels) that come with scikit-learn; nothing is downloaded.

A quarter is set aside as the public evaluation set. The rest is dealt out to the clients, an equal share each, so that
no image is at two of them.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (CC BY 4.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import tomli_w

from coreason_enclave.datasets import DataFormat, DatasetSchema, Label, TensorFeatures

__all__ = ["CLASSES", "DATASET_ID", "PIXELS", "Digits", "Images", "deal", "turned_around", "write_share"]

DATASET_ID = "digits/images"
PIXELS = 64
CLASSES = 10

_SPLIT_SEED = 0
_FILE = "images.safetensors"
_SCHEMA = DatasetSchema(
    version=1,
    dataset_id=DATASET_ID,
    format=DataFormat.SAFETENSORS,
    file=_FILE,
    public=True,
    label=Label(column="y", classes=CLASSES),
    tensor=TensorFeatures(shape=(PIXELS,), low=0.0, high=16.0),
)


@dataclass(frozen=True)
class Images:
    """Features float32 of shape (n, 64), labels int64 of shape (n,)."""

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Digits:
    """Each client's share (pixels 0 to 16, as scanned), and the public evaluation set (scaled as the sites scale)."""

    shares: tuple[Images, ...]
    evaluation: Images


def deal(clients: int) -> Digits:
    """The same division for everyone who asks for as many ``clients``."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(labels))
    public, *shares = np.split(order, [len(order) // 4, *_cuts(len(order), clients)])
    return Digits(
        shares=tuple(_images(pixels, labels, rows) for rows in shares),
        evaluation=Images(_SCHEMA.scale_tensor(pixels[public]), labels[public].astype(np.int64)),
    )


def _cuts(total: int, clients: int) -> list[int]:
    private = total - total // 4
    return [total // 4 + private * number // clients for number in range(1, clients)]


def _images(pixels: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> Images:
    return Images(pixels[rows].astype(np.float32), labels[rows].astype(np.int64))


def turned_around(images: Images) -> Images:
    """A label flip: every 0 is called a 9, every 1 an 8, and so on."""
    return Images(images.features, CLASSES - 1 - images.labels)


def write_share(site: Path, images: Images) -> None:
    """Write a site's ``data/`` as its agent reads it: the rows, and the declaration of what they are."""
    folder = site.joinpath("data", *DATASET_ID.split("/"))
    folder.mkdir(parents=True)
    (folder / "dataset.toml").write_bytes(tomli_w.dumps(_SCHEMA.model_dump(mode="json", exclude_none=True)).encode())
    (folder / _FILE).write_bytes(safetensors.numpy.save({"x": images.features, "y": images.labels}))
