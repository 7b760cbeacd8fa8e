"""Layers that users write over a cell that is there: a signature, and everything else works."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import assert_array_same_bits

import rnncore as rc
from rnncore.layers import options
from rnncore.layers.recurrent import Recurrent

OWN = {
    rc.RNN: {"nonlinearity"},
    rc.LSTM: {"proj_size", "peephole", "coupled", "forget_bias"},
    rc.GRU: {"reset_after"},
}


class Gated(Recurrent):
    """A GRU under another name."""

    def __init__(self, input_size: int, hidden_size: int, **options: Any) -> None:
        sizes = {"input_size": input_size, "hidden_size": hidden_size}
        super().__init__("gru", sizes | options)


X = np.random.default_rng(0).standard_normal((6, 2, 3)).astype(np.float32)


def test_it_computes_what_the_layer_of_its_cell_does(tmp_path: Path) -> None:
    chosen = {"num_layers": 2, "zoneout": 0.25, "reset_after": False, "seed": 1}
    own, theirs = Gated(3, 4, **chosen), rc.GRU(3, 4, **chosen)
    y, _ = theirs.forward(X)
    assert_array_same_bits(own.forward(X)[0], y)
    assert_array_same_bits(own.backward(y)[0], theirs.backward(y)[0])
    y, _ = theirs(X)
    assert_array_same_bits(own.freeze()(X)[0], y)
    assert_array_same_bits(own.freeze().stream(batch=2).step(X[0]), y[0])
    rc.save(tmp_path / "layer", own)
    for copy in (rc.load(tmp_path / "layer"), pickle.loads(pickle.dumps(own))):
        assert isinstance(copy, Gated)
        assert_array_same_bits(copy(X)[0], y)


def test_its_repr_shows_what_differs_from_the_defaults() -> None:
    own = Gated(3, 4, clip=2.0, num_layers=2, bias=True, seed=1)
    assert repr(own) == "Gated(3, 4, num_layers=2, clip=2.0)"


def test_arguments_that_its_cell_lacks_are_refused() -> None:
    for name in ("peephole", "nonlinearity", "unheard_of"):
        with pytest.raises(TypeError, match=f"{name}: expected one of"):
            Gated(3, 4, **{name: True})


@pytest.mark.parametrize("kind", OWN)
def test_the_table_of_common_arguments_has_the_defaults_of_every_layer(kind: type) -> None:
    signature = inspect.signature(kind).parameters.values()
    defaults = {given.name: given.default for given in signature}
    own = {name: defaults.pop(name) for name in OWN[kind]}
    assert {**dict.fromkeys(("input_size", "hidden_size"), inspect.Parameter.empty),
            **options.COMMON} == defaults  # fmt: skip
    assert set(own) == set(options._OWN[kind(3, 4).spec.cell])
