"""``model_card.md``: what a released model is, after Mitchell et al., "Model Cards for Model Reporting", 2019.

The card describes the training data by public declarations alone: registrations, bounds and categories. A site's own
number of rows or persons is private, and no field of the card depends on it, unless the site registered the rows as
public.
"""

from __future__ import annotations

from collections.abc import Iterator

from aegis.studies.report import limits, privacy_statement, table, utility_table
from aegis.studies.results import StudyResult
from coreason_enclave.datasets import CategoryFeature, DataDictionary, DateFeature, Feature, Label, LabelTask
from coreason_enclave.models import layout


def model_card(result: StudyResult) -> str:
    """Return the card in Markdown."""
    job = result.job
    arguments = ", ".join(f"{name} = {value}" for name, value in sorted(job.model_args.items()))
    weights = sum(_size(shape) for shape in layout(job.model_arch, job.model_args).values())
    lines = [
        f"# Model card: {result.name}",
        "",
        *(["> **SIMULATED** sites and attestation: not a model of real sites.", ""] if result.is_simulated else []),
        "## Model",
        "",
        f"- Task: {result.task.value}; predicts {_label(result.dictionary.label)}.",
        f"- Architecture: `{job.model_arch}` ({arguments}), {weights} parameters.",
        f"- Weights: `model.safetensors`, digest `{result.outcome['model']}`.",
        (
            f"- Training: {job.rounds} rounds of {job.local_steps} local steps, strategy {job.strategy}, aggregator "
            f"{job.aggregator}, learning rate {job.learning_rate:g}; mean of the last {job.average_last_rounds} rounds."
        ),
        "",
        "## Intended use",
        "",
        (
            "*To be filled in by the study's owner: who may use the model, for what decision, and for what not. "
            "A changed card no longer matches the signed manifest: keep your own copy beside the run.*"
        ),
        "",
        "## Inputs",
        "",
        *_inputs(result.dictionary),
        "",
        "## Training data",
        "",
        *_training_data(result),
        "",
        "## Privacy",
        "",
        *privacy_statement(result),
        "",
        "## Measures on the public held-out rows",
        "",
        *utility_table(result),
        "",
        "## Limits",
        "",
        *(f"- {line}" for line in limits(result)),
        "- Inputs outside the declared ranges are clipped; the model is untested beyond such people.",
        "",
    ]
    return "\n".join(lines)


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def _label(label: Label) -> str:
    names = ", ".join(f"`{name}`" for name in label.reads)
    match label.task:
        case LabelTask.CLASSES:
            return f"{names}: {', '.join(label.values)}" if label.values else f"{names}, {label.classes} classes"
        case LabelTask.LABELS:
            return f"yes or no for each of {names}"
        case LabelTask.NUMBER:
            return f"{names}, from {label.low:g} to {label.high:g}"
        case LabelTask.COUNT:
            return f"the count {names}, up to {label.high:g}"
        case LabelTask.SURVIVAL:
            cuts = ", ".join(f"{cut:g}" for cut in label.cuts or ())
            return f"survival from time and event ({names}) in intervals that end at {cuts}"


def _inputs(dictionary: DataDictionary) -> list[str]:
    if dictionary.tensor is not None and dictionary.image_column is not None:
        channels, height, width = dictionary.tensor.shape
        kind = "grey" if channels == 1 else "RGB"
        return [f"PNG or JPEG images, {kind} of 8 bits a channel, {width} wide and {height} high."]
    if dictionary.tensor is not None:
        shape = " × ".join(map(str, dictionary.tensor.shape))
        return [f"A tensor of shape {shape}, as `dictionary.toml` declares."]
    rows: list[tuple[str, str, str, str]] = []
    rows += [(each.name, each.kind, _range(each), str(each.missing)) for each in dictionary.features]
    rows += [(each.name, "history", f"{each.low:g} to {each.high:g}", "") for each in dictionary.history]
    return [
        *table(("column", "kind", "range or categories", "missing cells"), rows),
        "",
        "`dictionary.toml` holds the whole declaration.",
    ]


def _range(feature: object) -> str:
    match feature:
        case Feature() | DateFeature():
            suffix = f" {feature.unit}" if isinstance(feature, DateFeature) else ""
            return f"{feature.low:g} to {feature.high:g}{suffix}"
        case CategoryFeature():
            shown = ", ".join(feature.categories[:12]) + (", …" if len(feature.categories) > 12 else "")
            return f"{shown}{', or other' if feature.other else ''}"
        case _:
            return "yes or no"


def _training_data(result: StudyResult) -> Iterator[str]:
    sites = result.dataset["sites"]
    names = sorted({site for record in result.history for site in record.steps})
    yield (
        f"Dataset `{result.job.dataset_id}` at {len(names)} sites: {', '.join(names)}. "
        f"Unit of privacy: one {result.job.privacy.unit}."
    )
    public = sorted(name for name in names if sites.get(name, {}).get("public"))
    if public:
        counts = ", ".join(f"{name} {sites[name]['nominal_units']}" for name in public)
        yield f"Registered as public, with persons (or rows, where the unit is a record): {counts}."
    private = [name for name in names if name not in public]
    if private:
        yield f"Private: {', '.join(private)}. Their numbers of rows and persons are not known here and not told."
