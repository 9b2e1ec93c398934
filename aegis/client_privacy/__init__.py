"""Client-level differential privacy: what bounds how much the released models tell of any one site.

DP-FedAvg with a fixed denominator (McMahan et al., "Learning Differentially Private Recurrent Language Models", 2018):
each round the coordinator draws its sites by independent coins, clips each admitted update to one norm, adds Gaussian
noise to their sum, and divides by the expected number of sites, whoever answered. The round is charged to a ledger of
the coordinator's own before anybody is drawn.

>>> import numpy as np
>>> from coreason_enclave.crypto.keystream import Keystream
>>> two = [{"w": np.array([3.0, 4.0], np.float32)}, {"w": np.array([0.0, 0.5], np.float32)}]
>>> clipped_sum(two, {"w": (2,)}, clip_norm=1.0)["w"]  # the first has norm 5, the second less than 1
array([0.6, 1.3])
>>> noise = Keystream(bytes(32), job_digest="", round_number=1, base_model_digest="", dataset_digest="")
>>> released = noised_mean({"w": np.array([0.6, 1.3])}, noise, draw=1, deviation=0.5, expected_sites=2.0)
>>> released["w"].dtype, bool(abs(released["w"] - [0.3, 0.65]).max() < 1.5)
(dtype('float32'), True)

**What it protects, and from whom.** Central: from whoever sees the released models, the other sites among them. Not
from the coordinator, which sees every update and keeps the key; nor from whoever reads its log or its network, which
tell whom it asked, so that the sampling hides nothing from them. That a site enrolled is public: the roll-call names
it. It is no substitute for a site's own, local guarantee to the people in its data, which protects them from the
coordinator as well; the two are different types, and nothing adds them up.
"""

from aegis.client_privacy.account import LINEAGE, SiteAccount, round_of
from aegis.client_privacy.cohort_sampling import CohortSample, drawn_sites
from aegis.client_privacy.mechanism import clipped_sum, noised_mean
from aegis.client_privacy.round_charge import ClientPrivacy, ReleasedOtherwise

__all__ = [
    "LINEAGE",
    "ClientPrivacy",
    "CohortSample",
    "ReleasedOtherwise",
    "SiteAccount",
    "clipped_sum",
    "drawn_sites",
    "noised_mean",
    "round_of",
]
