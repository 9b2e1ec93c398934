"""What the demonstration's summary says beside what every study's summary says."""

from __future__ import annotations

from aegis.demo.recipe import DemoOptions
from coreason_enclave.schemas import PrivacyUnit

_EVALUATION = (
    "The task: does a person see a doctor in a study year? A quarter of all people, whole families with all their "
    "years, is the public held-out test set, set aside before any training. No family is in both parts: people of one "
    "site and plan with the same income count as one family. Sites report no loss and no accuracy, because both are "
    "computed from private rows."
)
_OPTIMISM = (
    "Recipe and features were chosen by trial on this public dataset, the held-out quarter included: the measures are "
    "slightly optimistic, and do not show that the private job is better than the central models. On private data, "
    "that choice would cost privacy budget."
)


def notes_of(options: DemoOptions) -> tuple[str, ...]:
    """Return the paragraphs on task and inputs."""
    known = "facts known at the start of the year"
    if options.unit is PrivacyUnit.RECORD:
        inputs = (
            f"The model's inputs: {known} alone. Earlier years belong to a person, and this job protects single rows."
        )
    else:
        inputs = (
            f"The model's inputs: {known}, and five histories of the same person's visits in earlier study years "
            "([[history]] in dataset.toml, computed inside the person). The bootstrap draws the test set's families."
        )
    return _EVALUATION, inputs


def limits_of(options: DemoOptions) -> tuple[str, ...]:
    """Return the demonstration's further limits."""
    some = f"The first {options.sites} of the study's six sites took part." if options.sites < 6 else ""
    return (_OPTIMISM, *([some] if some else []))
