"""The gateway: the only port that sites reach, in front of Flower's SuperLink.

Enters: HTTPS requests under a site's client certificate.
Leaves: fleet requests that fit the state of the site's node.
Never: reads a sealed update, holds a signing key of the coordinator, or lets a site speak for another site.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
