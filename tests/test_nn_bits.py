"""The promise on bits, for what stands around the engine."""

from __future__ import annotations

import numpy as np
import pytest
from modules import drawn

import rnncore as rc
from rnncore import _rnncore, nn

LENGTHS = [40, 3, 17, 0, 40, 22]


def everything(dtype: str) -> list[bytes]:
    """Return all results and gradients of a model that uses every module, and of the losses."""
    options = {"dtype": dtype, "seed": 0}
    table = nn.Embedding(50, 32, **options)
    encoder = nn.TransformerEncoder(
        32, 4, 2, dim_feedforward=300, activation="gelu", dropout=0.2, **options
    )
    decoder = nn.TransformerDecoder(32, 4, dim_feedforward=64, **options)
    position, attention = (
        nn.PositionalEncoding(32, 0.1, **options),
        nn.Attention("additive", 32, **options),
    )
    output = nn.Linear(32, 50, weight=table, **options)
    draw = np.random.default_rng(1)
    words = draw.integers(0, 50, (40, 6))
    memory = encoder.forward(position.forward(table.forward(words)), lengths=LENGTHS)
    seen = decoder.forward(memory, memory, memory_lengths=LENGTHS)
    context = attention.forward(seen, memory, lengths=LENGTHS)
    logits = output.forward(context)
    losses = [
        nn.SoftmaxCrossEntropy(ignore_index=3, weight=np.arange(50)),
        nn.SigmoidCrossEntropy(),
        nn.MeanSquaredError("sum"),
    ]
    targets = [words, *(draw.random(logits.shape).astype(dtype) for _ in range(2))]
    values = [loss.forward(logits, t) for loss, t in zip(losses, targets, strict=True)]
    dlogits = sum(loss.backward() for loss in losses)
    dseen, dmemory = attention.backward(output.backward(dlogits))
    dx, more = decoder.backward(dseen)
    table.backward(position.backward(encoder.backward(dx + dmemory + more)))
    modules = [table, encoder, decoder, attention, output]
    grads = [grad for module in modules for grad in module.grads.values()]
    assert all(np.isfinite(grad).all() for grad in grads)
    return [array.tobytes() for array in (np.array(values), memory, seen, logits, *grads)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_depend_neither_on_runs_nor_on_threads(dtype: str) -> None:
    with rc.threads(1):
        expected = everything(dtype)
    for threads in (1, 2, 3):
        with rc.threads(threads):
            assert everything(dtype) == expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_avx2_and_avx512_have_the_same_bits(dtype: str) -> None:
    if not {"avx2", "avx512"} <= set(_rnncore.supported_isas()):
        pytest.skip("this machine lacks one of them")
    before, results = _rnncore.isa(), []
    try:
        for name in ("avx2", "avx512"):
            _rnncore.set_isa(name)
            results.append(everything(dtype))
    finally:
        _rnncore.set_isa(before)
    assert results[0] == results[1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("classes", [1, 15, 63, 64, 65, 10_000])
def test_the_softmax_loss_has_the_same_bits_on_both(dtype: str, classes: int) -> None:
    if not {"avx2", "avx512"} <= set(_rnncore.supported_isas()):
        pytest.skip("this machine lacks one of them")
    logits = 5 * drawn(30, classes, dtype=dtype)
    targets = np.random.default_rng(0).integers(0, classes, 30)
    before, results = _rnncore.isa(), []
    try:
        for name in ("avx2", "avx512"):
            _rnncore.set_isa(name)
            loss = nn.SoftmaxCrossEntropy()
            results.append((loss.forward(logits, targets), loss.backward().tobytes()))
    finally:
        _rnncore.set_isa(before)
    assert results[0] == results[1]
