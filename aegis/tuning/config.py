"""Configuration of a DP engine: every number behind the guarantee, without defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, field_validator

from aegis.errors import InvalidEngine
from coreason_enclave.accounting import Accountant, PoissonSampledGaussian
from coreason_enclave.crypto import parse_json
from coreason_enclave.errors import EnvelopeError
from coreason_enclave.schemas import (
    ClippingNorm,
    Delta,
    NeighboringRelation,
    NoiseMultiplier,
    SampleRate,
    SiteUnit,
    StrictModel,
    explained,
)

_MAX_STEPS = 1_000_000


def _a_number_of_steps(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MAX_STEPS:
        raise ValueError(f"must be a whole number in [1, {_MAX_STEPS}], got {value!r:.80}")
    return value


class EngineConfig(StrictModel):
    """One DP-SGD schedule with its accounting. Frozen; serialises to JSON and back without loss.

    Attributes:
        max_grad_norm: the L2 bound C on one unit's summed gradient, in (0, 1e6].
        noise_multiplier: standard deviation of the noise in units of C, in (0, 1e6]; None until
            :meth:`~aegis.privacy_engine.DifferentialPrivacyEngine.epsilon_targeting` finds a value.
        sample_rate: probability that a unit enters a step's Poisson sample, in (0, 1].
        steps: optimizer steps of one training, in [1, 1000000].
        delta: failure probability of the stated epsilon, in (0, 0.1]; meaningful only below 1 / units.
        unit: the unit of privacy, whose presence the mechanism hides.
        neighboring_relation: definition of neighbouring datasets.
        accountant: the reported bound: ``PLD``, tight, or ``RDP``, the modern form of the moments accountant.

    >>> config = EngineConfig(
    ...     max_grad_norm=1.0, noise_multiplier=1.0, sample_rate=0.05, steps=68, delta=1e-5, unit="record",
    ...     neighboring_relation="add_or_remove_one", accountant="PLD")
    >>> EngineConfig.from_json(config.to_json()) == config
    True
    >>> EngineConfig.from_json(config.to_json().replace("0.05", "1.05"))
    Traceback (most recent call last):
    aegis.errors.InvalidEngine: sample_rate must be in (0, 1], got 1.05
    """

    version: Literal[1] = 1
    max_grad_norm: ClippingNorm
    noise_multiplier: NoiseMultiplier | None
    sample_rate: SampleRate
    steps: Annotated[int, BeforeValidator(_a_number_of_steps)]
    delta: Delta
    unit: SiteUnit
    neighboring_relation: NeighboringRelation
    accountant: Accountant

    @field_validator("accountant")
    @classmethod
    def _can_support_claims(cls, value: Accountant) -> Accountant:
        if value is Accountant.GDP:
            raise ValueError("must be PLD or RDP: GDP, an approximation, under-reports and cannot support a claim")
        return value

    def to_json(self) -> str:
        """Return canonical JSON: the same configuration always gives the same text."""
        return self.canonical().decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read the output of :meth:`to_json`.

        Raises:
            InvalidEngine: any other input; the message has one line.
        """
        try:
            document = parse_json(text.encode() if isinstance(text, str) else text)
        except EnvelopeError as error:
            raise InvalidEngine(f"an engine configuration must be a JSON object: {error}") from error
        return cls.of(document)

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """Return a configuration with these fields.

        Raises:
            InvalidEngine: names every problem in one line.
        """
        with explained(InvalidEngine):
            return cls.model_validate(fields)

    def changed(self, **fields: object) -> Self:
        """Return the same configuration with some fields replaced and validated."""
        return self.of({**self.model_dump(), **fields})

    def event(self, steps: int) -> PoissonSampledGaussian:
        """Return the mechanism for ``steps`` steps.

        Raises:
            InvalidEngine: the noise multiplier is not set.
        """
        if self.noise_multiplier is None:
            raise InvalidEngine("noise_multiplier is not set: give a value, or let epsilon_targeting find one")
        return PoissonSampledGaussian(self.noise_multiplier, self.sample_rate, steps)
