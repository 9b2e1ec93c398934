"""Images of tiny studies of one's own: bright ones and dark ones, each with a person."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image


def png(seed: int, *shape: int, form: str = "PNG") -> bytes:
    """Return an image of random values: (height, width) is grey, (height, width, 3) RGB."""
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(data, form)
    return data.getvalue()


def write_images(folder: Path, sites: tuple[str, ...] = ("north", "south"), *, persons: int = 12) -> list[Path]:
    """Write two images a person into ``folder/<site>`` beside ``labels.csv``; return the sites' folders."""
    paths = []
    for number, site in enumerate(sites):
        paths.append(folder / site)
        paths[-1].mkdir(parents=True)
        with (paths[-1] / "labels.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["scan", "patient", "family", "ward", "finding"])
            for row in range(2 * persons):
                (paths[-1] / f"{row}.png").write_bytes(png(1000 * number + row, 6, 5))
                person = row // 2
                words = ["ill" if person % 3 else "well", f"{site}-f{person // 2}", f"ward {row % 3}"]
                writer.writerow([f"{row}.png", f"{site}-{person}", words[1], words[2], words[0]])
    return paths
