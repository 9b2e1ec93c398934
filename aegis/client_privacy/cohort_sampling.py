"""Which sites a round asks, where that has to stay secret: one independent coin a site, under the coordinator's key.

A site's coin depends on its own name, the job, the round, the draw and the base model alone: neither on who else is
enrolled nor on anything that was sent. So a coordinator that was killed draws the same sites again, and a site that
enrolled in between changes nobody else's coin.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coreason_enclave.crypto.encoding import digest
from coreason_enclave.crypto.keystream import Keystream
from coreason_enclave.wire.updates import AdmittedUpdate

__all__ = ["CohortSample", "drawn_sites", "noise_keystream", "sampling_keystream"]

_SAMPLING = digest("aegis/client-privacy/sampling/v1").hex()


@dataclass(frozen=True)
class CohortSample:
    """One draw of sites for one round, from one base model.

    Attributes:
        number: 1, or one more for each time that this round had to be drawn anew.
        population: how many sites were enrolled when the job first drew: fixed for the job, and public.
    """

    job_digest: str
    round_number: int
    number: int
    base_model_digest: str
    population: int

    def binding(self) -> str:
        """SHA-256 (hex) of what a reservation for this draw is for."""
        named = (bytes.fromhex(self.job_digest), self.round_number.to_bytes(8, "big"), self.number.to_bytes(8, "big"))
        return digest("aegis/client-privacy/draw/v1", *named, bytes.fromhex(self.base_model_digest)).hex()


def drawn_sites(
    site_ids: Iterable[str], draw: CohortSample, *, sample_rate: float, keystream: Keystream
) -> tuple[str, ...]:
    """The sites whose coin says yes, sorted; there may be none."""
    return tuple(
        site
        for site in sorted(set(site_ids))
        if keystream.bernoulli(1, sample_rate, draw.number, site)[0]  # one stream a site: coins share nothing
    )


def sampling_keystream(key: bytes, draw: CohortSample) -> Keystream:
    """What the coins of a round come from."""
    return _keystream(key, draw, _SAMPLING)


def noise_keystream(key: bytes, draw: CohortSample, counted: Sequence[AdmittedUpdate]) -> Keystream:
    """What the noise over exactly these updates comes from: other updates get other noise, the same get the same."""
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
