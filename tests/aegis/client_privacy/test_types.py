"""What a site promises and what a coordinator promises are two things, for a reader, a parser and a type checker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from coreason_enclave.accounting import Accountant, ClientGuarantee, Guarantee
from coreason_enclave.errors import AccountingError, ConfigurationError
from coreason_enclave.policy import load_site_config
from coreason_enclave.schemas import ClientPrivacyConfig, NeighboringRelation, PrivacyConfig, PrivacyUnit, explain
from tests.aegis.client_privacy.conftest import CLIENT

ROOT = Path(__file__).resolve().parents[3]
NUMBERS: dict[str, Any] = {
    "epsilon": 1.0,
    "delta": 1e-5,
    "accountant": Accountant.PLD,
    "rdp_epsilon": 1.2,
    "neighboring_relation": NeighboringRelation.ADD_OR_REMOVE_ONE,
    "sampling": "poisson",
}


def test_a_job_cannot_ask_a_site_for_a_guarantee_per_client() -> None:
    with pytest.raises(ValidationError) as refused:
        PrivacyConfig.model_validate(
            {"mechanism": "DP_SGD", "target_epsilon": 1.0, "max_grad_norm": 1.0, "unit": "client"}
        )
    assert explain(refused.value).startswith("unit must be record or person, got 'client'")


def test_a_site_cannot_register_clients(federation: Any, tmp_path: Path) -> None:
    import tomli_w

    from tests.conftest import site_config

    document = site_config("clinic-1", federation.signer.public_hex).model_dump(mode="json", exclude_none=True)
    document["lineages"][0]["unit"] = "client"
    path = tmp_path / "site.toml"
    path.write_text(tomli_w.dumps(document))
    with pytest.raises(ConfigurationError, match=r"lineages\.0\.unit must be record or person, got 'client'"):
        load_site_config(path)


def test_the_two_guarantees_are_two_types_and_each_knows_its_unit() -> None:
    central, local = ClientGuarantee(**NUMBERS), Guarantee(**NUMBERS, unit=PrivacyUnit.PERSON)
    assert central.unit is PrivacyUnit.CLIENT
    assert not isinstance(central, Guarantee)
    assert not isinstance(local, ClientGuarantee)
    assert central != local
    with pytest.raises(AccountingError, match="use a ClientGuarantee for whole sites"):
        Guarantee(**NUMBERS, unit=PrivacyUnit.CLIENT)
    with pytest.raises(TypeError, match="unit"):
        ClientGuarantee(**NUMBERS, unit=PrivacyUnit.PERSON)  # type: ignore[call-arg]


@pytest.mark.parametrize("missing", CLIENT)
def test_nothing_of_the_promise_has_a_default(missing: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ClientPrivacyConfig.model_validate({name: value for name, value in CLIENT.items() if name != missing})
    assert explain(refused.value) == f"{missing} is required"


@pytest.mark.slow
def test_a_type_checker_refuses_one_for_the_other(tmp_path: Path) -> None:
    module = tmp_path / "mixed_up.py"
    module.write_text(
        "from coreason_enclave.accounting import ClientGuarantee, Guarantee\n"
        "def local(given: Guarantee) -> float:\n    return given.epsilon\n"
        "def central(given: ClientGuarantee) -> float:\n    return given.epsilon\n"
        "def right(one: Guarantee, other: ClientGuarantee) -> tuple[float, float]:\n"
        "    return local(one), central(other)\n"
        "def wrong(one: Guarantee, other: ClientGuarantee) -> tuple[float, float]:\n"
        "    return local(other), central(one)\n"
    )
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml"), str(module)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    errors = [line for line in checked.stdout.splitlines() if "error:" in line]
    assert [line.split(":")[1] for line in errors] == ["9", "9"], checked.stdout
