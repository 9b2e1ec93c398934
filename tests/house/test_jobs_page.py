"""Every example of the page on jobs is a job, and the page names every field, kind and architecture."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from aegis.federation import load_job
from coreason_enclave.models import build, known_architectures
from coreason_enclave.models.registry import _REGISTRY
from coreason_enclave.schemas import FederationJob, PrivacyConfig, RegressionLoss, Task, TaskConfig

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "JOBS.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=[text.partition("\n")[0] for text in EXAMPLES])
def test_an_example_of_the_page_is_a_job_with_a_model(example: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(example, encoding="utf-8")
    job = load_job(tmp_path / "job.yaml")

    assert build(job.model_arch, job.model_args, job.task).task.kind is (job.task.kind if job.task else Task.BINARY)


def test_the_page_names_every_field() -> None:
    fields = {*FederationJob.model_fields, *PrivacyConfig.model_fields, *TaskConfig.model_fields} - {"version"}

    assert {name for name in fields if f"`{name}" not in PAGE and f"{name}:" not in PAGE} == set()
    assert {kind for kind in Task if f"| `{kind}` |" not in PAGE} == set()
    assert {loss for loss in RegressionLoss if f"`{loss}`" not in PAGE} == set()


def test_the_page_gives_the_arguments_and_the_kind_of_every_architecture() -> None:
    rows = {match[1]: match[0] for match in re.finditer(r"^\| `(\w+)` \| `.*$", PAGE, re.MULTILINE)}
    shipped = {
        name for name in known_architectures() if _REGISTRY[name].builder.__module__.startswith("coreason_enclave")
    }

    assert shipped <= rows.keys()
    for name in shipped:
        parameters = inspect.signature(_REGISTRY[name].builder).parameters
        assert {each for each in parameters if f"`{each}`" not in rows[name] and each != "classes"} == set(), name
        assert f"| `{_REGISTRY[name].task}` |" in rows[name], name
        stated = dict(re.findall(r"`(\w+)` \((\d+)\)", rows[name]))
        defaults = {key: str(each.default) for key, each in parameters.items() if each.default is not each.empty}
        assert {key: value for key, value in stated.items() if defaults.get(key) != value} == {}, name
