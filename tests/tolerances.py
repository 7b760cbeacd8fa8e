"""How close is close: every tolerance of the suite, with its reason.

u is the unit roundoff of a type: 2^-24 for float32, 2^-53 for float64. A float32 result is never
compared with another float32 implementation but with a float64 one run on the same float32 values.
"""

from __future__ import annotations

import math

import numpy as np

UNIT_ROUNDOFF = {"float32": 2.0**-24, "float64": 2.0**-53}

LARGEST_ENTRY = {
    # (dtype, what): the largest difference allowed, as a share of the largest entry expected.
    # float32: hundreds of u, some ten times what random problems of T <= 20, D, H <= 70 show.
    ("float32", "forward"): 2e-5,
    ("float32", "gradient"): 2e-4,
    # float64: two float64 implementations that sum in different orders.
    ("float64", "forward"): 1e-12,
    ("float64", "gradient"): 1e-11,
}

# Roundings, of the largest gradient that a call was given (dy, dhn, dcn), by which every gradient
# may be off besides. Results may cancel: dx is a sum over units, gates and directions, and behind a
# layer norm of a product of one or two inputs only what its epsilon makes is left of it. Its terms
# are as large as what was given, or larger, and each is rounded. Of 600 random problems in float64
# four have a dx of 1e-6 to 1e-4 of that; float64 implementations differ there by up to 12 u of what
# was given, and the reference does from itself in extended precision. A term that is wrong by 1e-9
# of itself is off by 1e5 times as much as this allows.
CANCELLED = 64

# Central differences with eps 1e-6 err by about eps^2 f''' / 6 = 1e-12 and u |loss| / eps = 1e-9.
FINITE_DIFFERENCE_STEP = 1e-6
FINITE_DIFFERENCE = {"rtol": 1e-5, "atol": 1e-7}

# Activations, in units in the last place of the correctly rounded result. Subnormal inputs and
# results count as zero, so there the error may be as large as the smallest normal number.
ACTIVATION_ULP = {"float32": 2.0, "float64": 4.0}

# What flushing subnormal numbers to zero may change in a norm: far more than (D+H) 2^-126 a step.
FLUSHED = 1e-30


def forward_l2(dtype: str, D: int, H: int, layers: int = 1) -> float:
    """Bound the relative L2 error of y, h and c in the contractive regime; T does not enter.

    A product of D+H terms errs like a random walk, sqrt(D+H) u; 8 u is for the activations.
    """
    return layers * (8 + math.sqrt(D + H)) * UNIT_ROUNDOFF[dtype]


def gradient_l2(dtype: str, D: int, H: int, T: int, N: int, layers: int = 1) -> float:
    """Bound the relative L2 error of a gradient: as forward, and a sum over T*N steps."""
    return layers * (8 + math.sqrt(D + H) + math.sqrt(T * N)) * UNIT_ROUNDOFF[dtype]


def relative_l2(actual: np.ndarray, expected: np.ndarray) -> float:
    """Return ``|actual - expected| / |expected|`` in the L2 norm, forgiving flushed subnormals."""
    difference = float(np.linalg.norm(actual.astype(np.float64) - expected))
    return max(0.0, difference - FLUSHED) / max(float(np.linalg.norm(expected)), FLUSHED)
