"""Runs a study: the private job, the same job without privacy where every row is public, and the results.

A run is killed at any moment and goes on with the same command. What is done stays done:

1. ``runs/<n>`` appears whole, with what the run began with (``study-run.json``);
2. the job's rounds are durable one by one, and ``outcome.json`` ends them;
3. the baseline under ``runs/<n>/twin`` and the repetitions under ``runs/<n>/repeats`` likewise;
4. pictures and pages are derived from these records, and ``summary.md`` is written last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from aegis.errors import RunPaused, RunRefused
from aegis.federation import resolve
from aegis.runs import RoundReport, RunFolder, RunPlan, RuntimeName, code_in_use, execute, sign_manifest
from aegis.runtimes.nvflare import FlareOptions
from aegis.studies.baseline import baseline_of, why_no_baseline
from aegis.studies.held_out import Interval
from aegis.studies.model_card import model_card
from aegis.studies.pictures import draw
from aegis.studies.readiness import require_local_sites
from aegis.studies.repeating import Repetitions, Simulation, require_repeatable
from aegis.studies.report import summary
from aegis.studies.results import MAIN_MEASURES, MODEL_CARD, PLOTS, TWIN, StudyResult, collect
from aegis.studies.study import DICTIONARY, EVALUATION, SUMMARY, Study
from coreason_enclave.crypto import canonical_json, sha256_hex
from coreason_enclave.models import task_of
from coreason_enclave.schemas import FederationJob
from coreason_enclave.system import replace_file

_NO_BASELINE = "none was asked for (--no-baseline)"
_WORDS = {
    "job": "another job",
    "runtime": "another runtime",
    "baseline": "another choice of baseline",
    "dictionary": "another dictionary.toml",
    "evaluation_set": "another evaluation set",
    "federation": "other sites or keys",
    "code": "another version of this program",
    "simulation": "another seed, or other numbers of attackers or repetitions",
}


@dataclass(frozen=True)
class Context:
    """What a study's owner knows beside the run, for the pages.

    Attributes:
        references: returns the measures of other models on the held-out rows, by the model's name; called at the end.
        notes: sentences for the summary's first section. limits: further lines for its last section.
    """

    references: Callable[[], Mapping[str, Mapping[str, Interval]]] = field(default=dict)
    notes: Sequence[str] = ()
    limits: Sequence[str] = ()


_NO_SIMULATION, _NO_CONTEXT = Simulation(), Context()


def run_study(
    study: Study,
    *,
    changes: Sequence[str] = (),
    runtime: RuntimeName = RuntimeName.FLOWER,
    flare: FlareOptions | None = None,
    baseline: bool = True,
    readmit: Sequence[str] = (),
    simulation: Simulation = _NO_SIMULATION,
    context: Context = _NO_CONTEXT,
    observe: Callable[[RoundReport], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> StudyResult:
    """Run a study's job as its next run, or go on with the unfinished newest run of the same job and options.

    Args:
        changes: entries of the job in place of the file's, such as ``privacy.target_epsilon=1``.
        flare: hosting options over NVIDIA FLARE; None: its simulator.
        baseline: run the same job without privacy beside it, where every row is public.
        readmit: sites whose strikes are cleared before the run goes on.
        simulation: options that only a simulation has.
        context: what the pages say beside the run's own records.
        observe: called after each round of the private job. say: called with a line of progress.

    Raises:
        InvalidStudy, InvalidJob: the study, or a change, cannot be used; nothing was written.
        AegisError: the run paused, or its records are damaged.
    """
    job, federation = study.job(changes), study.federation()
    config = federation.config()
    study.dictionary()  # what cannot be used is refused before the first write
    require_local_sites(federation, runtime)
    job = resolve(job, delta=config.delta)
    require_repeatable(job, federation, simulation.repeats)
    run, named = study.choose_run(job, _options(study, runtime, baseline, simulation, say=say, job=job))
    say(
        f"run {run.path.name} of {study.path}: {job.rounds} rounds over {len(config.public_keys)} sites, "
        f"{config.profile.in_words()}"
    )
    plan = RunPlan(
        federation,
        run,
        simulation.unsafe_seed,
        simulation.attackers,
        readmit=tuple(readmit),
        say=say,
        runtime=runtime,
        flare=flare or FlareOptions(),
    )
    if not run.is_finished:
        if runtime is RuntimeName.FLOWER:
            say("starting SuperLink, gateway and each site's processes for this run, unless they run already")
        try:
            execute(named, replace(plan, observe=observe))
        except RunRefused:
            study.point_to_newest()
            raise
        finally:
            study.withdraw_unbegun(run)
    no_twin = why_no_baseline(named, federation) if baseline else _NO_BASELINE
    if no_twin is None:
        no_twin = _run_baseline(baseline_of(named), plan)
    measures = MAIN_MEASURES[task_of(job.model_arch, job.task).kind]
    repeats = Repetitions(study, run, simulation, measures, say).histories()
    say("writing measures, pictures, model card and summary")
    result = replace(
        collect(study, run, no_twin=no_twin),
        repeats=repeats,
        references=context.references(),
        notes=tuple(context.notes),
        further_limits=tuple(context.limits),
    )
    _write(study, result)
    return result


def _write(study: Study, result: StudyResult) -> None:
    """Write pictures, model card, signed manifest and, last, the summary."""
    folder = result.run.path
    draw(folder / PLOTS, result)
    measures = json.dumps({"measures": result.to_dict()["measures"]}, indent=2, sort_keys=True, allow_nan=False)
    pages = {
        EVALUATION: f"{measures}\n".encode(),
        MODEL_CARD: model_card(result).encode(),
        SUMMARY: summary(result).encode(),
    }
    sign_manifest(folder, result.job.digest(), study.federation().signer(), pending=pages)
    for name, page in pages.items():
        replace_file(folder / name, page)


def _run_baseline(job: FederationJob, plan: RunPlan) -> str | None:
    """Run or finish the baseline in this process; return why there is none if its rounds cannot be completed."""
    folder = RunFolder(plan.folder.path / TWIN)
    if folder.is_finished:
        return None
    plan.say("the same job without privacy, in this process, on rows that are all registered as public")
    try:
        execute(job, RunPlan(plan.federation, folder, plan.unsafe_seed, plan.attackers, say=plan.say))
    except RunPaused as error:
        return f"it did not finish: {error}"
    return None


def _options(
    study: Study,
    runtime: RuntimeName,
    baseline: bool,
    simulation: Simulation,
    *,
    say: Callable[[str], None],
    job: FederationJob,
) -> dict[str, Any]:
    """Return what a run must share with the run that it continues (JSON types), and say why none continues."""
    config, evaluation = study.federation().config(), study.federation().evaluation_data()
    sites = [config.profile.value, dict(config.public_keys), config.disjoint_units]
    options = {
        "runtime": runtime.value,
        "baseline": baseline,
        "dictionary": sha256_hex((study.path / DICTIONARY).read_bytes()),
        "evaluation_set": None if evaluation is None else sha256_hex(evaluation),
        "federation": sha256_hex(canonical_json(sites)),
        "code": dict(code_in_use()),
        "simulation": simulation.to_dict(),
    }
    numbers = study.numbers()
    different = study.differences(job, options) if numbers else ()
    if different and "complete" not in different:
        words = ", ".join(_WORDS.get(name, name) for name in different)
        state = "refused" if study.run(numbers[-1]).is_refused else "unfinished"
        say(f"run {numbers[-1]} stays {state}: it began with {words}; this is a new run")
    return options
