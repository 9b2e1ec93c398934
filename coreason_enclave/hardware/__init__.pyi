from .devices import HostDevices as HostDevices
from .discovery import DEVICES as DEVICES
from .discovery import HARDWARE as HARDWARE
from .discovery import ThisHost as ThisHost
from .discovery import attester_named as attester_named
from .report_binding import bound_data_of_cpu as bound_data_of_cpu
from .report_binding import bound_data_of_gpu as bound_data_of_gpu
from .simulated import SimulatedAttester as SimulatedAttester
