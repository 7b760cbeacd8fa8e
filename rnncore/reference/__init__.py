"""The float64 reference: recurrent layers in plain NumPy, step by step, written to be read.

It is the oracle of every test. `steps` holds each cell's equations and their gradients, one step at
a time, in one table, out of the `activations` and `products` they are made of; `runs` adds what is
alike for all cells (resets, recurrent dropout, zoneout); `sequences` runs them over time,
directions, layers and ragged lengths. A cell is added by its two functions and its line in
`steps.CELLS`.

Examples
--------
>>> import numpy as np
>>> from rnncore.cells import CellSpec
>>> from rnncore import reference
>>> spec = CellSpec("rnn", input_size=1, hidden_size=1, bias=False)
>>> params = {"weight_ih_l0": np.array([[0.5]]), "weight_hh_l0": np.array([[2.0]])}
>>> y, hn, _, tape = reference.forward(spec, params, np.ones((2, 1, 1)))
>>> bool(y[1, 0, 0] == np.tanh(0.5 + 2.0 * np.tanh(0.5)))
True
"""

from rnncore.reference.sequences import Tape, backward, forward

__all__ = ["Tape", "backward", "forward"]
