"""Results of accounting: guarantees that may be claimed, and an estimate that may not.

A bare privacy number means little. A guarantee therefore carries its delta, unit, neighbouring relation, sampling
scheme and proving accountant; no field has a default.

Two guarantee types exist. No function takes one type for the other, and no code adds them up:

* :class:`Guarantee` is local: a site promises it to the people in its data, against everybody, including the
  coordinator.
* :class:`ClientGuarantee` is central: a coordinator promises it to its sites, against anyone who sees the models, but
  not against the coordinator itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from coreason_enclave.errors import AccountingError
from coreason_enclave.schemas import NeighboringRelation, PrivacyUnit


class Accountant(StrEnum):
    """Methods that turn events into an epsilon. Only the first two prove a bound.

    ``GDP``, the central-limit approximation (Dong, Roth and Su, 2022; Bu et al., 2020), under-reports. It serves
    comparison plots and can back no claim.
    """

    PLD = "PLD"
    RDP = "RDP"
    GDP = "GDP"


ProvingAccountant = Literal[Accountant.PLD, Accountant.RDP]
Sampling = Literal["poisson"]


@dataclass(frozen=True, kw_only=True)
class ComposedEpsilon:
    """Epsilon of a composition at ``delta``, with the accountant that proved it.

    Attributes:
        epsilon: the reported upper bound, never above ``rdp_epsilon``; ``math.inf`` after non-private training.
        delta: the failure probability at which ``epsilon`` holds.
        accountant: names the upper bound that ``epsilon`` reports.
        rdp_epsilon: the Rényi bound on the same composition, for cross-checking.
        note: the reason why the usual accountant does not back the number, or a caveat; empty without one.
    """

    epsilon: float
    delta: float
    accountant: ProvingAccountant
    rdp_epsilon: float
    note: str = ""

    def guarantee(self, *, unit: PrivacyUnit, neighboring_relation: NeighboringRelation) -> Guarantee:
        """Return the number as a site's claim about ``unit`` (record or person). Only the caller knows the unit."""
        return Guarantee(
            epsilon=self.epsilon,
            delta=self.delta,
            accountant=self.accountant,
            rdp_epsilon=self.rdp_epsilon,
            unit=unit,
            neighboring_relation=neighboring_relation,
            sampling="poisson",
        )

    def client_guarantee(self, *, neighboring_relation: NeighboringRelation) -> ClientGuarantee:
        """Return the number as a coordinator's claim about whole sites."""
        return ClientGuarantee(
            epsilon=self.epsilon,
            delta=self.delta,
            accountant=self.accountant,
            rdp_epsilon=self.rdp_epsilon,
            neighboring_relation=neighboring_relation,
            sampling="poisson",
        )


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """An approximation for comparison. It bounds no privacy loss, and no function turns it into a guarantee."""

    epsilon: float
    delta: float
    accountant: Accountant
    warning: str


@dataclass(frozen=True, kw_only=True)
class _Proved:
    """The fields that both guarantees share.

    Raises:
        AccountingError: epsilon is negative or NaN, delta is not in (0, 1), or the accountant proves no bound.
    """

    epsilon: float
    delta: float
    accountant: ProvingAccountant
    rdp_epsilon: float
    neighboring_relation: NeighboringRelation
    sampling: Sampling

    def __post_init__(self) -> None:
        if self.accountant not in (Accountant.PLD, Accountant.RDP):
            raise AccountingError(f"{self.accountant} is an approximation that under-reports; claim PLD or RDP")
        if not (self.epsilon >= 0 and self.rdp_epsilon >= 0):
            raise AccountingError(f"epsilon must be at least 0, got {self.epsilon} (RDP {self.rdp_epsilon})")
        if not 0 < self.delta < 1:
            raise AccountingError(f"delta must be in (0, 1), got {self.delta}")

    @property
    def is_finite(self) -> bool:
        """Return True if epsilon is finite: an infinite epsilon promises no privacy."""
        return math.isfinite(self.epsilon)


@dataclass(frozen=True, kw_only=True)
class Guarantee(_Proved):
    """(epsilon, delta)-differential privacy of one site's training, with all facts that the statement depends on.

    Local: the update contains the noise before leaving the site. ``unit``: a record or a person.

    Raises:
        AccountingError: as for both guarantees, or the unit is a whole site.
    """

    unit: PrivacyUnit

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unit is PrivacyUnit.CLIENT:
            raise AccountingError("a Guarantee covers records or persons; use a ClientGuarantee for whole sites")


@dataclass(frozen=True, kw_only=True)
class ClientGuarantee(_Proved):
    """(epsilon, delta)-differential privacy of the released models, where neighbours differ by one whole site.

    Central: updates reach the coordinator first. Sampling runs over sites. The guarantee covers no single record or
    person.
    """

    unit: Literal[PrivacyUnit.CLIENT] = field(default=PrivacyUnit.CLIENT, init=False)
