"""The contracts between a site and a coordinator: strict and frozen, with a named range on every number.

A job states its requests. Guarantees have no defaults; other fields have safe defaults.

>>> job = FederationJob(
...     job_id="liver-toxicity-study-001", min_clients=3, rounds=50, strategy=AggregationStrategy.FED_PROX,
...     privacy=PrivacyConfig(mechanism="DP_SGD", target_epsilon=3.0, noise_multiplier=1.0, max_grad_norm=1.0),
...     dataset_id="secure/data/liver_scans_v1", model_arch="SimpleMLP")
>>> job.aggregator, job.privacy.sample_rate
(<Aggregator.MEAN: 'mean'>, 0.05)
>>> from pydantic import ValidationError
>>> try:
...     PrivacyConfig(mechanism="DP_SGD", target_epsilon=-1, max_grad_norm=1.0)
... except ValidationError as error:
...     print(explain(error))
target_epsilon must be in (0, 1000], got -1
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    model_validator,
)

from coreason_enclave.crypto import canonical_json, parse_json, sha256_hex
from coreason_enclave.errors import EnvelopeError
from coreason_enclave.system import explain as explain

__all__ = [
    "AggregationStrategy",
    "Aggregator",
    "AttestationReport",
    "ClientPrivacyConfig",
    "FederationJob",
    "Mechanism",
    "NeighboringRelation",
    "PrivacyConfig",
    "PrivacyUnit",
    "Profile",
    "Provenance",
    "RegressionLoss",
    "SafeId",
    "SafePath",
    "ServerOptimizer",
    "ServerOptimizerConfig",
    "SiteUnit",
    "StrictModel",
    "Task",
    "TaskConfig",
    "explain",
    "explained",
    "in_range",
    "of_form",
]

_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_ID = re.compile(_SEGMENT)
_PATH = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT}){{0,7}}")


class AggregationStrategy(StrEnum):
    """What sites add to their local steps; :class:`Aggregator` combines one round's updates.

    ``FED_AVG``: no addition (McMahan et al., 2017). ``FED_PROX``: a pull towards the global weights (Li et al., 2020).
    ``SCAFFOLD``: control variates (Karimireddy et al., 2020). :class:`ServerOptimizer` applies the combined update at
    the coordinator.
    """

    FED_AVG = "FED_AVG"
    FED_PROX = "FED_PROX"
    SCAFFOLD = "SCAFFOLD"


class ServerOptimizer(StrEnum):
    """How the combined update becomes the next global model (Reddi et al., "Adaptive Federated Optimization", 2021)."""

    SGD = "sgd"
    ADAM = "adam"
    YOGI = "yogi"


class Task(StrEnum):
    """The kind of prediction that a model makes for a row."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    MULTILABEL = "multilabel"
    REGRESSION = "regression"
    COUNT = "count"
    SURVIVAL = "survival"


class RegressionLoss(StrEnum):
    """The loss of a regression: squared, absolute, or Huber's (squared near zero, absolute beyond ``huber_delta``)."""

    SQUARED = "squared"
    ABSOLUTE = "absolute"
    HUBER = "huber"


class Aggregator(StrEnum):
    """The rule that combines one round's admitted updates."""

    MEAN = "mean"
    KRUM = "krum"
    MULTI_KRUM = "multi_krum"
    TRIMMED_MEAN = "trimmed_mean"
    MEDIAN = "median"


class Mechanism(StrEnum):
    """``DP_SGD``: clipped, Poisson-sampled, noised. ``NON_PRIVATE``: no guarantee; public lineages only."""

    DP_SGD = "DP_SGD"
    NON_PRIVATE = "NON_PRIVATE"


class PrivacyUnit(StrEnum):
    """The unit whose presence a guarantee hides: one row, or all contributions of one person or of a whole site.

    Sites promise the first two units (:data:`SiteUnit`), a coordinator promises the last
    (:class:`ClientPrivacyConfig`). A guarantee at one unit implies no guarantee at another, and no code ever adds
    guarantees up.
    """

    RECORD = "record"
    PERSON = "person"
    CLIENT = "client"


class NeighboringRelation(StrEnum):
    """Neighbouring datasets differ by one unit, added or removed (Dwork and Roth, 2014, section 2.3)."""

    ADD_OR_REMOVE_ONE = "add_or_remove_one"


class Provenance(StrEnum):
    """How far a statement about the executed code can be believed."""

    ATTESTED = "attested"
    CLAIMED = "claimed"
    SIMULATED = "simulated"


class Profile(StrEnum):
    """The rules on hardware evidence that a site, a federation and a run keep from beginning to end.

    * ``development``: simulated evidence, public rows only.
    * ``unattested``: real rows on hosts without a TEE. Each end accepts each other end by name; provenance is claimed.
    * ``production``: evidence of the hardware.
    """

    DEVELOPMENT = "development"
    UNATTESTED = "unattested"
    PRODUCTION = "production"

    def label(self) -> dict[str, str]:
        """Return the fields of every log line under this profile: no run without evidence passes for an attested one.

        >>> Profile.DEVELOPMENT.label()
        {'profile': 'development', 'attestation': 'simulated'}
        >>> Profile.UNATTESTED.label()
        {'profile': 'unattested', 'attestation': 'not attested'}
        """
        attestation = _ATTESTATION.get(self.value)
        return {"profile": self.value, **({} if attestation is None else {"attestation": attestation})}

    def in_words(self) -> str:
        """Return the profile for a person, with the lack of evidence in capitals.

        >>> Profile.UNATTESTED.in_words()
        'profile unattested, NOT ATTESTED'
        """
        lacking = {Profile.DEVELOPMENT: ", SIMULATED attestation", Profile.UNATTESTED: ", NOT ATTESTED"}
        return f"profile {self}{lacking.get(self, '')}"


_ATTESTATION: Mapping[str, str] = {"development": "simulated", "unattested": "not attested"}
"""What a log line says about evidence under a profile without hardware evidence."""


def of_form(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    """Return a validator of whole strings; its message describes ``what`` the string must be, not the pattern."""

    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(f"must be {what}, got {value[:80]!r}")
        return value

    return check


def _a_number(value: object) -> float:
    """Return ``value``, or raise for anything but a number.

    Python counts ``True`` as 1 and pydantic reads ``"5"`` as 5; no wire document means either.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"must be a number, got {value!r:.80}")
    return value


def _within(low: float, high: float, *, open_low: bool = False) -> Callable[[float], float]:
    def check(value: float) -> float:
        if not low <= value <= high or (open_low and value == low):  # exact for whole numbers of any length
            got = f"{value:g}" if type(value) is float else f"{value!r:.80}"
            raise ValueError(f"must be in {'(' if open_low else '['}{low:g}, {high:g}], got {got}")
        return value

    return check


def in_range(low: float, high: float, *, open_low: bool = False) -> tuple[BeforeValidator]:
    """Return the annotation for a number (no boolean, no string) from ``low`` to ``high``; errors name the range."""
    within = _within(low, high, open_low=open_low)
    return (BeforeValidator(lambda value: within(_a_number(value))),)  # before: NaN and infinity get the range, too


_ID_WORDS = "1 to 128 ASCII letters, digits, '.', '_' or '-', starting with a letter or digit"
SafeId = Annotated[str, AfterValidator(of_form(_ID, _ID_WORDS))]
SafePath = Annotated[str, AfterValidator(of_form(_PATH, f"1 to 8 names joined by '/', each {_ID_WORDS} (no '..')"))]
HexDigest = Annotated[str, AfterValidator(of_form(re.compile(r"[0-9a-f]{64}"), "64 lower-case hex digits"))]


def _of_a_site(unit: PrivacyUnit) -> PrivacyUnit:
    if unit is PrivacyUnit.CLIENT:
        raise ValueError("must be record or person, got 'client': set client_privacy in the job to protect a site")
    return unit


SiteUnit = Annotated[PrivacyUnit, AfterValidator(_of_a_site)]
"""A unit that a site can promise: a site knows records and persons, but no other sites."""

Epsilon = Annotated[float, *in_range(0, 1000, open_low=True)]
Delta = Annotated[float, *in_range(0, 0.1, open_low=True)]
NoiseMultiplier = Annotated[float, *in_range(0, 1e6, open_low=True)]
ClippingNorm = Annotated[float, *in_range(0, 1e6, open_low=True)]
SampleRate = Annotated[float, *in_range(0, 1, open_low=True)]
FormatVersion = Annotated[int, *in_range(1, 1)]
UnixSeconds = Annotated[int, *in_range(0, 1 << 53)]
Flag = Annotated[bool, Strict()]


class StrictModel(BaseModel):
    """Base model: frozen, no unknown fields, no coercion from strings, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    described: ClassVar[str] = "a document of this kind"
    """The document in an error message, with its article."""

    @classmethod
    def from_payload(cls, payload: bytes) -> Self:
        """Read an envelope's verified payload.

        Raises:
            EnvelopeError: not JSON, not this kind of document, or not in canonical form: two spellings of one document
                would have two digests.
        """
        with explained(lambda why: EnvelopeError(f"not {cls.described}: {why}")):
            document = cls.model_validate(parse_json(payload))
        if document.canonical() != payload:
            raise EnvelopeError(f"not {cls.described} in its canonical form")
        return document

    def canonical(self) -> bytes:
        """Return the only byte string over which digests of this document are computed."""
        return canonical_json(self.model_dump(mode="json"))

    def digest(self) -> str:
        """Return SHA-256 of :meth:`canonical`, hex."""
        return sha256_hex(self.canonical())


class PrivacyConfig(StrictModel):
    """A job's privacy promise.

    Attributes:
        target_epsilon: the cap on the whole job at ``delta``, for any ``noise_multiplier``.
        noise_multiplier: if left out, calibrated from the cap and the job's schedule.
        delta, unit: if left out, taken from the data lineage's registration, which no job can loosen.
    """

    mechanism: Mechanism
    target_epsilon: Epsilon | None = None
    noise_multiplier: NoiseMultiplier | None = None
    max_grad_norm: ClippingNorm | None = None
    sample_rate: SampleRate = 0.05
    delta: Delta | None = None
    unit: SiteUnit | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        given = {"target_epsilon": self.target_epsilon, "max_grad_norm": self.max_grad_norm}
        if self.mechanism is Mechanism.DP_SGD:
            missing = sorted(name for name, value in given.items() if value is None)
            if missing:
                raise ValueError(f"DP_SGD needs {' and '.join(missing)}: a guarantee needs explicit values")
        elif self.target_epsilon is not None or self.noise_multiplier is not None:
            raise ValueError("NON_PRIVATE training takes neither target_epsilon nor noise_multiplier: leave both out")
        return self


class TaskConfig(StrictModel):
    """The task of a job: what the model predicts, and the loss that its training lowers.

    Attributes:
        loss, huber_delta: of a regression alone, in the label's scaled unit; left out: squared, and 1.
        class_weights: the weight of a row by its class, for two or more classes. Public, declared numbers: weights
            counted from rows would release the classes' shares.
    """

    kind: Task
    loss: RegressionLoss | None = None
    huber_delta: Annotated[float, *in_range(0, 1e6, open_low=True)] | None = None
    class_weights: (
        Annotated[tuple[Annotated[float, *in_range(0, 1e3, open_low=True)], ...], Field(min_length=2)] | None
    ) = None

    @model_validator(mode="after")
    def _options_belong_to_the_kind(self) -> Self:
        if self.kind is not Task.REGRESSION and (self.loss, self.huber_delta) != (None, None):
            raise ValueError(f"{self.kind} has one loss: leave loss and huber_delta out")
        if self.loss is not RegressionLoss.HUBER and self.huber_delta is not None:
            raise ValueError(f"huber_delta belongs to loss huber, got loss {self.loss or RegressionLoss.SQUARED}")
        if self.class_weights is not None and self.kind not in (Task.BINARY, Task.MULTICLASS):
            raise ValueError(f"class_weights need classes, and {self.kind} has none: leave them out")
        if self.class_weights is not None and self.kind is Task.BINARY and len(self.class_weights) != 2:
            raise ValueError(f"class_weights of a binary task must be 2 numbers, got {len(self.class_weights)}")
        return self


class ServerOptimizerConfig(StrictModel):
    """The coordinator's step over the combined update, which serves as the negative of a gradient.

    ``sgd`` with the default learning rate 1 adds the update unchanged: federated averaging. ``adam`` and ``yogi``
    follow algorithm 2 of Reddi et al. (2021), where ``tau`` bounds the step from above for small updates.
    """

    name: ServerOptimizer = ServerOptimizer.SGD
    learning_rate: Annotated[float, *in_range(0, 1e4, open_low=True)] = 1.0
    beta_1: Annotated[float, *in_range(0, 0.9999)] = 0.9
    beta_2: Annotated[float, *in_range(0, 0.9999)] = 0.99
    tau: Annotated[float, *in_range(0, 1e4, open_low=True)] = 1e-3

    @model_validator(mode="after")
    def _adaptive_rate_is_chosen(self) -> Self:
        if self.name is not ServerOptimizer.SGD and "learning_rate" not in self.model_fields_set:
            raise ValueError(f"{self.name} needs learning_rate, about the size of one weight's change in a round")
        return self


class ClientPrivacyConfig(StrictModel):
    """Client-level differential privacy: bounds how much the models reveal of any one site, with all its data together.

    The guarantee is central, not local (McMahan et al., "Learning Differentially Private Recurrent Language Models",
    2018). In each round the coordinator:

    1. samples the sites (Poisson, by a key that it keeps);
    2. clips their updates to ``clip_norm``;
    3. adds Gaussian noise of ``noise_multiplier * clip_norm`` to the sum of updates;
    4. divides by ``sample_rate`` times the number of sites enrolled at the first sampling, however many sites answer.

    ``target_epsilon`` at ``delta`` caps the whole job; the coordinator does not sample a round beyond the cap.

    The guarantee protects against anyone who sees the models. It does not protect against the coordinator, its log or
    its network, which know the sampled sites. Enrolment stays public: the roll-call shows it. The guarantee cannot
    replace a site's own :class:`PrivacyConfig`.
    """

    target_epsilon: Epsilon
    delta: Delta
    noise_multiplier: NoiseMultiplier
    clip_norm: ClippingNorm
    sample_rate: SampleRate


class FederationJob(StrictModel):
    """One training job over a cohort of sites. Units: rounds and local steps are counts, deadlines are seconds.

    A round closes at ``round_deadline_s``. Once enough updates have arrived, the round closes earlier:
    ``straggler_grace_s`` later, but only after the other sites have had twice the time that these updates took.

    ``task``: if left out, the architecture's own task, classes.

    ``lineages_may_grow``: sites may change their rows between two rounds. If false, a site with changed rows refuses
    the round. In both cases, all records of the run name the sites with changed rows.
    """

    version: FormatVersion = 1
    job_id: SafeId
    min_clients: Annotated[int, *in_range(1, 10_000)]
    rounds: Annotated[int, *in_range(1, 100_000)]
    strategy: AggregationStrategy
    privacy: PrivacyConfig
    dataset_id: SafePath
    model_arch: SafeId
    model_args: dict[SafeId, Annotated[int, *in_range(1, 1_000_000)]] = Field(default_factory=dict)
    task: TaskConfig | None = None
    aggregator: Aggregator = Aggregator.MEAN
    num_byzantine: Annotated[int, *in_range(0, 4_999)] = 0
    cohort_size: Annotated[int, *in_range(1, 10_000)] | None = None
    num_examples_cap: Annotated[int, *in_range(1, 1e9)] | None = None
    local_steps: Annotated[int, *in_range(1, 1_000_000)] = 10
    learning_rate: Annotated[float, *in_range(0, 1e4, open_low=True)] = 0.1
    momentum: Annotated[float, *in_range(0, 0.999)] = 0.0
    proximal_mu: Annotated[float, *in_range(0, 1e4, open_low=True)] = 0.1
    server_optimizer: ServerOptimizerConfig = ServerOptimizerConfig()
    client_privacy: ClientPrivacyConfig | None = None
    average_last_rounds: Annotated[int, *in_range(1, 100_000)] = 1
    max_update_norm: Annotated[float, *in_range(0, 1e9, open_low=True)] = 1000.0
    lineages_may_grow: Flag = False
    round_deadline_s: Annotated[float, *in_range(0, 86_400 * 7, open_low=True)] = 600.0
    straggler_grace_s: Annotated[float, *in_range(0, 86_400 * 7)] = 30.0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.cohort_size is not None and self.cohort_size < self.min_clients:
            raise ValueError(f"cohort_size must be at least min_clients ({self.min_clients})")
        if self.average_last_rounds > self.rounds:
            raise ValueError(f"average_last_rounds must be at most rounds ({self.rounds})")
        if self.aggregator is Aggregator.MEAN and self.num_byzantine:
            raise ValueError("aggregator mean tolerates no Byzantine site: set num_byzantine to 0 or choose another")
        return self

    @model_validator(mode="after")
    def _strategy_is_sound(self) -> Self:
        if self.strategy is AggregationStrategy.SCAFFOLD and self.momentum:
            raise ValueError("SCAFFOLD needs momentum 0: its control variates are the mean of the steps' directions")
        if self.client_privacy is None:
            return self
        others = (
            (self.aggregator is not Aggregator.MEAN, "aggregator mean: the noise is fitted to a clipped sum"),
            (self.num_examples_cap is not None, "uniform weights: leave num_examples_cap out"),
            (self.cohort_size is not None, "Poisson sampling over sites: leave cohort_size out"),
            (self.strategy is AggregationStrategy.SCAFFOLD, "FED_AVG or FED_PROX: control variates single sites out"),
        )
        for contradicts, needs in others:
            if contradicts:
                raise ValueError(f"client_privacy needs {needs}")
        return self

    @property
    def total_steps(self) -> int:
        """Return the local steps over all rounds: the schedule behind the accounting."""
        return self.rounds * self.local_steps


_RENEWED_AT = 0.8


class AttestationReport(StrictModel):
    """The appraised result of attestation: a policy's conclusion from verified evidence at one moment.

    Only :mod:`coreason_enclave.attestation.appraisal` makes reports. The type enforces two rules:

    * A report on simulated evidence says ``simulated``; a report on a statement without evidence says ``claimed``.
    * An attested report names the code that ran.

    Attributes:
        subject: the party that the evidence describes.
        public_key, kem_key, job_digest, nonce: the values bound to the evidence, hex.
        measurement: the name of the reference value that the measured code matched.
        platform_ids: the machine: the processor's id, then the ids of its GPUs.
        policy: SHA-256 (hex) of the appraisal policy.
        not_checked: claims that the policy lets pass unchecked.
        appraised_at, expires_at: Unix seconds.
    """

    described: ClassVar[str] = "an attestation result"

    version: FormatVersion = 1
    provenance: Provenance
    kind: SafeId
    subject: SafeId
    public_key: HexDigest
    kem_key: HexDigest
    job_digest: HexDigest
    nonce: HexDigest
    measurement: SafeId | None = None
    platform_ids: tuple[str, ...] = ()
    policy: HexDigest
    appraised_at: UnixSeconds
    expires_at: UnixSeconds
    not_checked: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _measurement_fits_provenance(self) -> Self:
        if (self.kind == "simulated") != (self.provenance is Provenance.SIMULATED):
            raise ValueError("provenance must be simulated for simulated evidence, and only for simulated evidence")
        if (self.kind == "unattested") != (self.provenance is Provenance.CLAIMED):
            raise ValueError(
                "provenance must be claimed for a statement without evidence, and only for such a statement"
            )
        if (self.provenance is Provenance.ATTESTED) != (self.measurement is not None):
            raise ValueError("attested evidence must name the measured code, and no other report may")
        return self

    @property
    def renewal_due(self) -> float:
        """Return the time for a new attestation: after 0.8 of the report's lifetime (Unix seconds)."""
        return self.appraised_at + _RENEWED_AT * (self.expires_at - self.appraised_at)


@contextmanager
def explained(refusal: Callable[[str], Exception]) -> Iterator[None]:
    """Turn the rejection of a document inside the block into ``refusal`` of its explanation.

    >>> with explained(EnvelopeError):
    ...     PrivacyConfig(mechanism="DP_SGD", target_epsilon=-1, max_grad_norm=1.0)
    Traceback (most recent call last):
    coreason_enclave.errors.EnvelopeError: target_epsilon must be in (0, 1000], got -1
    """
    try:
        yield
    except ValidationError as error:
        raise refusal(explain(error)) from error
