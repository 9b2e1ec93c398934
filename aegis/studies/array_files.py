"""Arrays of examples, such as images, split over simulated sites: ``.npz`` files with x, y and optionally unit."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aegis.errors import InvalidStudy
from aegis.studies.splitting import HELD_OUT, SplitPlan, is_held_out, site_names
from coreason_enclave.datasets import LabelTask, rounded_out

Arrays = Mapping[str, npt.NDArray[Any]]
_MAX_CLASSES = 10_000


@dataclass
class SplitArrays:
    """The result: examples and units of privacy by part, and the suggested ``[tensor]`` and ``[label]`` tables."""

    rows: dict[str, int] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    tensor: dict[str, Any] = field(default_factory=dict)
    label: dict[str, Any] = field(default_factory=dict)
    has_units: bool = False

    @property
    def sites(self) -> list[str]:
        """The sites' names, sorted."""
        return sorted(self.rows.keys() - {HELD_OUT})

    def units(self, part: str) -> int:
        """Return the number of units of privacy in a part."""
        return self.counted[part]


def split_arrays(plan: SplitPlan, folder: Path, task: LabelTask | None) -> SplitArrays:
    """Write ``folder/<site>.npz`` for each site and ``folder/held-out.npz``.

    Raises:
        InvalidStudy: a file is no archive of these arrays, or files differ in shape.
    """
    if plan.person or plan.group or plan.site_column:
        raise InvalidStudy("arrays have no columns: name persons by the array unit, and give one file a site")
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, dict[str, npt.NDArray[Any]]] = {}
    names = site_names(plan.files)
    for path in plan.files:
        arrays = _read(path)
        out = np.array([plan.share > 0 and is_held_out(key, plan.share) for key in _keys(arrays)], bool)
        for part, rows in ((HELD_OUT, out), (names[path], ~out)):
            chosen = {name: array[rows] for name, array in arrays.items()}
            if len(chosen["y"]):
                parts[part] = _joined(path, parts.get(part), chosen)
    if plan.held_out is not None:
        parts[HELD_OUT] = dict(_read(plan.held_out))
        _require_other_persons(plan.held_out, parts)
        _require_other_examples(plan.held_out, {site: path for path, site in names.items()}, parts)
    if empty := sorted(set(names.values()) - parts.keys()):
        raise InvalidStudy(f"--holdout {plan.share:g} leaves the site {empty[0]!r} without rows: hold out fewer")
    _require_one_form(parts)
    for part, arrays in parts.items():
        np.savez(folder / f"{part}.npz", allow_pickle=False, **arrays)
    return _summary(parts, task)


def _require_other_persons(path: Path, parts: Mapping[str, Arrays]) -> None:
    held_out = parts[HELD_OUT].get("unit", np.empty(0, np.int64))
    for site, arrays in parts.items():
        if site != HELD_OUT and np.isin(held_out, arrays.get("unit", np.empty(0, np.int64))).any():
            raise InvalidStudy(f"{path} and the site {site!r} share a person (unit): hold out others")


def _require_other_examples(path: Path, files: Mapping[str, Path], parts: Mapping[str, Arrays]) -> None:
    """Refuse an example that is trained on and held out; where persons are named, equal examples may be of two."""
    if any("unit" in arrays for arrays in parts.values()):
        return
    held_out = _digests(parts[HELD_OUT])
    for site, file in files.items():
        shared = held_out.keys() & _digests(parts[site]).keys()
        if shared:
            first = min(held_out[digest] for digest in shared)
            raise InvalidStudy(
                f"{path} and {file} share {len(shared)} equal example{'s' if len(shared) > 1 else ''} "
                f"(the first is number {first} of {path.name}): hold out others, or name persons by the array unit"
            )


def _digests(arrays: Arrays) -> dict[bytes, int]:
    """Return each example's digest, whatever its type of number, with the example's first place from 1."""
    found: dict[bytes, int] = {}
    for number, (x, y) in enumerate(zip(arrays["x"], arrays["y"], strict=True), start=1):
        content = np.concatenate([np.ravel(x), np.ravel(y)]).astype(np.float64) + 0.0  # -0.0 becomes 0.0
        found.setdefault(hashlib.blake2b(content.tobytes(), digest_size=16).digest(), number)
    return found


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise InvalidStudy(f"{path} is no whole npz archive of numbers: save x and y with numpy.savez") from error
    if not {"x", "y"} <= arrays.keys() <= {"x", "y", "unit"}:
        raise InvalidStudy(f"{path} holds {', '.join(sorted(arrays))}: it needs x and y, and may have unit")
    if len({len(array) if array.ndim else 0 for array in arrays.values()}) != 1 or not arrays["y"].size:
        raise InvalidStudy(f"{path}: x, y and unit need the same number of examples, at least one")
    if arrays["x"].ndim < 2:
        raise InvalidStudy(f"{path}: x has one number for each example: save x.reshape(-1, 1), of shape (n, 1)")
    if any(array.dtype.kind not in "fiub" or not np.isfinite(array).all() for array in arrays.values()):
        raise InvalidStudy(f"{path}: x, y and unit need finite numbers")
    if "unit" in arrays and arrays["unit"].dtype.kind not in "iu":
        raise InvalidStudy(f"{path}: unit needs whole numbers, one for each person")
    return {name: array.astype(np.uint8) if array.dtype.kind == "b" else array for name, array in arrays.items()}


def _keys(arrays: Arrays) -> list[str]:
    """Return the key of each example's side: its unit, or else its content."""
    if "unit" in arrays:
        return [str(int(unit)) for unit in arrays["unit"]]
    pairs = zip(arrays["x"], arrays["y"], strict=True)
    return [(x.tobytes() + y.tobytes()).hex() for x, y in pairs]


def _joined(path: Path, before: Arrays | None, more: Arrays) -> dict[str, npt.NDArray[Any]]:
    if before is None:
        return dict(more)
    if before.keys() != more.keys() or before["x"].shape[1:] != more["x"].shape[1:]:
        raise InvalidStudy(f"{path} differs from the first file in its arrays or their shapes")
    return {name: np.concatenate([before[name], more[name]]) for name in more}


def _require_one_form(parts: Mapping[str, Arrays]) -> None:
    forms = {(tuple(sorted(arrays)), arrays["x"].shape[1:], arrays["y"].shape[1:]) for arrays in parts.values()}
    if len(forms) != 1:
        raise InvalidStudy("the files differ in their arrays or their shapes: all need the same")


def _summary(parts: Mapping[str, Arrays], task: LabelTask | None) -> SplitArrays:
    first = next(iter(parts.values()))
    low, high = rounded_out(
        float(min(arrays["x"].min() for arrays in parts.values())),
        float(max(arrays["x"].max() for arrays in parts.values())),
    )
    labels = np.concatenate([arrays["y"] for arrays in parts.values()])
    return SplitArrays(
        rows={part: len(arrays["y"]) for part, arrays in parts.items()},
        counted={
            part: len(np.unique(arrays["unit"])) if "unit" in arrays else len(arrays["y"])
            for part, arrays in parts.items()
        },
        tensor={"shape": list(first["x"].shape[1:]), "low": low, "high": high},
        label=_label(labels, task),
        has_units="unit" in first,
    )


def _label(labels: npt.NDArray[Any], task: LabelTask | None) -> dict[str, Any]:
    if task in {LabelTask.SURVIVAL, LabelTask.LABELS} or labels.ndim != 1:
        raise InvalidStudy("arrays take one label for each example, y of shape (n,): classes, a number or a count")
    whole = bool((labels == np.floor(labels)).all()) and labels.min() >= 0
    few = whole and labels.max() < _MAX_CLASSES
    if task is LabelTask.CLASSES or (task is None and few):
        if not few or labels.max() < 1:
            raise InvalidStudy("the label y is no list of classes: it needs whole numbers from 0, two at least")
        return {"column": "y", "classes": int(labels.max()) + 1}
    if task is LabelTask.COUNT:
        if not whole:
            raise InvalidStudy("the label y is no count: counts are whole numbers from 0")
        return {"task": "count", "column": "y", "high": float(max(1, np.ceil(labels.max())))}
    low, high = rounded_out(float(labels.min()), float(labels.max()))
    return {"task": "number", "column": "y", "low": low, "high": high}


def array_declaration(dataset_id: str, split: SplitArrays) -> dict[str, Any]:
    """Return the document of ``dataset.toml`` for the split arrays."""
    return {
        "version": 1,
        "dataset_id": dataset_id,
        "format": "npz",
        "file": "rows.npz",
        "public": True,
        **({"unit_column": "unit"} if split.has_units else {}),
        "label": split.label,
        "tensor": split.tensor,
    }
