"""Every level that the library matched counts, whatever verdict it made of them."""

from __future__ import annotations

import pytest

from coreason_enclave.attestation.verify.dcap import DcapPlatformPolicy
from coreason_enclave.attestation.verify.dcap.library import Claims
from coreason_enclave.attestation.verify.dcap.platform import refuse_tcb
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused
from tests.coreason_enclave.attestation.dcap.hierarchy import NOW

LEVELS = ("tcb_level", "current_tcb_level", "qe")


def claims(where: str, status: str, *advisories: str) -> Claims:
    """What the library hands over where all is well but for the level at ``where``."""
    plain = {"tcbDate": "2025-01-01T00:00:00Z", "tcbStatus": "UpToDate", "advisoryIDs": []}
    odd = {**plain, "tcbStatus": status, "advisoryIDs": list(advisories)}
    levels = {name: odd if name == where else plain for name in LEVELS}
    pck = {"ppid": [1], "fmspc": [1], "sgx_type": 0, "platform_instance_id": None}
    flags = dict.fromkeys(("dynamic_platform", "cached_keys", "smt_enabled"), "False")
    return Claims.model_validate(
        {
            "tee_type": 0x81,
            "tcb": {"status": "UpToDate", "advisory_ids": [], "eval_data_number": 17},
            "platform": {name: levels[name] for name in LEVELS[:2]} | {"pck": {**pck, **flags}},
            "qe": {"tcb_level": levels["qe"]},
            "earliest_expiration_date": 0,
            "report": {},
        }
    )


@pytest.mark.parametrize("where", LEVELS)
@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("Revoked", Refusal.REVOKED),
        ("OutOfDate", Refusal.TCB_OUT_OF_DATE),
        ("TDRelaunchAdvised", Refusal.TCB_OUT_OF_DATE),
        ("SWHardeningNeeded", Refusal.TCB_ADVISORY),
        ("Excellent", Refusal.TCB_UNKNOWN),
    ],
)
def test_no_level_is_passed_over_even_if_the_library_were_content(where: str, status: str, code: Refusal) -> None:
    refuse_tcb(claims(where, "UpToDate"), DcapPlatformPolicy(), NOW)
    with pytest.raises(VerificationRefused) as refused:
        refuse_tcb(claims(where, status, "INTEL-SA-00999"), DcapPlatformPolicy(), NOW)
    assert refused.value.refusal is code


@pytest.mark.parametrize("where", LEVELS)
def test_an_advisory_of_any_level_has_to_be_named(where: str) -> None:
    with pytest.raises(VerificationRefused, match="INTEL-SA-00999") as refused:
        refuse_tcb(claims(where, "UpToDate", "INTEL-SA-00999"), DcapPlatformPolicy(), NOW)
    assert refused.value.refusal is Refusal.TCB_ADVISORY
    named = DcapPlatformPolicy(accepted_advisories=("INTEL-SA-00999",))
    refuse_tcb(claims(where, "SWHardeningNeeded", "INTEL-SA-00999"), named, NOW)
