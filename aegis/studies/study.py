"""A study's folder: the job that its owner edits, the federation of its sites, and its numbered runs.

::

    study.toml           the job; edit it, or override entries with --set
    dictionary.toml      the data dictionary: what every site's dataset declares
    federation.toml      the federation; sites/, coordinator/ hold keys and never leave this machine
    runs/1, runs/2 …     one folder a run; runs/latest points to the newest that the sites do not refuse

The owner edits ``study.toml`` between runs. A run keeps the job that started it, under a job id of its own
(``<job_id>-<number>``), so a corrected job is a new run by itself, and sites never meet one id with two jobs.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from aegis.errors import InvalidJob, InvalidStudy, RunFolderError
from aegis.federation import FederationFolder
from aegis.runs import RunFolder
from aegis.studies.commented import JOB_COMMENTS, commented, shown_job
from coreason_enclave.configuration import parse_toml, read_toml
from coreason_enclave.datasets import DataDictionary
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.policy import load_site_config
from coreason_enclave.schemas import FederationJob, StrictModel, explained
from coreason_enclave.system import point_link, publish, replace_file

STUDY, DICTIONARY, DATASET, SUMMARY = "study.toml", "dictionary.toml", "dataset.json", "summary.md"
EVALUATION = "evaluation.json"
"""The released model's measures on the held-out rows, in the label's own unit, each with its interval."""

_STARTED = "study-run.json"
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


class StudyDocument(StrictModel):
    """The parsed ``study.toml``. ``job.job_id`` is the study's name.

    Attributes:
        federation: the folder of a federation of real sites, relative to the study; None: the study's own sites.
    """

    version: Literal[1]
    federation: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    job: FederationJob


@dataclass(frozen=True)
class Study:
    """A study's folder."""

    path: Path

    @property
    def exists(self) -> bool:
        """Tell whether the folder holds a study."""
        return (self.path / STUDY).is_file()

    @property
    def runs(self) -> Path:
        """The folder of the runs."""
        return self.path / "runs"

    @property
    def latest(self) -> Path:
        """The link to the newest run that the sites do not refuse."""
        return self.runs / "latest"

    @property
    def held_out_rows(self) -> Path:
        """The folder of the held-out rows."""
        return self.path / "held-out" / "data"

    def federation(self) -> FederationFolder:
        """Return the federation whose sites take part: the study's own, or the one that ``study.toml`` names.

        Raises:
            InvalidStudy: ``study.toml`` cannot be read, or names a folder without a federation.
        """
        named = self._document().get("federation") if self.exists else None
        if named is None:
            return FederationFolder(self.path)
        folder = self.path / str(named)
        if not (folder / "federation.toml").is_file():
            raise InvalidStudy(f"{self.path / STUDY}: federation = {named!r}, and {folder} holds no federation.toml")
        return FederationFolder(folder)

    def dictionary(self) -> DataDictionary:
        """Read the study's data dictionary.

        Raises:
            InvalidStudy: there is no such file.
            DatasetRejected: the file cannot be used.
        """
        path = self.path / DICTIONARY
        if not path.is_file():
            raise InvalidStudy(f"{path} is missing: put it back; each run keeps a copy, runs/<n>/{DICTIONARY}")
        return DataDictionary.read(path)

    def job(self, changes: Sequence[str] = ()) -> FederationJob:
        """Return the job of ``study.toml`` with changes such as ``privacy.target_epsilon=1`` applied.

        Raises:
            InvalidStudy: the folder has no ``study.toml``, or the file cannot be read.
            InvalidJob: a change or an entry of the job is wrong.
        """
        path, document = self.path / STUDY, self._document()
        for change in changes:
            _apply(document, change)
        where = f"{path}{' with --set' if changes else ''}"
        with explained(lambda why: InvalidJob(f"{where}: {why}")):
            return StudyDocument.model_validate(document).job

    def _document(self) -> dict[str, Any]:
        try:
            return read_toml(self.path / STUDY)
        except ConfigurationError as error:
            if not self.exists:
                raise InvalidStudy(
                    f"{self.path} holds no study.toml: `aegis init {self.path}` creates a study"
                ) from error
            raise InvalidStudy(str(error)) from error

    def numbers(self) -> list[int]:
        """Return the numbers of the runs, smallest first."""
        if not self.runs.is_dir():
            return []
        return sorted(int(path.name) for path in self.runs.iterdir() if _NUMBER.fullmatch(path.name))

    def run(self, number: int) -> RunFolder:
        """Return a run's folder."""
        return RunFolder(self.runs / str(number))

    def is_complete(self, number: int) -> bool:
        """Tell whether a run ended with its summary, which is written last."""
        return (self.runs / str(number) / SUMMARY).is_file()

    def choose_run(self, job: FederationJob, options: Mapping[str, Any]) -> tuple[RunFolder, FederationJob]:
        """Return the incomplete newest run if it has the same job and options, else a new run, with the job to run.

        ``options`` are compared with the ``study-run.json`` of the newest run. A new folder appears whole: a crash
        leaves the earlier runs and ``latest`` as they were.

        Raises:
            RunFolderError: another command starts a run at this moment.
        """
        numbers = self.numbers()
        if numbers and not self.differences(job, options):
            self._point(numbers[-1])
            return self.run(numbers[-1]), _named(job, numbers[-1])
        number = numbers[-1] + 1 if numbers else 1
        fresh, named = self.run(number), _named(job, number)
        self._begin(fresh, {"job": named.digest(), **options})
        self._point(number)
        return fresh, named

    def withdraw_unbegun(self, run: RunFolder) -> None:
        """Remove the folder of a run that was refused before it began, and point ``latest`` to the run before."""
        if run.is_started or not run.path.is_dir():
            return
        shutil.rmtree(run.path)
        self.point_to_newest()

    def point_to_newest(self) -> None:
        """Point ``latest`` to the newest run that the sites do not refuse, or remove the link without such a run."""
        numbers = [number for number in self.numbers() if not self.run(number).is_refused]
        if numbers:
            self._point(numbers[-1])
        else:
            self.latest.unlink(missing_ok=True)

    def differences(self, job: FederationJob, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Return why the newest run cannot go on with this job and these options; an empty tuple if it can.

        A complete run differs by ``"complete"``.
        """
        newest = self.numbers()[-1]
        if self.is_complete(newest):
            return ("complete",)
        try:
            began = self.run(newest).read_json(_STARTED)
        except RunFolderError:
            return (_STARTED,)
        now = {"job": _named(job, newest).digest(), **options}
        return tuple(sorted(name for name in began.keys() | now.keys() if began.get(name) != now.get(name)))

    def _begin(self, run: RunFolder, started: Mapping[str, Any]) -> None:
        dataset = self._dataset()
        self.runs.mkdir(exist_ok=True)
        for stale in self.runs.glob(".new-*"):
            shutil.rmtree(stale, ignore_errors=True)
        staging = RunFolder(self.runs / f".new-{run.path.name}")
        try:
            staging.path.mkdir()
            staging.write_json(_STARTED, started)
            shutil.copyfile(self.path / DICTIONARY, staging.path / DICTIONARY)
            staging.write_json(DATASET, dataset)
            publish(staging.path, run.path)
        except OSError as error:
            raise RunFolderError(f"{run.path} cannot be created ({error.strerror}): repeat the command") from error

    def _dataset(self) -> dict[str, Any]:
        """Return what a run trains on: the dataset, and each local site's registration (JSON types), without rows."""
        dataset_id = self.dictionary().dataset_id
        sites = {}
        for folder in self.federation().site_folders():
            config = load_site_config(folder / "site.toml")
            for lineage in config.lineages:
                if lineage.dataset_id == dataset_id:
                    registered = {"lineage": lineage.lineage, "unit": lineage.unit.value, "public": lineage.public}
                    sites[config.site_id] = {**registered, "nominal_units": lineage.nominal_units}
        return {"dataset_id": dataset_id, "sites": sites}

    def _point(self, number: int) -> None:
        """Let ``runs/latest`` point to a run, atomically."""
        point_link(self.latest, str(number))


def _named(job: FederationJob, number: int) -> FederationJob:
    return job.model_copy(update={"job_id": f"{job.job_id}-{number}"})


def _apply(document: dict[str, Any], change: str) -> None:
    """Apply ``entry=value`` to the job; the value is TOML, or else a word."""
    entry, equals, text = change.partition("=")
    if not equals or not entry.strip():
        raise InvalidJob(f"--set takes entry=value, such as privacy.target_epsilon=1, got {change!r}")
    *tables, last = entry.strip().removeprefix("job.").split(".")
    table = document.setdefault("job", {})
    for name in tables:
        table = table.setdefault(name, {}) if isinstance(table, dict) else None
    if not isinstance(table, dict):
        raise InvalidJob(f"--set {change}: {'.'.join(tables)} is a value, not a table")
    if last == "job_id":
        raise InvalidJob("--set cannot change job_id: every run of a study has an id of its own")
    table[last] = _value(text.strip())


def _value(text: str) -> Any:
    try:
        return parse_toml(f"value = {text}".encode(), "--set")["value"]
    except ConfigurationError:
        return text


def write_study(
    folder: Path, job: FederationJob, dictionary: DataDictionary, *, head: str, federation: str | None = None
) -> None:
    """Write ``study.toml`` and ``dictionary.toml``, each entry of the job with a comment.

    Args:
        head: comment lines for ``study.toml``.
        federation: the folder of a federation of real sites, relative to ``folder``.
    """
    named = {"federation": federation} if federation is not None else {}
    document = {"version": 1, **named, "job": shown_job(job)}
    replace_file(folder / STUDY, f"{head}{commented(document, JOB_COMMENTS)}".encode())
    words = "# The data dictionary: what every site's dataset.toml declares. docs/DATASETS.md explains every entry.\n"
    replace_file(folder / DICTIONARY, f"{words}{dictionary.write()}".encode())
