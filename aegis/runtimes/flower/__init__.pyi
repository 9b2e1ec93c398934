from .crowding import naming_a_full_gateway as naming_a_full_gateway
from .federation_process import await_serving as await_serving
from .federation_process import federation_running as federation_running
from .federation_process import serve_command as serve_command
from .sites import connected_sites as connected_sites
from .supervisor import FederationHost as FederationHost
from .supervisor import HostOptions as HostOptions
from .supervisor import Supervisor as Supervisor
