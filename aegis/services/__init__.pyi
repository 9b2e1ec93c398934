from .participants import Pinned as Pinned
from .participants import admit as admit
from .participants import create_federation as create_federation
from .participants import free_ports as free_ports
from .participants import pin as pin
from .participants import prepare_network as prepare_network
from .participants import revoke as revoke
