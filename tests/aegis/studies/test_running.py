"""A study's runs: numbers, crashes, baselines, and the results under the signed manifest."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w

from aegis.errors import AegisError, InvalidJob, InvalidStudy, RunFolderError, RunRefused
from aegis.runs import RunFolder, RuntimeName
from aegis.studies import (
    Context,
    Interval,
    Simulation,
    Study,
    StudyResult,
    headline,
    list_runs,
    run_study,
    write_groups,
)
from aegis.verification import Conclusion, Reference, verify_run
from coreason_enclave.datasets import open_dataset
from coreason_enclave.ledger import verify_export
from coreason_enclave.schemas import Mechanism
from tests.aegis.studies.conftest import SMALL

Maker = Callable[[str], Study]


class Killed(BaseException):
    """The process ends here."""


def in_process(study: Study, **options: object) -> StudyResult:
    options.setdefault("changes", SMALL)
    return run_study(study, runtime=RuntimeName.IN_PROCESS, **options)  # type: ignore[arg-type]


def conclusion(study: Study) -> Conclusion:
    return verify_run(study.latest.resolve(), Reference(None, None, {}, ())).conclusion


def test_run_leaves_results_that_verify_until_one_is_changed(study: Maker) -> None:
    own = study("binary")
    result = in_process(own)

    folder = own.latest.resolve()
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"summary.md", "model_card.md", "metrics.csv", "dictionary.toml", "dataset.json"} <= names
    assert {
        f"plots/{name}.png" for name in ("utility", "epsilon", "updates", "roc", "calibration", "confusion")
    } <= names
    assert RunFolder(folder / "twin").job().privacy.mechanism is Mechanism.NON_PRIVATE
    assert result.twin
    assert result.measures["auc"].low is not None
    assert conclusion(own) is Conclusion.VERIFIED

    for name in ("summary.md", "model_card.md", "plots/roc.png"):
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes(kept + b"\n")
        assert conclusion(own) is Conclusion.NOT_VERIFIED, name
        (folder / name).write_bytes(kept)
    assert conclusion(own) is Conclusion.VERIFIED


def test_run_and_pages_state_spent_reserved_and_left_in_one_way(study: Maker) -> None:
    own = study("binary")
    result = in_process(own, baseline=False)

    spent = {each.spent for each in result.accounts}
    assert spent == set(result.history[-1].epsilon.values())
    assert all(each.reserved == each.spent and each.left is not None and 0 < each.left < 1 for each in result.accounts)
    words = f"epsilon {max(filter(None, spent)):.3f} spent"
    assert any(words in line for line in headline(result))
    assert words in (own.latest / "summary.md").read_text(encoding="utf-8")
    assert "*Reserved*" in (own.latest / "model_card.md").read_text(encoding="utf-8")


def _during_a_round(own: Study, _: pytest.MonkeyPatch) -> dict[str, object]:
    def die(_report: object) -> None:
        raise Killed

    return {"observe": die}


def _at(module: str) -> Callable[[Study, pytest.MonkeyPatch], dict[str, object]]:
    def place(_: Study, patch: pytest.MonkeyPatch) -> dict[str, object]:
        def die(*_args: object, **_named: object) -> None:
            raise Killed

        patch.setattr(module, die)
        return {}

    return place


@pytest.mark.parametrize(
    "place",
    [
        _during_a_round,
        pytest.param(_at("aegis.studies.running.baseline_of"), marks=pytest.mark.slow),
        pytest.param(_at("aegis.studies.running.collect"), marks=pytest.mark.slow),
        pytest.param(_at("aegis.studies.running.sign_manifest"), marks=pytest.mark.slow),
        _at("aegis.studies.running.replace_file"),
        pytest.param(_at("aegis.studies.study.Study._point"), marks=pytest.mark.slow),
    ],
    ids=[
        "during a round",
        "before the baseline",
        "before the results",
        "before the manifest",
        "before the pages",
        "link",
    ],
)
def test_killed_run_goes_on_with_the_same_command(
    study: Maker, place: Callable[[Study, pytest.MonkeyPatch], dict[str, object]]
) -> None:
    own = study("binary")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        in_process(own, **place(own, patch))

    result = in_process(own)

    assert own.numbers() == [1]
    assert result.run.path == own.latest.resolve()
    assert len(result.history) == 2
    assert conclusion(own) is Conclusion.VERIFIED


def test_folder_of_a_run_appears_whole(study: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    own = study("binary")

    def die(*_args: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("aegis.studies.study.Study._dataset", die)
        with pytest.raises(Killed):
            own.choose_run(own.job(SMALL), {})
    assert own.numbers() == []

    own.choose_run(own.job(SMALL), {})
    assert own.numbers() == [1]
    assert not list(own.runs.glob(".new-*"))


def test_changed_study_is_a_new_run_and_says_why_the_old_one_stays(study: Maker) -> None:
    own = study("binary")
    with pytest.raises(Killed):
        in_process(own, **_during_a_round(own, pytest.MonkeyPatch()))
    document = tomllib.loads((own.path / "study.toml").read_text(encoding="utf-8"))
    document["job"]["learning_rate"] = 0.1
    (own.path / "study.toml").write_text(tomli_w.dumps(document), encoding="utf-8")
    said: list[str] = []

    result = in_process(own, say=said.append, baseline=False)

    assert own.numbers() == [1, 2]
    assert own.latest.resolve().name == "2"
    assert result.job.job_id == "doses-2"
    assert any("run 1 stays unfinished" in line and "another job" in line for line in said)


REFUSED = {
    "more epsilon than any site allows": "privacy.target_epsilon=900",
    "less noise than its own cap needs": "privacy.noise_multiplier=0.2",
}


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED)
def test_run_that_the_sites_refuse_is_marked_and_the_next_command_is_a_fresh_run(study: Maker, change: str) -> None:
    own, said = study("binary"), list[str]()
    with pytest.raises(RunRefused):
        in_process(own, changes=[*SMALL, change], baseline=False)
    assert not own.latest.is_symlink()

    in_process(own, say=said.append, baseline=False)
    assert any("run 1 stays refused: it began with another job" in line for line in said)
    assert own.latest.resolve().name == "2"

    with pytest.raises(RunRefused):
        in_process(own, changes=[*SMALL, change], baseline=False)
    assert own.latest.resolve().name == "2"
    listed = list_runs(own.path)
    assert [each.state for each in listed] == ["refused", "finished", "refused"]
    assert all("waiting does not help" in (each.refusal or "") for each in listed if each.state == "refused")


def test_refused_run_goes_on_with_the_same_command_once_a_person_has_removed_the_cause(study: Maker) -> None:
    own = study("binary")
    changed = {path: path.read_text() for path in own.path.glob("sites/*/site.toml")}
    for path, text in changed.items():
        path.write_text(text.replace("min_noise_multiplier = 0.1", "min_noise_multiplier = 90.0"))
    with pytest.raises(RunRefused):
        in_process(own, baseline=False)
    assert own.run(1).is_refused
    for path, text in changed.items():
        path.write_text(text)

    result = in_process(own, baseline=False)

    assert own.numbers() == [1]
    assert not own.run(1).is_refused
    assert result.run.path == own.latest.resolve()
    assert conclusion(own) is Conclusion.VERIFIED


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("learning_rat=0.1", "learning_rat"),
        ("rounds=none", "rounds"),
        ("job_id=other", "job_id"),
        ("rounds", "entry=value"),
        ("rounds.more=1", "is a value, not a table"),
    ],
)
def test_wrong_change_is_refused_in_one_line_and_starts_nothing(study: Maker, change: str, words: str) -> None:
    own = study("binary")
    with pytest.raises(InvalidJob, match=words) as refusal:
        in_process(own, changes=[change])
    assert "\n" not in str(refusal.value)
    assert not own.runs.exists()


def test_folder_without_a_study_names_the_command_that_creates_one(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(InvalidStudy, match="aegis init"):
        in_process(Study(tmp_path_factory.mktemp("empty")))


def test_rows_that_are_not_public_get_no_baseline(study: Maker) -> None:
    own = study("binary")
    config = own.federation().config()
    said = in_process(own, baseline=False)
    assert "--no-baseline" in (said.no_twin or "")
    assert not (own.latest / "twin").exists()

    from aegis.studies.baseline import why_no_baseline

    assert why_no_baseline(said.job, own.federation()) is None
    own.federation().create(config.model_copy(update={"public_keys": {**config.public_keys, "west": "ab" * 32}}))
    assert why_no_baseline(said.job, own.federation()) == "the rows of west are not on this machine"


@pytest.mark.parametrize(
    ("label", "pictures"),
    [
        ("multiclass", {"confusion.png", "calibration.png"}),
        ("regression", {"residuals.png"}),
        pytest.param("count", {"residuals.png"}, marks=pytest.mark.slow),
    ],
)
def test_every_task_has_its_measures_and_pictures(study: Maker, label: str, pictures: set[str]) -> None:
    own = study(label)
    result = in_process(own, baseline=False)

    drawn = {path.name for path in (own.latest / "plots").iterdir()}
    assert drawn == pictures | {"utility.png", "epsilon.png", "updates.png"}
    assert result.main_measure in result.measures
    assert all((own.latest / "plots" / name).read_bytes().startswith(b"\x89PNG") for name in drawn)
    summary = (own.latest / "summary.md").read_text(encoding="utf-8")
    assert all(f"plots/{name}" in summary for name in drawn)
    if label == "regression":  # in the label's own unit, as the scaled error times half the declared range
        low, high = result.dictionary.label.low, result.dictionary.label.high
        assert low is not None
        assert high is not None
        scaled = result.history[-1].metrics["rmse"]
        assert result.measures["rmse"].value == pytest.approx(scaled * (high - low) / 2, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", [RuntimeName.FLOWER, RuntimeName.NVFLARE])
def test_study_runs_over_processes(study: Maker, runtime: RuntimeName) -> None:
    own = study("binary")
    result = run_study(own, changes=SMALL, runtime=runtime)

    assert result.twin
    assert conclusion(own) is Conclusion.VERIFIED


def test_job_that_is_refused_before_it_begins_leaves_no_run(study: Maker) -> None:
    made = study("binary")
    in_process(made, baseline=False)

    with pytest.raises(AegisError):
        in_process(made, changes=[*SMALL, "aggregator=trimmed_mean"], baseline=False)

    assert made.numbers() == [1]
    assert made.latest.readlink() == Path("1")


# --- repetitions on new simulated sites --------------------------------------------------------------------------


def test_repetitions_have_keys_of_their_own_and_spend_nothing_of_the_studys_sites(study: Maker) -> None:
    own = study("binary")
    result = in_process(own, baseline=False, simulation=Simulation(repeats=2))

    runs = [own.latest.resolve(), *(own.latest.resolve() / "repeats" / number for number in ("1", "2"))]
    models = {(run / "model.safetensors").read_bytes() for run in runs}
    assert len(models) == 3
    keys = [json.loads((run / "config.json").read_text())["participants"] for run in runs]
    assert len({key for each in keys for key in each.values()}) == 3 * len(keys[0])
    ledgers = [verify_export((run / "ledger" / f"{site}.json").read_bytes()) for run in runs for site in keys[0]]
    assert len({each.ledger_id for each in ledgers}) == len(ledgers)
    assert len(result.of_runs("auc")) == 3
    assert "Over 3 runs with new keys: auc" in (own.latest / "summary.md").read_text(encoding="utf-8")
    assert conclusion(own) is Conclusion.VERIFIED


def test_a_run_killed_between_repetitions_goes_on_with_those_that_remain(
    study: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, said = study("binary"), []

    def die_after_one(line: str) -> None:
        said.append(line)
        if line.startswith("repetition 1 of 2"):
            raise Killed

    with pytest.raises(Killed):
        in_process(own, baseline=False, simulation=Simulation(repeats=2), say=die_after_one)
    first = (own.latest / "repeats" / "1" / "model.safetensors").read_bytes()
    in_process(own, baseline=False, simulation=Simulation(repeats=2))

    assert own.numbers() == [1]
    assert (own.latest / "repeats" / "1" / "model.safetensors").read_bytes() == first


def test_other_repetitions_are_a_new_run(study: Maker) -> None:
    own, said = study("binary"), []
    with pytest.raises(Killed):
        in_process(own, **_during_a_round(own, pytest.MonkeyPatch()))
    in_process(own, baseline=False, simulation=Simulation(repeats=1), say=said.append)

    assert own.numbers() == [1, 2]
    assert any("another choice of baseline, another seed, or other numbers of attackers" in line for line in said)


def test_a_job_without_privacy_is_not_repeated(study: Maker) -> None:
    own = study("binary")
    with pytest.raises(InvalidStudy, match=r"--repeats copies simulated sites .* the job itself is without privacy"):
        in_process(own, changes=[*SMALL, 'privacy={mechanism="NON_PRIVATE"}'], simulation=Simulation(repeats=1))
    assert own.numbers() == []


@pytest.mark.parametrize("repeats", [-1, 51])
def test_an_impossible_number_of_repetitions_is_refused(repeats: int, study: Maker) -> None:
    own = study("binary")
    with pytest.raises(InvalidStudy, match="--repeats takes 0 to 50"):
        in_process(own, simulation=Simulation(repeats=repeats))
    assert own.numbers() == []


# --- what the owner adds to the pages ----------------------------------------------------------------------------


def test_other_models_and_notes_stand_in_the_summary_under_the_signed_manifest(study: Maker) -> None:
    own = study("binary")
    other = {"a model of last year": {"auc": Interval(0.625, 0.5, 0.75)}}
    result = in_process(own, baseline=False, context=Context(lambda: other, ["A note."], ["A limit."]))

    page = (own.latest / "summary.md").read_text(encoding="utf-8")
    assert "For comparison, a model of last year: auc 0.6250 (0.5000 to 0.7500)." in page
    assert "\nA note.\n" in page
    assert "\n- A limit.\n" in page
    assert result.to_dict()["references"]["a model of last year"]["auc"]["value"] == 0.625
    assert conclusion(own) is Conclusion.VERIFIED


def test_intervals_draw_groups_where_the_study_keeps_groups_together(study: Maker) -> None:
    own = study("binary")
    labels = open_dataset(own.held_out_rows, own.dictionary().dataset_id).labels
    alone = in_process(own, baseline=False)
    groups = [number // 9 for number in range(len(labels))]
    write_groups(own.held_out_rows, groups)
    together = in_process(own, baseline=False)

    assert alone.predictions is not None
    assert together.predictions is not None
    assert (alone.predictions.resampled, together.predictions.resampled) == ("persons", "groups")
    assert together.predictions.units is not None
    assert together.predictions.units.tolist() == groups
    assert alone.measures["loss"].low != together.measures["loss"].low
    assert "bootstrap over held-out groups" in (own.latest / "summary.md").read_text(encoding="utf-8")
    write_groups(own.held_out_rows, [1, 2])
    with pytest.raises(RunFolderError, match="must hold a group for each of the"):
        in_process(own, baseline=False)


def test_seed_and_attackers_reach_every_part_of_a_run_and_are_named(study: Maker) -> None:
    own = study("binary")
    result = in_process(own, simulation=Simulation(unsafe_seed=7, attackers=1, repeats=1))

    run = own.latest.resolve()
    options = {
        part: json.loads((run / part / "config.json").read_text())["options"] for part in ("", "twin", "repeats/1")
    }
    assert {part: each["simulated_attackers"] for part, each in options.items()} == dict.fromkeys(options, 1)
    assert [options[part]["unsafe_seed"] for part in ("", "twin", "repeats/1")] == [7, 7, 8]
    assert result.attackers == [min(json.loads((run / "config.json").read_text())["participants"])]
    page = (run / "summary.md").read_text(encoding="utf-8")
    assert f"A SIMULATED attacker controlled {result.attackers[0]}" in page
    assert "every epsilon of this run is void" in page
