"""``aegis predict``, ``evaluate``, ``runs`` and ``plan`` at the command line: what they print, and wrong inputs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aegis.cli import main
from aegis.federation.job_files import dump_job
from aegis.studies import Study


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def _beside(study: Study, name: str, text: str | bytes) -> Path:
    path = study.path.parent / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def _rows(study: Study) -> str:
    return (study.path.parent / "north.csv").read_text()


def test_prediction_writes_one_line_a_row(small_study: Study, tmp_path: Path) -> None:
    answer = invoke("predict", small_study.latest, small_study.path.parent / "north.csv", "--out", tmp_path / "p.csv")
    assert (answer.exit_code, answer.output) == (0, f"80 rows predicted: {tmp_path / 'p.csv'}\n")
    assert (tmp_path / "p.csv").read_text().startswith("row,probability:0,probability:1\n1,")


def test_evaluation_says_what_was_resampled_and_draws(small_study: Study, tmp_path: Path) -> None:
    rows = small_study.path.parent / "north.csv"
    answer = invoke("evaluate", small_study.latest, rows, "--samples", "20", "--plots", tmp_path / "plots")
    assert answer.exit_code == 0, answer.output
    assert "bootstrap over persons, 20 resamples" in answer.output
    assert "baseline: the shares of the classes in these rows" in answer.output
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"roc.png", "calibration.png", "confusion.png"}


def test_runs_are_listed_with_the_changed_entries(small_study: Study) -> None:
    _second_run(small_study)
    answer = invoke("runs", small_study.path)
    assert answer.exit_code == 0, answer.output
    assert "learning_rate 0.3 -> 0.5" in answer.output
    listed = json.loads(invoke("runs", small_study.runs, "--json").output)["runs"]
    assert [run["state"] for run in listed] == ["finished", "unfinished"]
    assert listed[1]["changed"] == {"learning_rate": [0.3, 0.5]}
    assert listed[0]["epsilon"] > 0
    assert listed[0]["provenance"] == "simulated"


def test_runs_are_compared_entry_by_entry_with_a_picture(small_study: Study, tmp_path: Path) -> None:
    second = _second_run(small_study)
    measures = {"auc": {"value": 0.6, "low": 0.5, "high": 0.7}}
    (second / "evaluation.json").write_text(json.dumps({"measures": measures}))
    answer = invoke("runs", "compare", small_study.run(1).path, second, "--plot", tmp_path / "both.png")
    assert answer.exit_code == 0, answer.output
    assert "(0.500 to 0.700)" in answer.output
    assert (tmp_path / "both.png").stat().st_size > 1000
    document = json.loads(invoke("runs", "compare", small_study.run(1).path, second, "--json").output)
    assert document["different"] == {"learning_rate": [0.3, 0.5]}


def test_run_whose_records_cannot_be_read_is_listed_as_failed(small_study: Study) -> None:
    second = _second_run(small_study)
    (second / "state" / "state.json").write_text("{")
    assert [run["state"] for run in json.loads(invoke("runs", small_study.path, "--json").output)["runs"]] == [
        "finished",
        "failed",
    ]


def _second_run(study: Study) -> Path:
    second = study.runs / "2"
    shutil.copytree(study.run(1).path, second)
    (second / "outcome.json").unlink()
    job = study.run(1).job().model_copy(update={"learning_rate": 0.5})
    (second / "job.yaml").write_text(dump_job(job))
    return second


def test_plan_ends_with_0_for_a_job_that_would_run_and_3_for_a_refused_one(small_study: Study) -> None:
    answer = invoke("plan", small_study.path, "--json")
    assert answer.exit_code == 0
    assert json.loads(answer.output)["would_run"] is True
    answer = invoke("plan", small_study.path, "--set", "privacy.noise_multiplier=0.5")
    assert answer.exit_code == 3
    assert "any one of these changes fits" in answer.output
    assert "it would be REFUSED" in answer.output


def test_plan_takes_a_job_file_with_its_federation(small_study: Study) -> None:
    job = _beside(small_study, "job.yaml", dump_job(small_study.job()))
    assert invoke("plan", job, "--federation", small_study.path).exit_code == 0


def _finished(study: Study) -> Path:
    return study.run(1).path


def _unfinished(study: Study) -> tuple[str | Path, ...]:
    (_finished(study) / "outcome.json").unlink()
    return "predict", study.latest, study.path.parent / "north.csv"


def _other_model(study: Study) -> tuple[str | Path, ...]:
    model = _finished(study) / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1] + b"\x7f")
    return "predict", study.latest, study.path.parent / "north.csv"


def _damaged_model(study: Study) -> tuple[str | Path, ...]:
    (_finished(study) / "model.safetensors").write_bytes(b"nothing")
    return "predict", study.latest, study.path.parent / "north.csv"


def _no_dictionary(study: Study) -> tuple[str | Path, ...]:
    (study.path / "dictionary.toml").unlink()
    (study.latest / "dictionary.toml").unlink(missing_ok=True)
    return "predict", study.latest, study.path.parent / "north.csv"


def _other_dictionary(study: Study) -> tuple[str | Path, ...]:
    path = study.latest / "dictionary.toml"
    path.write_text((study.path / "dictionary.toml").read_text() + '\n[[features]]\nname = "more"\nlow = 0\nhigh = 1\n')
    return "predict", study.latest, study.path.parent / "north.csv"


def _predict(name: str, change: Callable[[str], str | bytes]) -> Callable[[Study], tuple[str | Path, ...]]:
    return lambda study: ("predict", study.latest, _beside(study, name, change(_rows(study))))


def _evaluate(*options: str, change: Callable[[str], str] = str) -> Callable[[Study], tuple[str | Path, ...]]:
    return lambda study: ("evaluate", study.latest, _beside(study, "rows.csv", change(_rows(study))), *options)


def _without_label(text: str) -> str:
    return "".join(f"{line.rsplit(',', 1)[0]}\n" for line in text.splitlines())


WRONG: dict[str, tuple[Callable[[Study], tuple[str | Path, ...]], str]] = {
    "unfinished run": (_unfinished, "holds an unfinished run"),
    "no run": (lambda study: ("predict", study.path.parent, study.path.parent / "north.csv"), "is not a run folder"),
    "study for a run": (lambda study: ("predict", study.path, study.path.parent / "north.csv"), "name one of its runs"),
    "other model": (_other_model, "is not the model that"),
    "damaged model": (_damaged_model, "cannot be read as a model"),
    "no dictionary": (_no_dictionary, "has no dictionary.toml"),
    "other dictionary": (_other_dictionary, "does not describe the rows of this model"),
    "missing column": (
        _predict("a.csv", lambda text: text.replace("age", "agee", 1)),
        "has no column 'age': did you mean 'agee'?",
    ),
    "other case": (_predict("a.csv", lambda text: text.replace("age", "AGE", 1)), "did you mean 'AGE'?"),
    "empty file": (_predict("a.csv", lambda _: ""), "a.csv is empty"),
    "header alone": (_predict("a.csv", lambda text: text.splitlines()[0]), "no rows"),
    "words for numbers": (_predict("a.csv", lambda text: text.replace(",b,", ",b,x")), "column 'risk'"),
    "uneven rows": (_predict("a.csv", lambda text: text + "p,1\n"), "has 2 cells"),
    "workbook": (_predict("a.xlsx", lambda _: b"PK\x03\x04xl/"), "is a workbook or an archive"),
    "out in a run": (
        lambda study: (
            *("predict", study.latest, study.path.parent / "north.csv"),
            *("--out", _finished(study) / "metrics.csv"),
        ),
        "lies in the run's folder",
    ),
    "out over the rows": (
        lambda study: (
            *("predict", study.latest, study.path.parent / "north.csv"),
            *("--out", study.path.parent / "north.csv"),
        ),
        "would replace the rows",
    ),
    "no label": (_evaluate(change=_without_label), "has no column 'sick'"),
    "missing label": (_evaluate(change=lambda text: text + "p9,30,a,60,\n"), "every row needs a label"),
    "unknown class": (_evaluate(change=lambda text: text + "p9,30,a,60,7\n"), "not a whole number from 0 to 1"),
    "no group": (_evaluate("--group", "ward"), "has no column 'ward'"),
    "no samples": (_evaluate("--samples", "0"), "--samples"),
    "no study": (lambda study: ("plan", study.path / "sites"), "holds no study.toml"),
    "unknown entry": (lambda study: ("plan", study.path, "--set", "privacy.epsilon=1"), "privacy.epsilon"),
    "job without federation": (lambda study: ("plan", study.path / "study.toml"), "--federation"),
    "no runs": (lambda study: ("runs", study.path / "sites"), "neither a study"),
    "one run": (lambda study: ("runs", "compare", study.latest, _finished(study)), "two different runs"),
    "no run to compare": (lambda study: ("runs", "compare", study.path, study.latest), "is not a run folder"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_ends_in_one_line_and_writes_nothing(
    case: str, small_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, words = WRONG[case]
    arguments = prepare(small_study)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    answer = invoke(*arguments)
    assert (answer.exit_code, len(answer.output.splitlines())) == (2, 1), answer.output
    assert words in answer.output
    assert list((tmp_path / "here").iterdir()) == []


def test_rows_with_one_class_have_no_area_under_the_curve(small_study: Study) -> None:
    lines = _rows(small_study).splitlines()
    rows = _beside(small_study, "healthy.csv", "\n".join([lines[0], *(row for row in lines[1:] if row.endswith(",0"))]))
    answer = invoke("evaluate", small_study.latest, rows, "--samples", "5", "--json")
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.output)["measures"].keys() == {"accuracy", "loss"}
