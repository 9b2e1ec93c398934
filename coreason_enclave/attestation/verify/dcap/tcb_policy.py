"""A relying party's conditions for an Intel platform, beyond a valid signature. Everything is off by default."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from pydantic import Field

from coreason_enclave.schemas import Flag, StrictModel, in_range
from coreason_enclave.system import end_of

_Advisory = Annotated[str, Field(pattern=r"^INTEL-[A-Z]{2,8}-[0-9]{5}$")]


class DcapPlatformPolicy(StrictModel):
    """Accepted states of an Intel platform. No policy accepts a revoked platform.

    The default accepts ``UpToDate`` without an open advisory, on a single-package platform without SMT.

    Attributes:
        accepted_advisories: Intel's names (``INTEL-SA-00615``) of mitigated or tolerated advisories. A status like
            ``SWHardeningNeeded`` or ``ConfigurationNeeded`` passes only if the list names every advisory of the status.
        out_of_date_until: Last day (UTC) on which an out-of-date platform passes, its advisories named.
        min_tcb_evaluation_data_number: Oldest of Intel's TCB recoveries that may judge the collateral.
        allow_dynamic_platform: Packages may join the platform after its registration.
        allow_cached_keys: Intel's registration service keeps the platform's root keys.
        allow_smt: Hardware threads share cores.

    Most multi-package servers set the last three.
    """

    accepted_advisories: tuple[_Advisory, ...] = ()
    out_of_date_until: date | None = None
    min_tcb_evaluation_data_number: Annotated[int, *in_range(0, (1 << 32) - 1)] = 0
    allow_dynamic_platform: Flag = False
    allow_cached_keys: Flag = False
    allow_smt: Flag = False

    def tolerates_out_of_date(self, now: int) -> bool:
        """Return True if the grace for an out-of-date platform runs at ``now`` (Unix seconds)."""
        return self.out_of_date_until is not None and now < end_of(self.out_of_date_until)
