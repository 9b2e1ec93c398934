"""Requirements of a caller for a dataset, compared with its declaration."""

from __future__ import annotations

from dataclasses import dataclass

from coreason_enclave.datasets.labels import LabelTask
from coreason_enclave.datasets.schema import DatasetSchema
from coreason_enclave.schemas import PrivacyUnit


@dataclass(frozen=True)
class DatasetExpectation:
    """A caller's requirements for a dataset; ``None`` accepts any value."""

    sample_shape: tuple[int, ...] | None = None
    classes: int | None = None
    unit: PrivacyUnit | None = None
    public: bool | None = None
    task: LabelTask | None = None
    outputs: int | None = None

    def unmet_by(self, schema: DatasetSchema) -> tuple[str, ...]:
        """Return each expectation that ``schema`` does not meet, in words."""
        found: tuple[tuple[str, object, object], ...] = (
            ("sample_shape", self.sample_shape, schema.sample_shape),
            ("classes", self.classes, schema.label.classes),
            ("unit", self.unit, schema.unit),
            ("public", self.public, schema.public),
            ("task", self.task, schema.label.task),
            ("outputs", self.outputs, schema.label.outputs),
        )
        return tuple(
            f"{name} must be {wanted}, the dataset has {has}"
            for name, wanted, has in found
            if wanted is not None and wanted != has
        )
