"""The agent's Unix socket: the frame protocol, and a client for transports on the same host.

Enters: a sealed message for the local agent. Leaves: the agent's sealed reply, status or reason code.
Never: opens a sealed message, or holds a key.

>>> from io import BytesIO
>>> from coreason_enclave.ipc import encode_frame, read_frame
>>> from coreason_enclave.wire import SealedMessage
>>> read_frame(BytesIO(encode_frame({"kind": "train"}, SealedMessage(b"sealed"))).read)
({'kind': 'train'}, SealedMessage(envelope=b'sealed', arrays=b'', roll_call=b''))
>>> read_frame(BytesIO(b"GET / HTTP/1.1").read)
Traceback (most recent call last):
coreason_enclave.errors.EnvelopeError: a header of 1195725856 bytes
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
