"""``[tensor]`` and ``[label]`` of a table of labels and the folder of images that it names, suggested from both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from coreason_enclave.datasets.csv_form import CsvForm
from coreason_enclave.datasets.data_format import DataFormat
from coreason_enclave.datasets.dictionary import DataDictionary
from coreason_enclave.datasets.draft_plan import DraftPlan, stated_label
from coreason_enclave.datasets.images import MAX_IMAGE_BYTES, decode_image, require_pillow
from coreason_enclave.datasets.source_file import SPACES, SourceFile
from coreason_enclave.datasets.suggestion import ColumnSummary, suggest_label
from coreason_enclave.errors import DatasetRejected
from coreason_enclave.schemas import SafeId

_FILE_NAME: TypeAdapter[str] = TypeAdapter(SafeId)
_RANGE = {"low": 0.0, "high": 255.0}
"""Of 8 bits, whatever the images show."""


def image_tables(plan: DraftPlan) -> tuple[dict[str, Any], Mapping[str, frozenset[str]], tuple[str, ...]]:
    """Return the document's tables, for each the entries that get no mark, and the names of the images.

    Raises:
        ConfigurationError: Pillow is not installed.
        DatasetRejected: a row of the table names no usable image, or images differ in form.
    """
    columns = {name: ColumnSummary(name) for name in plan.of_label}
    places, form = _named(plan, columns)
    label, stated = stated_label(
        plan, suggest_label(list(columns.values()), task=plan.label_task, cuts=plan.cuts).label
    )
    tables = {
        "format": str(DataFormat.IMAGES),
        "folder": plan.folder,
        "image_column": plan.image_column,
        **({"resize": "stretch"} if plan.stretch else {}),
        **form,
        **({"unit_column": plan.person} if plan.person else {}),
        "label": label,
        "tensor": {"shape": list(_shape(plan, places)), **_RANGE},
    }
    return tables, {"label": stated, "tensor": frozenset(_RANGE)}, tuple(places)


def declared_image_tables(plan: DraftPlan, dictionary: DataDictionary) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the document's tables as a study's dictionary declares them, and the names of the images.

    Raises:
        ConfigurationError: Pillow is not installed.
        DatasetRejected: a row of the table names no usable image, or an image of another form than declared.
    """
    places, form = _named(plan, {})
    known = dictionary.model_copy(update={"unit_column": plan.person}) if plan.person else dictionary
    document = known.declaration(file=plan.file, public=plan.public).model_dump(
        mode="json", exclude_none=True, exclude={"csv"}
    )
    assert dictionary.tensor is not None
    for name, place in places.items():
        shape = _shape_of(plan, plan.images or Path(), name, place)
        if dictionary.resize != "stretch" and shape != dictionary.tensor.shape:
            raise _refused(
                plan, place, f"names an image of shape {shape}, and the dictionary says {dictionary.tensor.shape}"
            )
    return {**document, "folder": plan.folder, "image_column": plan.image_column, **form}, tuple(places)


def _named(plan: DraftPlan, columns: Mapping[str, ColumnSummary]) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the place of each image's row, and the table's form; count the cells of ``columns``."""
    assert plan.image_column is not None
    assert plan.folder is not None
    require_pillow()
    source = SourceFile.open(plan.path, plan.needed, columns=plan.columns, missing=plan.missing)
    places: dict[str, str] = {}
    padded = False
    for place, cells in source.rows():
        row = dict(zip(source.names, cells, strict=True))
        for name, column in columns.items():
            if source.form is None and row[name] != row[name].strip():
                raise DatasetRejected(f"{plan.path.name}: the label {name!r} {SPACES}")
            column.take(row[name])
        image = row[plan.image_column] if source.form is None else row[plan.image_column].strip()
        padded = padded or any(cell != cell.strip() for cell in cells)
        if image in places:
            raise _refused(plan, place, f"names the same image as {places[image]}")
        places[image] = place
    if not places:
        raise DatasetRejected(f"{plan.path.name} has no rows: nothing can be suggested from it")
    return places, _form(source.form, trim=padded)


def _form(form: CsvForm | None, *, trim: bool) -> dict[str, Any]:
    if form is None:
        return {}
    changed = form.model_copy(update={"trim": form.trim or trim})
    document = changed.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    return {"csv": document} if document else {}


def _shape(plan: DraftPlan, places: Mapping[str, str]) -> tuple[int, int, int]:
    """Return channels, height and width of all images; with ``stretch`` only their channels have to agree."""
    assert plan.images is not None
    first: tuple[int, int, int] | None = None
    for name, place in places.items():
        shape = _shape_of(plan, plan.images, name, place)
        if plan.stretch is not None:
            shape = (shape[0], *plan.stretch)
        first = first or shape
        if shape[0] != first[0]:
            raise _refused(plan, place, "names a colour image among grey ones, or the other way round: save all alike")
        if shape != first:
            raise _refused(plan, place, "names an image of another size: say --stretch HEIGHT,WIDTH, or cut them alike")
    assert first is not None
    return first


def _shape_of(plan: DraftPlan, folder: Path, name: str, place: str) -> tuple[int, int, int]:
    try:
        _FILE_NAME.validate_python(name)
    except ValidationError:
        problem = "names no plain file of the folder (ASCII letters, digits, '.', '_' and '-')"
        raise _refused(plan, place, problem) from None
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise _refused(plan, place, f"names an image that is {'no plain file' if path.exists() else 'missing'}")
    if path.stat().st_size > MAX_IMAGE_BYTES:
        raise _refused(plan, place, f"names a file of more than {MAX_IMAGE_BYTES} bytes")
    try:
        channels, height, width = decode_image(path.read_bytes()).shape
    except DatasetRejected as refused:
        raise _refused(plan, place, f"names an unusable image: {refused}") from None
    return channels, height, width


def _refused(plan: DraftPlan, place: str, problem: str) -> DatasetRejected:
    folder = "" if plan.images is None else f" (in {plan.images.name}/)"
    return DatasetRejected(f"{plan.path.name}, {place}{folder}: the row {problem}")
