"""The whole demonstration: create sites, train, train the twin, repeat, plot, summarise; resumable at any point."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.numpy
from rich.console import Console

from aegis.demo.families import auc_interval
from aegis.demo.progress import RoundTable
from aegis.demo.randhie_data import central_reference, evaluation_families, load_evaluation_set
from aegis.demo.recipe import DELTA, DemoOptions, private_job, twin_of
from aegis.demo.setup import create_demo_federation
from aegis.demo.summary import DemoResult, write_summary
from aegis.errors import RunFolderError
from aegis.federation import FederationFolder, resolve
from aegis.runs import RunFolder, RunPlan, RuntimeName, execute, sign_manifest
from aegis.runtimes.flower import federation_running
from aegis.stores import RoundRecord
from aegis.studies import Curve, plot_epsilon, plot_utility
from coreason_enclave.schemas import FederationJob
from coreason_enclave.system import point_link, replace_file

FEDERATIONS = "federations"
"""Folder next to the run folders: holds the federations of each run."""


@dataclass(frozen=True)
class DemoRun:
    """A demonstration's folder; finished once ``summary.md`` exists, which is written last.

    Its federations, with every private key, lie outside the folder, so that the folder can be published.
    """

    path: Path
    resumed: bool

    @property
    def federations(self) -> Path:
        """The folder of the federations that this demonstration created."""
        return self.path.parent / FEDERATIONS / self.name

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name


def choose_run(root: Path, options: DemoOptions) -> DemoRun:
    """Return the unfinished run with the same options behind ``root/latest``, or a new run.

    A new run creates new sites with their own budgets. It refunds and overwrites nothing of an earlier run.
    """
    latest = root / "latest"
    if latest.exists() and not (latest / "summary.md").exists() and _options_of(latest.resolve()) == options.to_dict():
        _require_keys_elsewhere(latest.resolve())
        return DemoRun(latest.resolve(), resumed=True)
    path = _new_folder(root)
    RunFolder(path).write_json("demo.json", _about(path, options))
    _point(latest, path)
    return DemoRun(path, resumed=False)


def run_demo(run: DemoRun, options: DemoOptions, console: Console) -> DemoResult:
    """Carry out or resume the demonstration in ``run``.

    Raises:
        AegisError: wrong options, or a paused run.
    """
    job = resolve(private_job(options), delta=DELTA)
    console.print(f"[1/5] {options.sites} of one study's six real sites, here as SIMULATED sites with their own keys")
    federation = create_demo_federation(run.federations / "main", options)
    _point(run.path.parent / "latest-federation", federation.path)
    with _processes(run, federation, options, console):
        private = _run(
            job, _execution(run.path, federation, options), console, f"[2/5] private job {_describe_runtime(options)}"
        )
        twin = _run(
            twin_of(job),
            _execution(run.path / "twin", federation, options),
            console,
            f"[3/5] the same job without privacy, on public data only {_describe_runtime(options)}",
        )
    repeats = _repeat(run, job, options, console)
    console.print("[5/5] central reference, plots, summary")
    central = central_reference(options.unit)
    result = DemoResult(
        run=run.name,
        options=options,
        job=job,
        private=private,
        twin=twin,
        repeats=[history[-1] for history in repeats],
        ledger_epsilon=RunFolder(run.path).read_json("outcome.json")["ledger_epsilon"],
        interval=_interval(run.path, options),
        central=central,
        attackers=sorted(federation.config().public_keys)[: options.attackers],
    )
    _draw(run.path / "plots", result, repeats)
    RunFolder(run.path).write_json("demo.json", {**_about(run.path, options), "result": result.to_dict()})
    summary = write_summary(result).encode()
    sign_manifest(run.path, job.digest(), federation.signer(), pending={"summary.md": summary})
    replace_file(run.path / "summary.md", summary)
    return result


def _execution(path: Path, federation: FederationFolder, options: DemoOptions) -> RunPlan:
    folder = RunFolder(path)
    return RunPlan(federation, folder, options.seed, options.attackers, runtime=options.runtime)


def _describe_runtime(options: DemoOptions) -> str:
    carried = "over separate processes for each site" if options.runtime is RuntimeName.FLOWER else "in one process"
    return f"{carried} (attestation SIMULATED)"


@contextmanager
def _processes(run: DemoRun, federation: FederationFolder, options: DemoOptions, console: Console) -> Iterator[None]:
    """Run the federation's processes for both jobs, if the runtime has processes and a job remains."""
    finished = RunFolder(run.path).is_finished and RunFolder(run.path / "twin").is_finished
    if options.runtime is not RuntimeName.FLOWER or finished:
        yield
        return
    console.print(f"      starting SuperLink, gateway, {options.sites} agents with SuperNodes; mutual TLS on loopback")
    with federation_running(federation, unsafe_seed=options.seed, attackers=options.attackers):
        yield


def _run(job: FederationJob, plan: RunPlan, console: Console, title: str) -> tuple[RoundRecord, ...]:
    """Run a job to its end; only read a finished job."""
    folder = plan.folder
    if folder.is_finished:
        console.print(f"{title}: already finished")
        return folder.state().history
    earlier = folder.state().history if folder.has_state else ()
    with RoundTable(console, title, job.rounds, job.privacy.target_epsilon, earlier) as table:
        execute(job, replace(plan, observe=table.show))
    return folder.state().history


def _repeat(run: DemoRun, job: FederationJob, options: DemoOptions, console: Console) -> list[tuple[RoundRecord, ...]]:
    """Run the private job again on new sites each time, to show the spread from sampling and noise."""
    histories = []
    working = console.status("") if console.is_terminal and options.repeats else nullcontext()
    with working as status:
        for number in range(1, options.repeats + 1):
            words = f"[4/5] repetition {number} of {options.repeats} in one process, with new SIMULATED sites and keys"
            if status is not None:
                status.update(words)
            folder = run.path / "repeats" / str(number)
            federation = create_demo_federation(run.federations / f"repeat-{number}", options)
            seed = None if options.seed is None else options.seed + number
            plan = RunPlan(federation, RunFolder(folder / "run"), seed, options.attackers)
            if not plan.folder.is_finished:
                execute(job, plan)
            histories.append(plan.folder.state().history)
            console.print(f"{words}: AUC {histories[-1][-1].metrics['auc']:.3f}")
    return histories


def _draw(folder: Path, result: DemoResult, repeats: Sequence[Sequence[RoundRecord]]) -> None:
    folder.mkdir(exist_ok=True)
    options, privacy = result.options, result.job.privacy
    hostile = f", {options.attackers} of {options.sites} sites SIMULATED attackers" if options.attackers else ""
    plot_utility(
        folder / "utility.png",
        "auc",
        _with_band(_curve("private job", result.private), [_curve("", history) for history in repeats]),
        twin=_curve("same job, no privacy", result.twin),
        references={
            "central logistic, no privacy": result.central.logistic_auc,
            "central boosted trees, no privacy": result.central.boosted_trees_auc,
        },
        title=f"RAND HIE, {options.sites} sites, {options.aggregator}{hostile}\n"
        f"epsilon {privacy.target_epsilon:g} at delta {privacy.delta:g} per {privacy.unit} (attestation SIMULATED)",
    )
    sites = sorted({site for record in result.private for site in record.epsilon})
    rounds = [record.round_number for record in result.private]
    plot_epsilon(
        folder / "epsilon.png",
        [Curve(site, rounds, [record.epsilon.get(site) or 0.0 for record in result.private]) for site in sites],
        privacy.target_epsilon or 0.0,
        title=f"epsilon at delta {privacy.delta:g} per {privacy.unit}, accountant PLD (attestation SIMULATED)",
    )


def _curve(label: str, history: Sequence[RoundRecord]) -> Curve:
    rounds = [record.round_number for record in history]
    return Curve(label, rounds, [record.metrics.get("auc", float("nan")) for record in history])


def _with_band(curve: Curve, repeats: Sequence[Curve]) -> Curve:
    """Return the curve in the band of all repeated runs."""
    if not repeats:
        return curve
    every = list(zip(curve.values, *(repeat.values for repeat in repeats), strict=True))
    return replace(curve, low=[min(values) for values in every], high=[max(values) for values in every])


def _interval(path: Path, options: DemoOptions) -> tuple[float, float]:
    """Return the 95 % interval of the private model's AUC, by bootstrap over families."""
    evaluation = load_evaluation_set(options.unit)
    weights = safetensors.numpy.load_file(path / "model.safetensors")
    weight, bias = (np.asarray(weights[name], np.float64) for name in ("linear.weight", "linear.bias"))
    logits = evaluation.features.astype(np.float64) @ weight[0] + bias[0]
    return auc_interval(1.0 / (1.0 + np.exp(-logits)), evaluation.labels, evaluation_families())


def _about(path: Path, options: DemoOptions) -> dict[str, object]:
    return {"options": options.to_dict(), "federations": f"../{FEDERATIONS}/{path.name}"}


def _require_keys_elsewhere(path: Path) -> None:
    """Refuse a run folder of an earlier version: it holds its sites' private keys and must not be published."""
    if (path / "federation").exists():
        raise RunFolderError(
            f"{path} was started by an earlier version, and contains private keys: finish the run with that version, "
            f"or move {path.parent / 'latest'} aside and repeat the command to start a new run"
        )


def _options_of(path: Path) -> object:
    try:
        return RunFolder(path).read_json("demo.json").get("options")
    except RunFolderError:
        return None


def _new_folder(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    for suffix in ("", *(f"-{number}" for number in range(2, 100))):
        path = root.resolve() / f"demo-{stamp}{suffix}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise RunFolderError(f"{root} already has too many runs from this second: try again")


def _point(link: Path, target: Path) -> None:
    """Let ``link`` point to ``target``, which lies below its own folder, atomically."""
    point_link(link, str(target.relative_to(link.parent.resolve())))
