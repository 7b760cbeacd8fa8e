"""Look into a recurrent network that does not learn: gradients by time, by parameter, by gate.

What to look for is in Bengio, Simard and Frasconi (1994) and in Pascanu, Mikolov and Bengio (2013):
a gradient is multiplied by the recurrent weights once a step, so over many steps it vanishes or
explodes. Clipping bounds what explodes, gates give it a way around.
"""

from rnncore.diagnose.experiments import cell_flows, clipping_runs, with_radius
from rnncore.diagnose.gradient_flow import gradient_flow
from rnncore.diagnose.measures import (
    Norms,
    Spectrum,
    StepRatio,
    parameter_norms,
    recurrent_spectra,
    step_ratio,
)
from rnncore.diagnose.pictures import draw_gradient_flow, draw_remedies

__all__ = [
    "Norms",
    "Spectrum",
    "StepRatio",
    "cell_flows",
    "clipping_runs",
    "draw_gradient_flow",
    "draw_remedies",
    "gradient_flow",
    "parameter_norms",
    "recurrent_spectra",
    "step_ratio",
    "with_radius",
]
