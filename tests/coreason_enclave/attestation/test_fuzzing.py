"""The fuzzer damages everything, finds nothing, and would find something if it were there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coreason_enclave.attestation.verify.nvidia.opaque import parse_opaque
from tests.coreason_enclave.attestation.nvidia.hierarchy import FIELDS, opaque
from tests.coreason_enclave.attestation.targets import all_targets, anything, same
from tools.fuzz_attestation import Target, fuzz


def test_nothing_but_refusals_comes_of_damaged_evidence() -> None:
    tally = fuzz(all_targets(None), seconds=1.5, seed=7)
    assert tally.findings == 0
    assert tally.executions > 50


def test_a_reader_that_crashes_or_believes_too_much_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    believes = Target("fields", opaque(FIELDS), lambda data: len(parse_opaque(data).fields), same)
    crashes = replace(believes, name="index", read=lambda data: data[100], believes=anything)
    for target in (believes, crashes):
        assert fuzz([target], seconds=5, seed=7).findings > 0
    assert "believed damaged bytes" in capsys.readouterr().out
