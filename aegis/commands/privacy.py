"""``aegis privacy``: computes the privacy cost of training, and the noise that a budget requires."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from pydantic import TypeAdapter, ValidationError

from coreason_enclave.accounting import PoissonSampledGaussian
from coreason_enclave.errors import AccountingError
from coreason_enclave.schemas import Delta, Epsilon, NoiseMultiplier, SampleRate
from coreason_enclave.system import explain

if TYPE_CHECKING:
    from coreason_enclave.accounting import ComposedEpsilon

MAX_STEPS = 10_000_000
TAKE_MORE_NOISE = "training would be as good as non-private: use more noise, fewer steps or a larger delta"

ASSUMPTIONS = (
    "unit: sampled and clipped as a whole; either a record, or all data of a person",
    "relation: neighbouring datasets differ by one unit added or removed",
    "sampling: Poisson, each unit in each step independently; false for a shuffled loader",
    "history: these steps, fixed in advance, and no other training on the same data",
)


class Ranged(click.ParamType[float]):
    """A number within the same range as in job files. No range includes NaN or infinity."""

    name = "number"

    def __init__(self, annotation: Any) -> None:
        self._adapter: TypeAdapter[float] = TypeAdapter(annotation)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Refuse a value that cannot be a number or falls out of range, naming the range."""
        try:
            number = float(value)
        except ValueError:
            self.fail(f"must be a number, got {value!r:.80}", param, ctx)
        try:
            return self._adapter.validate_python(number)
        except ValidationError as error:
            self.fail(explain(error), param, ctx)


class Segment(click.ParamType[PoissonSampledGaussian]):
    """``sigma,q,steps``: noise multiplier, sample rate and number of steps."""

    name = "sigma,q,steps"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> PoissonSampledGaussian:
        """Refuse all but three usable numbers."""
        if isinstance(value, PoissonSampledGaussian):
            return value
        parts = str(value).split(",")
        if len(parts) != 3:
            self.fail(f"must be sigma,q,steps such as 1.0,0.01,1000, got {value!r:.80}", param, ctx)
        return PoissonSampledGaussian(
            NOISE_MULTIPLIER.convert(parts[0], param, ctx),
            SAMPLE_RATE.convert(parts[1], param, ctx),
            int(STEPS(parts[2], param, ctx)),
        )


NOISE_MULTIPLIER, SAMPLE_RATE = Ranged(NoiseMultiplier), Ranged(SampleRate)
STEPS = click.IntRange(1, MAX_STEPS)

delta_option = click.option("--delta", type=Ranged(Delta), required=True, help="Failure probability, in (0, 0.1].")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group(no_args_is_help=True)
def privacy() -> None:
    """Compute what training costs in privacy, before it runs.

    \b
    Example: aegis privacy calibrate --target-epsilon 3 --sample-rate 0.05 --steps 60 --delta 1e-5
    """


@privacy.command()
@click.option(
    "--noise-multiplier", type=NOISE_MULTIPLIER, help="Noise standard deviation / clipping norm, in (0, 1e6]."
)
@click.option("--sample-rate", type=SAMPLE_RATE, help="Poisson sampling probability of each step, in (0, 1].")
@click.option("--steps", type=STEPS, help="Number of steps.")
@delta_option
@click.option("--segment", "segments", type=Segment(), multiple=True, help="A further mechanism on the same data.")
@json_option
def epsilon(
    noise_multiplier: float | None,
    sample_rate: float | None,
    steps: int | None,
    delta: float,
    segments: tuple[PoissonSampledGaussian, ...],
    as_json: bool,
) -> None:
    """Epsilon of DP-SGD steps, all of them together.

    The mechanism is given by --noise-multiplier, --sample-rate and --steps, by one or more --segment, or by both.

    \b
    Example: aegis privacy epsilon --noise-multiplier 1.0 --sample-rate 0.05 --steps 68 --delta 1e-5
    Example: aegis privacy epsilon --segment 1.0,0.01,1000 --segment 2.0,0.02,500 --delta 1e-5 --json
    """
    events = (*_main_segment(noise_multiplier, sample_rate, steps), *segments)
    if not events:
        raise click.UsageError("give --noise-multiplier, --sample-rate and --steps, or at least one --segment")
    composed = _composed(events, delta)
    _print_result(_document(composed), _sentence(composed), as_json)


@privacy.command()
@click.option("--target-epsilon", type=Ranged(Epsilon), required=True, help="Largest epsilon to spend, in (0, 1000].")
@click.option("--sample-rate", type=SAMPLE_RATE, required=True, help="Poisson sampling probability, in (0, 1].")
@click.option("--steps", type=STEPS, required=True, help="Number of steps, over all rounds.")
@delta_option
@click.option("--parameters", type=click.IntRange(1), help="Trainable parameters of the model; needs --units.")
@click.option(
    "--units",
    type=click.IntRange(1),
    help="Declared dataset size of a site, in units; shows whether the signal exceeds the noise. Needs --parameters.",
)
@json_option
def calibrate(
    target_epsilon: float,
    sample_rate: float,
    steps: int,
    delta: float,
    parameters: int | None,
    units: int | None,
    as_json: bool,
) -> None:
    """The least noise multiplier that keeps a schedule within an epsilon; never one that overshoots.

    With --parameters and --units also the most signal that there can be, in norms of the noise: well below 1, the
    model will be noise.

    \b
    Example: aegis privacy calibrate --target-epsilon 3 --sample-rate 0.05 --steps 60 --delta 1e-5
    """
    from coreason_enclave.accounting import calibrate_noise, signal_to_noise

    noise = calibrate_noise(target_epsilon, delta, sample_rate, steps)
    composed = _composed([PoissonSampledGaussian(noise, sample_rate, steps)], delta)
    sentence = f"noise multiplier {noise:.6g} for epsilon {target_epsilon:g}\n{_sentence(composed)}"
    document: dict[str, object] = {"noise_multiplier": noise, **_document(composed)}
    if parameters is not None and units is not None:
        ratio = signal_to_noise(
            noise_multiplier=noise, sample_rate=sample_rate, steps=steps, parameters=parameters, nominal_units=units
        )
        document["signal_to_noise"] = ratio
        sentence += f"\nsignal to noise at most {ratio:.3g}{'' if ratio >= 1 else ': the model will be mostly noise'}"
    elif parameters is not None or units is not None:
        raise click.UsageError("--parameters and --units need each other: give both or neither")
    _print_result(document, sentence, as_json)


def _main_segment(
    noise_multiplier: float | None, sample_rate: float | None, steps: int | None
) -> tuple[PoissonSampledGaussian, ...]:
    if noise_multiplier is not None and sample_rate is not None and steps is not None:
        return (PoissonSampledGaussian(noise_multiplier, sample_rate, steps),)
    if noise_multiplier is None and sample_rate is None and steps is None:
        return ()
    raise click.UsageError("--noise-multiplier, --sample-rate and --steps need each other: give all three or none")


def _composed(events: Sequence[PoissonSampledGaussian], delta: float) -> ComposedEpsilon:
    """Return the composition; raise if no accountant can handle the numbers, since they guarantee nothing."""
    from coreason_enclave.accounting import compose_epsilon

    try:
        composed = compose_epsilon(events, delta)
    except (ArithmeticError, MemoryError) as error:
        raise AccountingError(f"no usable epsilon covers these steps, {TAKE_MORE_NOISE}") from error
    if not math.isfinite(composed.epsilon):
        raise AccountingError(f"no finite epsilon covers these steps, {TAKE_MORE_NOISE}")
    return composed


def _document(composed: ComposedEpsilon) -> dict[str, object]:
    """Return the figures with their assumptions. A missing cross-check is null, as JSON has no infinity."""
    return {
        "epsilon": composed.epsilon,
        "delta": composed.delta,
        "accountant": composed.accountant.value,
        "rdp_epsilon": composed.rdp_epsilon if math.isfinite(composed.rdp_epsilon) else None,
        "neighboring_relation": "add_or_remove_one",
        "sampling": "poisson",
        "note": composed.note,
    }


def _sentence(composed: ComposedEpsilon) -> str:
    cross_check = f"Rényi cross-check {composed.rdp_epsilon:.4g}"
    return f"epsilon {composed.epsilon:.4g} at delta {composed.delta:g} ({composed.accountant}; {cross_check})"


def _print_result(document: dict[str, object], sentence: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(document, sort_keys=True))
        return
    click.echo(sentence)
    note = (f"note: {document['note']}",) if document["note"] else ()
    for line in (*ASSUMPTIONS, *note):
        click.echo(f"  {line}")
