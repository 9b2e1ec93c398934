"""What a relying party accepts of an Intel platform beyond a valid signature. Everything is off by default."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from pydantic import Field

from coreason_enclave.schemas import Flag, StrictModel, in_range
from coreason_enclave.system.timestamps import end_of

__all__ = ["DcapPlatformPolicy"]

_Advisory = Annotated[str, Field(pattern=r"^INTEL-[A-Z]{2,8}-[0-9]{5}$")]


class DcapPlatformPolicy(StrictModel):
    """The default accepts ``UpToDate`` without an open advisory, on a single-package platform without SMT.

    Attributes:
        accepted_advisories: Intel's names (``INTEL-SA-00615``) of what was mitigated or is tolerated. A status such as
            ``SWHardeningNeeded`` or ``ConfigurationNeeded`` is accepted only where every advisory of it is named here.
        out_of_date_until: the last day (UTC) on which an out-of-date platform is still accepted, its advisories named.
        min_tcb_evaluation_data_number: the oldest of Intel's TCB recoveries that the collateral may be judged by.
        allow_dynamic_platform: packages may be added to the platform after its registration.
        allow_cached_keys: Intel's registration service keeps the platform's root keys.
        allow_smt: hardware threads share cores.

    Most multi-package servers set the last three. A revoked platform is never accepted.
    """

    accepted_advisories: tuple[_Advisory, ...] = ()
    out_of_date_until: date | None = None
    min_tcb_evaluation_data_number: Annotated[int, *in_range(0, (1 << 32) - 1)] = 0
    allow_dynamic_platform: Flag = False
    allow_cached_keys: Flag = False
    allow_smt: Flag = False

    def tolerates_out_of_date(self, now: int) -> bool:
        """Whether the grace for an out-of-date platform runs at ``now`` (Unix seconds)."""
        return self.out_of_date_until is not None and now < end_of(self.out_of_date_until)
