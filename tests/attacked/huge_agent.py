"""A development site whose agent answers every order with an update of 240 MB: ``CONFIG SEED``."""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coreason_enclave.wire.handler import AnswersByMethod
from coreason_enclave.wire.updates import SealedMessage

HUGE_BYTES = 240 << 20


@dataclass(frozen=True)
class Huge(AnswersByMethod):
    """The honest answers, and beside an update's own bytes very many others."""

    session: Any

    def enrol(self, message: SealedMessage) -> SealedMessage:
        answer: SealedMessage = self.session.enrol(message)
        return answer

    def attest(self, message: SealedMessage) -> SealedMessage:
        answer: SealedMessage = self.session.attest(message)
        return answer

    def run(self, message: SealedMessage) -> SealedMessage:
        honest: SealedMessage = self.session.run(message)
        return SealedMessage(honest.envelope, honest.arrays + bytes(HUGE_BYTES))


def main() -> None:
    config, seed = Path(sys.argv[1]), int(sys.argv[2])
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    from coreason_enclave.agent.process import run_agent
    from coreason_enclave.crypto.job_keys import unsafe_seeded_keys

    keys = unsafe_seeded_keys(seed, config.parent.name)
    run_agent(config.parent, adapt=lambda site: Huge(site.session), job_keys=keys, stop=stop)


if __name__ == "__main__":
    main()
