"""Drafts ``dataset.toml`` for a site: from a dictionary, or suggested from the site's own rows, for its own eyes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coreason_enclave.datasets.csv_form import CsvForm
from coreason_enclave.datasets.data_format import DataFormat
from coreason_enclave.datasets.dictionary import DataDictionary
from coreason_enclave.datasets.draft_plan import DraftPlan, stated_label
from coreason_enclave.datasets.drafted_arrays import array_tables, require_arrays
from coreason_enclave.datasets.drafted_images import declared_image_tables, image_tables
from coreason_enclave.datasets.drafted_text import drafted_text
from coreason_enclave.datasets.schema import parse_schema
from coreason_enclave.datasets.source_file import SPACES, SourceFile, source_format
from coreason_enclave.datasets.suggestion import suggest
from coreason_enclave.errors import DatasetRejected


@dataclass(frozen=True)
class Draft:
    """A draft of ``dataset.toml``.

    Attributes:
        left_out: for each column that is no feature, why.
        images: the names of the files that the table of labels names, in its order.
    """

    text: str
    left_out: Mapping[str, str] = field(default_factory=dict)
    images: tuple[str, ...] = ()


def draft(plan: DraftPlan) -> Draft:
    """Return ``dataset.toml`` for the rows of a CSV or Parquet file, an npz archive, or a folder of images.

    Raises:
        ConfigurationError: a library that the format needs is not installed.
        DatasetRejected: the rows are no such file, lack what the plan names, or nothing is left to learn from.
    """
    found = source_format(plan.path)
    if plan.dictionary is not None:
        return _from_dictionary(plan, found, plan.dictionary)
    if not plan.labels and found is not DataFormat.NPZ:
        raise DatasetRejected("--label is missing: name the column to predict, or give the study's --dictionary")
    if plan.images is not None:
        if found is DataFormat.NPZ:
            raise DatasetRejected(f"{plan.path.name} is npz, which holds its images itself: leave --images out")
        tables, stated, images = image_tables(plan)
        return _drafted(plan, tables, stated, {}, images)
    if found is DataFormat.NPZ:
        tables, stated = array_tables(plan)
        return _drafted(plan, tables, stated, {})
    return _from_table(plan)


def _from_table(plan: DraftPlan) -> Draft:
    source = SourceFile.open(plan.path, plan.needed, columns=plan.columns, missing=plan.missing)
    columns, form, padded = source.summarised()
    label, *also = plan.of_label
    if spaced := [name for name in plan.of_label if name in padded]:
        raise DatasetRejected(f"{plan.path.name}: the label {spaced[0]!r} {SPACES}")
    untrimmed = padded - {plan.person}
    suggestion = suggest(
        [column for name, column in columns.items() if name not in untrimmed],
        label=label,
        person=plan.person,
        task=plan.label_task,
        also=also,
        cuts=plan.cuts,
    )
    declared, stated = stated_label(plan, suggestion.label)
    tables = {
        "format": str(source.format),
        **_written_form(form),
        **_unit(plan.person),
        "label": declared,
        "features": [dict(feature) for feature in suggestion.features],
    }
    return _drafted(
        plan,
        tables,
        {"label": stated},
        {**source.left_out, **dict.fromkeys(sorted(untrimmed), SPACES), **suggestion.left_out},
    )


def _from_dictionary(plan: DraftPlan, found: DataFormat, dictionary: DataDictionary) -> Draft:
    if (plan.images is not None) != (dictionary.image_column is not None):
        wanted = "images: say --images FOLDER" if plan.images is None else "no images: leave --images out"
        raise DatasetRejected(f"the dictionary declares {wanted}")
    if plan.images is not None:
        of_images, images = declared_image_tables(plan, dictionary)
        return _drafted(plan, of_images, None, {}, images)
    if (found is DataFormat.NPZ) != (dictionary.tensor is not None):
        kind = "columns of a table" if dictionary.tensor is None else "arrays"
        raise DatasetRejected(f"the dictionary declares {kind}, and {plan.path.name} is {found}")
    known = dictionary.model_copy(update={"unit_column": plan.person}) if plan.person else dictionary
    blank = known.declaration(file=plan.file, public=plan.public, data_format=found)
    tables: dict[str, Any] = {"format": str(found)}
    if found is DataFormat.NPZ:
        require_arrays(plan.path, blank)
    else:
        source = SourceFile.open(plan.path, blank.reads, columns=plan.columns, missing=plan.missing)
        tables |= _written_form(source.form)
    document = blank.model_dump(mode="json", exclude_none=True, exclude={"csv"})
    return _drafted(plan, {**document, **tables}, None, {})


def _drafted(
    plan: DraftPlan,
    tables: Mapping[str, Any],
    stated: Mapping[str, frozenset[str]] | None,
    left_out: Mapping[str, str],
    images: tuple[str, ...] = (),
) -> Draft:
    head = {
        "version": 1,
        "dataset_id": plan.dataset_id,
        "format": tables["format"],
        "file": plan.file,
        "public": plan.public,
    }
    text = drafted_text(
        {**head, **{k: v for k, v in tables.items() if k not in head}}, stated=stated, left_out=left_out
    )
    parse_schema(text.encode())
    return Draft(text, left_out, images)


def _unit(person: str | None) -> dict[str, Any]:
    return {"unit_column": person} if person else {}


def _written_form(form: CsvForm | None) -> dict[str, Any]:
    changed = {} if form is None else form.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    return {"csv": changed} if changed else {}
