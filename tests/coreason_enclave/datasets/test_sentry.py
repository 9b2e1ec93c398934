from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coreason_enclave.accounting.events import PoissonSampledGaussian
from coreason_enclave.errors import ConfigurationError, DataLeakageError, DatasetRejected, Reason
from coreason_enclave.schemas import PrivacyUnit
from coreason_enclave.sentry import DataSentry, DatasetExpectation
from coreason_enclave.wire.updates import TrainedUpdate

LAYOUT = {"linear.weight": (1, 2), "linear.bias": (1,)}
PARAMS = {"linear.weight": np.ones((1, 2), np.float32), "linear.bias": np.zeros(1, np.float32)}


@pytest.fixture
def sentry(data_root: Path) -> DataSentry:
    return DataSentry(data_root)


def test_a_dataset_that_meets_expectations_is_handed_over(sentry: DataSentry, write_dataset: Any) -> None:
    write_dataset()
    expected = DatasetExpectation(sample_shape=(2,), classes=2, unit=PrivacyUnit.PERSON, public=False)
    assert sentry.validate_input("clinic/visits", expected=expected).digest == sentry.open("clinic/visits").digest


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (DatasetExpectation(sample_shape=(3,)), "sample_shape must be (3,)"),
        (DatasetExpectation(classes=10), "classes must be 10"),
        (DatasetExpectation(unit=PrivacyUnit.RECORD), "unit must be record"),
        (DatasetExpectation(public=True), "public must be True"),
    ],
)
def test_a_dataset_that_disappoints_is_refused(
    sentry: DataSentry, write_dataset: Any, expected: DatasetExpectation, message: str
) -> None:
    write_dataset()
    with pytest.raises(DatasetRejected) as refused:
        sentry.validate_input("clinic/visits", expected=expected)
    assert message in str(refused.value)


def test_a_training_loop_that_writes_into_its_rows_does_not_change_the_next_rounds(
    sentry: DataSentry, write_dataset: Any
) -> None:
    write_dataset()
    first = sentry.open("clinic/visits")
    before = first.features.copy()
    first.features[:] = 7.0
    first.labels[:] = 0
    again = sentry.open("clinic/visits")
    assert np.array_equal(again.features, before)
    assert np.array_equal(again.labels, DataSentry(sentry.data_root).open("clinic/visits").labels)


def test_rows_that_changed_on_disk_are_read_and_checked_anew(sentry: DataSentry, write_dataset: Any) -> None:
    folder = write_dataset()
    digest = sentry.open("clinic/visits").digest
    lines = (folder / "rows.csv").read_text().splitlines()
    (folder / "rows.csv").write_text("\n".join([*lines, lines[-1]]) + "\n")
    changed = sentry.open("clinic/visits")
    assert changed.digest != digest
    assert len(changed) == len(lines)
    (folder / "rows.csv").write_text(lines[0] + "\nnot,a,row\n")
    with pytest.raises(DatasetRejected):
        sentry.open("clinic/visits")


def test_a_climb_out_of_the_data_root_is_refused(sentry: DataSentry) -> None:
    with pytest.raises(DatasetRejected) as refused:
        sentry.validate_input("../../etc")
    assert refused.value.reason is Reason.DATASET_PATH


def test_a_sentry_without_a_data_root_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="data root"):
        DataSentry(tmp_path / "absent").open("clinic")


def test_the_dataset_size_cap_is_the_sites_own(data_root: Path, write_dataset: Any) -> None:
    write_dataset()
    with pytest.raises(DatasetRejected, match="larger than 5 bytes"):
        DataSentry(data_root, max_dataset_bytes=5).open("clinic/visits")


def test_tensors_and_arrays_leave_as_float32_arrays_under_clean_names(sentry: DataSentry) -> None:
    weight = torch.nn.Parameter(torch.tensor([[1.5, -0.0]], dtype=torch.float64))
    output = sentry.sanitize_output(
        {"params": {"_module.linear.weight": weight, "module.linear.bias": np.ones(1)}, "metrics": {"epsilon": 2}}
    )
    assert {name: (array.dtype, array.tolist()) for name, array in output["params"].items()} == {
        "linear.weight": (np.float32, [[1.5, -0.0]]),
        "linear.bias": (np.float32, [1.0]),
    }
    assert output["metrics"] == {"epsilon": 2.0}


def test_what_left_shares_no_memory_with_the_model(sentry: DataSentry) -> None:
    weight = torch.zeros(3)
    left = sentry.sanitize_output({"params": {"w": weight}})["params"]["w"]
    weight += 7
    assert left.tolist() == [0, 0, 0]
    assert left.base is None


OUTPUTS: dict[str, object] = {
    "nothing": None,
    "a list": [("params", PARAMS)],
    "no params": {"metrics": {}},
    "empty params": {"params": {}, "metrics": {}},
    "another key": {"params": PARAMS, "metrics": {}, "predictions": [0.1]},
    "a key that is no text": {"params": PARAMS, 7: {}},
    "params as a list": {"params": [np.ones(1)], "metrics": {}},
    "metrics as a list": {"params": PARAMS, "metrics": [("epsilon", 1.0)]},
    "metrics as None": {"params": PARAMS, "metrics": None},
    "a loss": {"params": PARAMS, "metrics": {"loss": 0.1}},
    "an accuracy": {"params": PARAMS, "metrics": {"accuracy": 0.9}},
    "an exact count": {"params": PARAMS, "metrics": {"num_examples": 1187}},
    "names that collide": {"params": {"w": np.ones(1), "_module.w": np.ones(1)}},
    "a name that is a sentence": {"params": {"patient 7 has it": np.ones(1)}},
    "a counter of batches": {"params": {"bn.num_batches_tracked": torch.tensor(17)}},
    "a tensor of rows as integers": {"params": {"w": torch.arange(9)}},
    "truth values": {"params": {"w": np.ones(1, bool)}},
    "objects": {"params": {"w": np.array([object()])}},
    "a nested mapping": {"params": {"w": {"deeper": np.ones(1)}}},
    "a list of numbers": {"params": {"w": [1.0]}},
    "bytes": {"params": {"w": b"rows"}},
    "a masked array": {"params": {"w": np.ma.masked_array(np.ones(1), mask=[True])}},
    "a matrix subclass": {"params": {"w": np.ones((1, 1)).view(np.matrix)}},
    "a bfloat16 tensor, which numpy cannot hold": {"params": {"w": torch.ones(1, dtype=torch.bfloat16)}},
    "a sparse tensor": {"params": {"w": torch.ones(2, 2).to_sparse()}},
    "a tensor without memory": {"params": {"w": torch.ones(1, device="meta")}},
    "a NaN": {"params": {"w": np.array([np.nan])}},
    "a float64 beyond float32": {"params": {"w": np.array([1e300])}},
}


@pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS.keys())
def test_nothing_but_permitted_weights_and_metrics_leaves(sentry: DataSentry, output: Any) -> None:
    with pytest.raises(DataLeakageError):
        sentry.sanitize_output(output)


def test_the_size_cap_holds_for_a_stand_alone_sentry(data_root: Path) -> None:
    with pytest.raises(DataLeakageError) as refused:
        DataSentry(data_root, max_update_bytes=11).sanitize_output({"params": PARAMS})
    assert refused.value.reason is Reason.OVERSIZED


BOUND_REFUSALS: dict[str, tuple[dict[str, Any], Reason]] = {
    "an extra name": ({**PARAMS, "rows": np.ones(1, np.float32)}, Reason.WRONG_SHAPES),
    "a missing name": ({"linear.bias": np.ones(1, np.float32)}, Reason.WRONG_SHAPES),
    "another shape": ({**PARAMS, "linear.bias": np.ones(2, np.float32)}, Reason.WRONG_SHAPES),
    "another type": ({**PARAMS, "linear.bias": np.ones(1)}, Reason.LEAKAGE),
    "too large a norm": ({**PARAMS, "linear.bias": np.full(1, 10, np.float32)}, Reason.NORM_EXCEEDED),
}


@pytest.mark.parametrize(("params", "reason"), BOUND_REFUSALS.values(), ids=BOUND_REFUSALS.keys())
def test_a_sentry_bound_to_a_job_checks_layout_and_norm_too(
    sentry: DataSentry, params: dict[str, Any], reason: Reason
) -> None:
    bound = sentry.bound_to(layout=LAYOUT, max_norm=9.0)
    assert bound.sanitize_output({"params": PARAMS})["params"].keys() == LAYOUT.keys()
    with pytest.raises(DataLeakageError) as refused:
        bound.sanitize_output({"params": params})
    assert refused.value.reason is reason


def test_binding_leaves_the_original_sentry_as_it_was(sentry: DataSentry) -> None:
    sentry.bound_to(layout=LAYOUT, max_norm=1e-9)
    assert sentry.sanitize_output({"params": PARAMS})


def test_release_applies_the_airlock_with_the_sites_size_cap(data_root: Path) -> None:
    trained = TrainedUpdate(PARAMS, PoissonSampledGaussian(1.0, 0.1, 6), {})
    assert DataSentry(data_root).release(trained, layout=LAYOUT, max_norm=9.0).payload
    with pytest.raises(DataLeakageError) as refused:
        DataSentry(data_root, max_update_bytes=11).release(trained, layout=LAYOUT, max_norm=9.0)
    assert refused.value.reason is Reason.OVERSIZED


KEYS = st.text(max_size=12) | st.integers() | st.none()
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.binary() | st.just(np.ones(2)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["params", "metrics", "rows"]), ANYTHING) | ANYTHING)
def test_whatever_is_offered_the_sentry_answers_with_a_clean_output_or_a_typed_refusal(offered: Any) -> None:
    try:
        output = DataSentry(Path()).sanitize_output(offered)
    except DataLeakageError:
        return
    assert output.keys() == {"params", "metrics"}
    assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in output["params"].values())
    assert output["metrics"].keys() <= {"epsilon", "delta", "steps", "sample_rate", "noise_multiplier", "nominal_units"}


def test_importing_the_sentry_imports_neither_torch_nor_pyarrow() -> None:
    program = "import sys, coreason_enclave.sentry; print({'pandas', 'pyarrow', 'torch'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
