"""The site on NVIDIA FLARE: the parts behind :class:`~coreason_enclave.federation.executor.CoreasonExecutor`.

Enters: FLARE tasks with sealed bytes. Leaves: sealed replies, or return codes with a reason.
Never: takes a path or a host setting from a job.

On the site's side only this folder and the executor's file import FLARE.

>>> from coreason_enclave.errors import Reason
>>> from coreason_enclave.federation.nvflare import message_in, refusal, sealed_reply
>>> from coreason_enclave.wire import SealedMessage
>>> message_in(sealed_reply(SealedMessage(b"sealed")))
SealedMessage(envelope=b'sealed', arrays=b'', roll_call=b'')
>>> refusal(Reason.BUDGET_EXCEEDED).get_return_code()  # a code that does not end FLARE's job for the other sites
'BAD_REQUEST_DATA'
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
