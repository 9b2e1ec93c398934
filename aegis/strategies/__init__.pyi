from .server import Moments as Moments
from .server import server_step as server_step
from .variates import correction as correction
from .variates import next_server_control as next_server_control
from .variates import next_site_control as next_site_control
