"""The results of accounting: guarantees that can be claimed, and an estimate that never can.

A number of privacy means nothing alone. A guarantee therefore carries its delta, its unit, its neighbouring relation,
its sampling scheme and the accountant that proved it, and none of them has a default.

There are two, of two types that no function takes for each other, and nothing adds them up. :class:`Guarantee` is
local: a site promises it to the people in its data, against everybody, the coordinator included.
:class:`ClientGuarantee` is central: a coordinator promises it to its sites, against whoever sees the models, but not
against itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from coreason_enclave.errors import AccountingError
from coreason_enclave.schemas import NeighboringRelation, PrivacyUnit

__all__ = [
    "Accountant",
    "ClientGuarantee",
    "ComposedEpsilon",
    "Estimate",
    "Guarantee",
    "ProvingAccountant",
    "Sampling",
]


class Accountant(StrEnum):
    """Ways to turn events into an epsilon. Only the first two prove anything.

    ``GDP`` is the central-limit approximation (Dong, Roth and Su, 2022; Bu et al., 2020): it under-reports,
    so it exists for comparison plots and can back no claim.
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
        epsilon: the reported upper bound, never above ``rdp_epsilon``; ``math.inf`` after non-private
        training.
        delta: the failure probability that ``epsilon`` holds at.
        accountant: which of the two upper bounds ``epsilon`` is.
        rdp_epsilon: the Rényi bound on the same composition, the cross-check.
        note: why the usual accountant does not stand behind the number; empty if it does.
    """

    epsilon: float
    delta: float
    accountant: ProvingAccountant
    rdp_epsilon: float
    note: str = ""

    def guarantee(self, *, unit: PrivacyUnit, neighboring_relation: NeighboringRelation) -> Guarantee:
        """The number as a site's claim about ``unit`` (record or person), which only the caller can know."""
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
        """The number as a coordinator's claim about whole sites."""
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
    """An approximation for comparison. It bounds nothing, and no function turns it into a guarantee."""

    epsilon: float
    delta: float
    accountant: Accountant
    warning: str


@dataclass(frozen=True, kw_only=True)
class _Proved:
    """What both guarantees state.

    Raises:
        AccountingError: epsilon is negative or NaN, delta is not in (0, 1), or the accountant proves nothing.
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
        """Whether anything is promised at all: an infinite epsilon promises nothing."""
        return math.isfinite(self.epsilon)


@dataclass(frozen=True, kw_only=True)
class Guarantee(_Proved):
    """(epsilon, delta)-differential privacy of one site's training, with everything that the statement depends on.

    Local: the noise is in the update before it leaves the site. ``unit`` is a record or a person.

    Raises:
        AccountingError: as for every guarantee, or the unit is a whole site.
    """

    unit: PrivacyUnit

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unit is PrivacyUnit.CLIENT:
            raise AccountingError("a site's own noise hides records or persons; what hides a site is a ClientGuarantee")


@dataclass(frozen=True, kw_only=True)
class ClientGuarantee(_Proved):
    """(epsilon, delta)-differential privacy of the released models, where neighbours differ by one whole site.

    Central: updates reach the coordinator first. Sampling is over sites. It says nothing about one record or person.
    """

    unit: Literal[PrivacyUnit.CLIENT] = field(default=PrivacyUnit.CLIENT, init=False)
