"""The gateway: the only port that sites reach, in front of Flower's SuperLink.

Enters: HTTPS requests under a site's client certificate.
Leaves: fleet requests that fit the state of the site's node.
Never: reads a sealed update, holds a signing key of the coordinator, or lets a site speak for another site.

>>> from pathlib import Path
>>> from aegis.gateway import NodeRegistry, NodeRequest, Pulled
>>> node = NodeRegistry(Path("no-such-folder/nodes.json")).node("ash", "node key of ash")
>>> node.activate(node_id=7)
>>> node.record_delivery(Pulled(run_id=1, message_id="order", object_ids=frozenset({"model"})))
>>> node.check(NodeRequest(7, run_id=1, object_id="model"), public_key=b"")
>>> node.check(NodeRequest(7, run_id=1, object_id="update of birch"), public_key=b"")
Traceback (most recent call last):
aegis.errors.RequestRefused: an object of no message that this node was given
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
