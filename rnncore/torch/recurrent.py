"""Run a recurrence as a module of PyTorch: what its RNN, LSTM and GRU share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from rnncore.checks import flag, probability
from rnncore.layers.options import padded_activations, resolve, zoneout_rates
from rnncore.torch import checks, ops, specification
from rnncore.torch.masks import Rates, Sizes, draw

LACKING: dict[str, Any] = {
    "peephole": False,
    "coupled": False,
    "reset_after": True,
    "layer_norm": False,
    "zoneout": 0.0,
    "recurrent_dropout": 0.0,
    "variational": False,
    "activations": None,
    "clip": None,
    "recompute": False,
}
"""The options that torch's modules lack, with the values that stand for theirs."""


_FIELDS = ("peephole", "coupled", "reset_after", "layer_norm", "clip")


class _Input(NamedTuple):
    """A call's input inside the house: a batch, laid out as the module's own."""

    x: Tensor
    lengths: Tensor | None
    resets: Tensor | None
    batch_first: bool


class Recurrent(torch.nn.RNNBase):
    """Do what the three modules do alike.

    Only ``torch.nn.RNNBase`` is a base class: ``torch.compile`` refuses every instance of
    ``torch.nn.RNN``, ``LSTM`` and ``GRU``. What is set here and not in ``__init__`` holds for
    torch's own modules too, which :func:`rnncore.torch.accelerate` makes instances of this class.
    """

    cell: str
    nonlinearity: str = "tanh"
    options: Mapping[str, Any] = MappingProxyType({})
    param_names: tuple[str, ...] | None = None
    cell_options: str = specification.PLAIN
    zoneout_rates: tuple[float, float] = (0.0, 0.0)
    recurrent_dropout: float = 0.0
    variational: bool = False
    recompute: bool = False

    def __init__(self, mode: str, given: Mapping[str, Any]) -> None:
        """Build what torch's module is from its own arguments, and add the options it lacks."""
        lacking = {name: value for name, value in given.items() if name in LACKING}
        own = {name: value for name, value in given.items() if name not in LACKING}
        nonlinearity, dropout = own.pop("nonlinearity", None), own.pop("dropout")
        # torch warns of dropout with one layer, where a variational one acts
        super().__init__(mode, dropout=0.0 if lacking["variational"] else dropout, **own)
        if nonlinearity is not None:
            self.nonlinearity = nonlinearity
        self._add_options(lacking, dropout)

    def _add_options(self, given: Mapping[str, Any], dropout: float) -> None:
        """Check and keep the options that torch lacks, and draw their parameters."""
        chosen = {name: value for name, value in given.items() if value != LACKING[name]}
        if not chosen:
            return
        if given["variational"]:
            self.dropout = probability("dropout", dropout)
        self.recompute = flag("recompute", chosen.pop("recompute", False))
        sizes = {"input_size": self.input_size, "hidden_size": self.hidden_size}
        if self.cell == "rnn":
            chosen["nonlinearity"] = self.nonlinearity
        done = resolve(self.cell, chosen | sizes)
        self.options = {name: value for name, value in given.items() if value != LACKING[name]}
        self.recurrent_dropout, self.variational = done["recurrent_dropout"], done["variational"]
        self.zoneout_rates = zoneout_rates(self.cell, done["zoneout"])
        fields = {name: done[name] for name in _FIELDS if name in done}
        fields |= {
            "activations": padded_activations(done["activations"]),
            "zoneout": self.zoneout_rates,
        }
        self.cell_options = specification.write_options(fields)
        self._add_parameters()

    def _add_parameters(self) -> None:
        """Register the parameters that torch's modules lack where ``state_dict`` has them."""
        first = self.weight_ih_l0
        spec = specification.read(self._spec(), torch.float32)
        shapes = spec.param_shapes()
        if list(shapes) == self._flat_weights_names:
            return
        for name, shape in shapes.items():
            held = self._parameters.pop(name, None)
            if held is None:
                held = torch.nn.Parameter(first.new_empty(shape))
                _draw(name, held, spec.hidden_size)
            self.register_parameter(name, held)
        self.param_names = tuple(shapes)

    def reset_parameters(self) -> None:
        """Draw parameters anew, as torch does; gains of norms start at 1, their shifts at 0."""
        for name, parameter in self.named_parameters():
            _draw(name, parameter, self.hidden_size)

    def extra_repr(self) -> str:
        """Return the arguments that differ from their defaults."""
        shown = [f", {name}={value!r}" for name, value in self.options.items()]
        return str(super().extra_repr()) + "".join(shown)

    def forward(
        self, input: Any, hx: Any = None, lengths: Any = None, resets: Any = None
    ) -> tuple[Any, Any]:
        """Run a sequence.

        Parameters
        ----------
        input : Tensor (T, N, D), (N, T, D) with ``batch_first``, (T, D), or PackedSequence
            As the weights are: float32 or float64, on CUDA devices also float16 and bfloat16;
            under autocast anything narrower too.
        hx : Tensor (L*K, N, P), or a pair with (L*K, N, H) for an LSTM, optional
            Initial state; zeros if None. Unbatched without its second axis.
        lengths : N integers, optional
            Length of each sequence, from 0 to T, in any order; not with a PackedSequence.
            ``output`` is zero past a length, and a state is the one at its sequence's end.
        resets : bool Tensor (T, N), laid out as `input`, optional
            True marks the first step of a segment, which no state and no gradient enters.

        Returns
        -------
        output : Tensor (T, N, K*P), or PackedSequence
            As `input` is laid out.
        hn : Tensor, or a pair
            State at each sequence's end.

        Raises
        ------
        TypeError, ValueError
            If a dtype or a shape is wrong, or a length is not from 0 to T.
        NotImplementedError
            If a tensor is on a device, or of a dtype, that is not computed on or in.
        """
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx, lengths, resets)
        x = checks.tensor("input", input)
        batched = self._check_input(x)
        batch_first = self.batch_first and batched
        if not batched:
            x = x.unsqueeze(1)
        batch = x.shape[0 if batch_first else 1]
        state = self._take_state(hx, batch, batched)
        if lengths is not None:
            lengths = checks.lengths(lengths, batch, batched, x.device)
        if resets is not None:
            resets = checks.resets(resets, tuple(input.shape[:-1])).reshape(x.shape[:2])
        y, final = self._run(_Input(x, lengths, resets, batch_first), state)
        if batched:
            return y, self._give_state(final)
        return y.squeeze(1), self._give_state([part.squeeze(1) for part in final])

    def _forward_packed(
        self, packed: PackedSequence, hx: Any, lengths: Any, resets: Any
    ) -> tuple[PackedSequence, Any]:
        if lengths is not None:
            raise ValueError("lengths: expected None, since a PackedSequence has its own")
        data, sizes, order, original = packed
        self._check_input(data.unsqueeze(1))
        x, lengths = pad_packed_sequence(PackedSequence(data, sizes))  # the longest first
        batch = x.shape[1]
        state = self._take_state(hx, batch, True)
        if resets is not None:
            outer = (batch, x.shape[0]) if self.batch_first else (x.shape[0], batch)
            resets = checks.resets(resets, outer)
            resets = resets.t() if self.batch_first else resets
        if order is not None:
            state = [part.index_select(1, order) for part in state]
            resets = None if resets is None else resets.index_select(1, order)
        y, final = self._run(_Input(x, lengths, resets, False), state)
        if original is not None:
            final = [part.index_select(1, original) for part in final]
        y_data = pack_padded_sequence(y, lengths).data
        return PackedSequence(y_data, sizes, order, original), self._give_state(final)

    def _run(self, given: _Input, state: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Call the operator; returns y and the parts of the final state."""
        weights = [getattr(self, name) for name in self.param_names or self._flat_weights_names]
        x, h0, c0, keep = checks.operands(given.x, state, weights)
        masks = self._draw_masks(x, given.batch_first) if self.training else []
        y, hn, cn, _ = ops.forward(
            x, h0, c0, weights, given.lengths, given.resets, masks,
            self._spec(), given.batch_first, self.recompute, keep, True,
        )  # fmt: skip
        return y, [hn, cn] if self.cell == "lstm" else [hn]

    def _spec(self) -> str:
        directions = 2 if self.bidirectional else 1
        sizes = (self.input_size, self.hidden_size, self.num_layers, directions, self.proj_size)
        return specification.write(
            self.cell, sizes, self.bias, self.nonlinearity, self.cell_options
        )

    def _draw_masks(self, x: Tensor, batch_first: bool) -> list[Tensor]:
        rates = Rates(self.dropout, self.variational, self.recurrent_dropout, *self.zoneout_rates)
        if not rates.draws(self.num_layers):
            return []
        first, second = x.shape[:2]
        outputs, directions = self.proj_size or self.hidden_size, 2 if self.bidirectional else 1
        sizes = Sizes(
            second if batch_first else first,
            first if batch_first else second,
            self.input_size,
            directions * outputs,
            outputs,
            self.hidden_size,
            self.num_layers,
            directions,
        )
        return draw(rates, sizes, x)

    def _check_input(self, x: Tensor) -> bool:
        """Refuse an input of another form; return whether it is a batch."""
        checks.same_device("input", x, self.weight_ih_l0)
        if x.dim() not in (2, 3) or x.shape[-1] != self.input_size:
            outer = "(N, T, " if self.batch_first else "(T, N, "
            expected = f"{outer}{self.input_size}) or (T, {self.input_size})"
            raise ValueError(f"input: expected {expected}, got {tuple(x.shape)}")
        return bool(x.dim() == 3)

    def _take_state(self, hx: Any, batch: int, batched: bool) -> list[Tensor]:
        """Return the parts of a state, with a batch axis; none for None."""
        if hx is None:
            return []
        rows = self.num_layers * (2 if self.bidirectional else 1)
        shapes = [
            (rows, batch, width) if batched else (rows, width)
            for width in (self.proj_size or self.hidden_size, self.hidden_size)
        ]
        parts = checks.state(hx, self.cell == "lstm", shapes, self.weight_ih_l0)
        return parts if batched else [part.unsqueeze(1) for part in parts]

    def _give_state(self, parts: Sequence[Tensor]) -> Any:
        return tuple(parts) if self.cell == "lstm" else parts[0]


def _draw(name: str, parameter: Tensor, units: int) -> None:
    if not name.startswith("norm_"):
        bound = 1.0 / math.sqrt(units)  # torch's own, to the bit
        torch.nn.init.uniform_(parameter, -bound, bound)
    elif name.startswith("norm_c_bias"):
        torch.nn.init.zeros_(parameter)
    else:
        torch.nn.init.ones_(parameter)
