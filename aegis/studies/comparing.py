"""Lists the runs of a study or of a plain folder, and compares runs entry by entry."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aegis.errors import AegisError, InvalidStudy, RunFolderError
from aegis.runs import RunFolder
from aegis.stores import RoundRecord
from aegis.studies.figures import Curve, plot_runs
from aegis.studies.site_accounts import accounts_of
from aegis.studies.study import EVALUATION, STUDY, Study
from coreason_enclave.schemas import FederationJob
from coreason_enclave.system import as_datetime

_LEFT_OUT = frozenset({"job_id", "version"})


@dataclass(frozen=True)
class RunSummary:
    """One run at a glance.

    Attributes:
        state: ``finished``; ``unfinished`` (the same command goes on); ``refused`` (by the sites; a person has to act
            first, for the reason in ``refusal``); ``failed`` (no round can be read).
        changed: the job's entries that differ from the listed run before: entry, then value before and now.
        epsilon, reserved: spent and reserved in the job, each at the site with the largest figure; None without a
            guarantee. ``reserved`` also needs a site's ledger in the run folder.
        federation_epsilon: over all sites together, of a finished run; see ``outcome.json``.
        intervals: 95 % intervals by measure, where the run's ``evaluation.json`` holds some.
        utility: the last round's measures; in the label's own unit where ``evaluation.json`` has them.
    """

    name: str
    path: Path
    state: str
    date: str | None = None
    runtime: str | None = None
    provenance: str | None = None
    rounds: int = 0
    epsilon: float | None = None
    reserved: float | None = None
    refusal: str | None = None
    federation_epsilon: float | None = None
    utility: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    changed: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    history: tuple[RoundRecord, ...] = field(default=(), repr=False)
    job: FederationJob | None = field(default=None, repr=False)

    def document(self) -> dict[str, Any]:
        """Return the summary as plain values."""
        names = (
            *("name", "state", "refusal", "date", "runtime", "provenance", "rounds"),
            *("epsilon", "reserved", "federation_epsilon", "utility"),
        )
        changed = {entry: list(values) for entry, values in self.changed.items()}
        intervals = {name: list(bounds) for name, bounds in self.intervals.items()}
        plain = {name: getattr(self, name) for name in names}
        return {"path": str(self.path), **plain, "intervals": intervals, "changed": changed}


def list_runs(folder: Path) -> list[RunSummary]:
    """Return the runs below ``folder``: a study, or a folder of run folders; each with its changes against the last.

    Raises:
        InvalidStudy: the folder holds no run.
    """
    if (folder / STUDY).is_file():
        study = Study(folder)
        paths = [study.run(number).path for number in study.numbers()]
        if not paths:
            raise InvalidStudy(f"{folder} has no run yet: `aegis run {folder}` starts one")
    else:
        paths = sorted(
            (path for path in folder.iterdir() if path.is_dir() and not path.is_symlink() and _is_run(path)),
            key=_in_order,
        )
        if not paths:
            raise InvalidStudy(f"{folder} is neither a study (study.toml) nor a folder with run folders in it")
    found: list[RunSummary] = []
    before: FederationJob | None = None
    for path in paths:
        found.append(summarise(path, before))
        before = found[-1].job or before
    return found


def _is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in ("config.json", "outcome.json", "study-run.json"))


def _in_order(path: Path) -> tuple[float, str]:
    return (float(path.name) if path.name.isdigit() else (path / "job.yaml").stat().st_mtime, path.name)


def summarise(path: Path, before: FederationJob | None = None) -> RunSummary:
    """Return a run's summary; ``before`` is the job to show changes against.

    Raises:
        InvalidStudy: the folder holds no run.
    """
    if not _is_run(path):
        raise InvalidStudy(f"{path} is not a run folder: name a folder such as study/runs/1")
    folder, name = RunFolder(path), path.resolve().name
    try:
        job = folder.job()
        options = folder.read_json("config.json").get("options", {})
        history = folder.state().history if folder.has_state else ()
        outcome = folder.read_json("outcome.json") if folder.is_finished else {}
        refusal = folder.refusal()
    except (AegisError, OSError):
        return RunSummary(name, path, "failed", date=_date(path))
    stored = _stored_measures(path)
    spent, reserved = _prices(folder, history)
    state = "unfinished" if folder.has_state else "failed"
    state = "finished" if folder.is_finished else "refused" if folder.is_refused else state
    return RunSummary(
        name,
        path,
        state,
        date=_date(path),
        runtime=options.get("runtime"),
        provenance=", ".join(sorted({value.value for each in history for value in each.provenance.values()})) or None,
        rounds=len(history),
        epsilon=spent,
        reserved=reserved,
        refusal=refusal,
        federation_epsilon=outcome.get("federation_epsilon", {}).get("epsilon"),
        utility={**(dict(history[-1].metrics) if history else {}), **stored.values},
        intervals=stored.intervals,
        changed={} if before is None else job_differences(before, job),
        history=history,
        job=job,
    )


def _prices(run: RunFolder, history: Sequence[RoundRecord]) -> tuple[float | None, float | None]:
    """Return the largest of the sites' spent and reserved epsilons, by the ledgers in the folder where it has some."""
    if not history:
        return None, None
    try:
        accounts = accounts_of(run, history[-1])
    except AegisError:  # a damaged ledger: `aegis verify` says so, and the run's own records stay
        return _largest(list(history[-1].epsilon.values())), None
    return _largest([each.spent for each in accounts]), _largest([each.reserved for each in accounts])


def _largest(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _date(path: Path) -> str | None:
    """Return the day and time of the run's first audit line (UTC), or None."""
    try:
        with (path / "audit.jsonl").open(encoding="utf-8") as file:
            seconds = json.loads(file.readline()).get("time")
        return as_datetime(float(seconds)).strftime("%Y-%m-%d %H:%M")
    except (OSError, ValueError, TypeError, AttributeError, OverflowError):
        return None


@dataclass(frozen=True)
class _Stored:
    """The measures of ``evaluation.json``, in the label's own unit."""

    values: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)


def _stored_measures(path: Path) -> _Stored:
    """Return the measures that a run of a study left; none for other runs."""
    try:
        measures = RunFolder(path).read_json(EVALUATION).get("measures", {})
        values = {str(name): float(each["value"]) for name, each in measures.items()}
        ends = {str(name): (each.get("low"), each.get("high")) for name, each in measures.items()}
        return _Stored(
            values, {name: (float(low), float(high)) for name, (low, high) in ends.items() if low is not None}
        )
    except (RunFolderError, AttributeError, TypeError, ValueError, KeyError):
        return _Stored()


def flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as one, with dotted names.

    >>> flat({"privacy": {"target_epsilon": 3.0}, "rounds": 2})
    {'privacy.target_epsilon': 3.0, 'rounds': 2}
    """
    entries: dict[str, Any] = {}
    for name, value in document.items():
        entries.update(flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value})
    return entries


def job_differences(first: FederationJob, second: FederationJob) -> dict[str, tuple[Any, Any]]:
    """Return the entries in which two jobs differ, with both values; None for an entry left out."""
    here, there = (flat(job.model_dump(mode="json", exclude_none=True)) for job in (first, second))
    return {
        entry: (here.get(entry), there.get(entry))
        for entry in dict.fromkeys((*here, *there))
        if entry not in _LEFT_OUT and here.get(entry) != there.get(entry)
    }


def compare_runs(paths: Sequence[Path]) -> tuple[list[RunSummary], dict[str, list[Any]]]:
    """Return the runs' summaries, and each entry in which any two jobs differ, with one value a run.

    Raises:
        InvalidStudy: fewer than two runs, or a run without a job that can be read.
    """
    if len({path.resolve() for path in paths}) < 2:
        raise InvalidStudy("name two different runs to compare, such as study/runs/1 study/runs/2")
    found = [summarise(path) for path in paths]
    for each in found:
        if each.job is None:
            raise InvalidStudy(f"{each.path} has no job that can be read: `aegis runs` shows the state of each run")
    tables = [flat(each.job.model_dump(mode="json", exclude_none=True)) for each in found if each.job is not None]
    entries = dict.fromkeys(entry for table in tables for entry in table if entry not in _LEFT_OUT)
    values = {entry: [table.get(entry) for table in tables] for entry in entries}
    return found, {entry: row for entry, row in values.items() if any(value != row[0] for value in row)}


def main_measure(found: Sequence[RunSummary]) -> str | None:
    """Return the measure that all runs have and that tells most: AUC, accuracy, an error, or the first by name."""
    shared = set.intersection(*({*each.utility} for each in found)) if found else set()
    usual = ("auc", "accuracy", "concordance", "rmse", "deviance", "loss")
    return next((name for name in usual if name in shared), min(shared, default=None))


def plot_comparison(path: Path, found: Sequence[RunSummary]) -> str:
    """Draw the runs' main measure by round into ``path``; return the measure's name.

    Raises:
        InvalidStudy: the runs have no measure in common.
    """
    metric = main_measure(found)
    if metric is None:
        raise InvalidStudy("these runs have no measure in common: no picture can compare them")
    curves = [
        Curve(
            f"run {each.name}",
            [record.round_number for record in each.history],
            [record.metrics.get(metric, float("nan")) for record in each.history],
        )
        for each in found
    ]
    plot_runs(path, metric, curves, title="Runs compared")
    return metric
