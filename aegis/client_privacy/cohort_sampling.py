"""Samples a round's sites in secret: one independent coin per site, under the coordinator's key.

A site's coin depends on the site's name, the job, the round, the draw and the base model alone, neither on other
enrolled sites nor on any message.

- A restarted coordinator samples the same sites again.
- A newly enrolled site changes no other site's coin.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coreason_enclave.crypto import Keystream, digest
from coreason_enclave.wire import AdmittedUpdate

_SAMPLING = digest("aegis/client-privacy/sampling/v1").hex()


@dataclass(frozen=True)
class CohortSample:
    """One draw of sites for one round, from one base model.

    Attributes:
        number: 1 for the round's first draw, one more for each resampling.
        population: number of sites enrolled at the job's first draw: fixed for the job, and public.
    """

    job_digest: str
    round_number: int
    number: int
    base_model_digest: str
    population: int

    def binding(self) -> str:
        """Return the SHA-256 (hex) that binds a reservation to this draw."""
        named = (bytes.fromhex(self.job_digest), self.round_number.to_bytes(8, "big"), self.number.to_bytes(8, "big"))
        return digest("aegis/client-privacy/draw/v1", *named, bytes.fromhex(self.base_model_digest)).hex()


def sampled_sites(
    site_ids: Iterable[str], draw: CohortSample, *, sample_rate: float, keystream: Keystream
) -> tuple[str, ...]:
    """Return the sites whose coin says yes, sorted; possibly no site at all."""
    return tuple(
        site
        for site in sorted(set(site_ids))
        if keystream.bernoulli(1, sample_rate, draw.number, site)[0]  # one stream per site keeps the coins independent
    )


def sampling_keystream(key: bytes, draw: CohortSample) -> Keystream:
    """Return the keystream for the coins of a round."""
    return _keystream(key, draw, _SAMPLING)


def noise_keystream(key: bytes, draw: CohortSample, counted: Sequence[AdmittedUpdate]) -> Keystream:
    """Return the keystream for noise over exactly these updates.

    Equal updates get equal noise; different updates get different noise.
    """
    named = [part for update in counted for part in (update.site_id.encode(), bytes.fromhex(update.digest))]
    return _keystream(key, draw, digest("aegis/client-privacy/updates/v1", *named).hex())


def _keystream(key: bytes, draw: CohortSample, data: str) -> Keystream:
    return Keystream(
        key,
        job_digest=draw.job_digest,
        round_number=draw.round_number,
        base_model_digest=draw.base_model_digest,
        dataset_digest=data,
    )
