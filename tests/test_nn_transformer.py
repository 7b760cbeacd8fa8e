"""Transformers and positional encoding: gradients, PyTorch's numbers, lengths."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from modules import assert_close, assert_gradients_match_differences, drawn, stir

from rnncore import nn

T, S, N, E_DIM, HEADS, HIDDEN = 3, 4, 2, 4, 2, 5
OPTIONS = [
    {"activation": activation, "norm_first": norm_first}
    for activation in ("relu", "gelu")
    for norm_first in (False, True)
]


def make(kind: type, num_layers: int = 2, **options: object):
    model = kind(
        E_DIM, HEADS, num_layers, dim_feedforward=HIDDEN, dtype="float64", seed=1,
        **{"dropout": 0.0, **options},
    )  # fmt: skip
    stir(model)
    return model


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_the_encoders_gradients_match_differences(options: dict, causal: bool) -> None:
    encoder, x = make(nn.TransformerEncoder, **options), drawn(T, N, E_DIM)
    assert_gradients_match_differences(
        encoder, {"x": x}, lambda: encoder.forward(x, lengths=[3, 2], causal=causal)
    )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_decoders_gradients_match_differences(options: dict) -> None:
    decoder = make(nn.TransformerDecoder, **options)
    x, memory = drawn(T, N, E_DIM), drawn(S, N, E_DIM, seed=1)
    assert_gradients_match_differences(
        decoder,
        {"x": x, "memory": memory},
        lambda: decoder.forward(x, memory, lengths=[2, 3], memory_lengths=[4, 3]),
    )


def torch_model(ours, kind: str, options: dict, batch_first: bool):
    torch = pytest.importorskip("torch")
    layer = getattr(torch.nn, f"Transformer{kind}Layer")(
        E_DIM, HEADS, HIDDEN, 0.0, batch_first=batch_first, dtype=torch.float64, **options
    )
    norm = torch.nn.LayerNorm(E_DIM, dtype=torch.float64) if options["norm_first"] else None
    plain = {"enable_nested_tensor": False} if kind == "Encoder" else {}
    theirs = getattr(torch.nn, f"Transformer{kind}")(layer, 2, norm, **plain)
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in ours.state_dict().items()})
    return torch, theirs


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("batch_first", [False, True])
def test_the_encoder_equals_pytorchs(options: dict, batch_first: bool) -> None:
    ours = make(nn.TransformerEncoder, batch_first=batch_first, **options)
    torch, theirs = torch_model(ours, "Encoder", options, batch_first)
    shape = (N, S, E_DIM) if batch_first else (S, N, E_DIM)
    x, dy, lengths = drawn(*shape), drawn(*shape, seed=3), np.array([4, 2])
    past = np.arange(S) >= lengths[:, None]
    dy[past if batch_first else past.T] = 0
    tensor = torch.tensor(x, requires_grad=True)
    y = theirs(tensor, src_key_padding_mask=torch.from_numpy(past))
    y.backward(torch.from_numpy(dy))
    expected = y.detach().numpy().copy()
    expected[past if batch_first else past.T] = 0  # ours is zero past the end, as a layer's is
    assert_close(ours.forward(x, lengths=lengths), expected)
    assert_close(ours.backward(dy), tensor.grad)
    for name, param in theirs.named_parameters():
        assert_close(ours.grads[name], param.grad, name)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_decoder_equals_pytorchs(options: dict) -> None:
    ours = make(nn.TransformerDecoder, **options)
    torch, theirs = torch_model(ours, "Decoder", options, False)
    x, memory, dy = drawn(T, N, E_DIM), drawn(S, N, E_DIM, seed=1), drawn(T, N, E_DIM, seed=3)
    tensors = [torch.tensor(array, requires_grad=True) for array in (x, memory)]
    causal = torch.triu(torch.ones(T, T, dtype=torch.bool), 1)
    unseen = torch.from_numpy(np.arange(S) >= np.array([[4], [2]]))
    y = theirs(*tensors, tgt_mask=causal, memory_key_padding_mask=unseen)
    y.backward(torch.from_numpy(dy))
    assert_close(ours.forward(x, memory, memory_lengths=[4, 2]), y)
    for got, tensor in zip(ours.backward(dy), tensors, strict=True):
        assert_close(got, tensor.grad)
    for name, param in theirs.named_parameters():
        assert_close(ours.grads[name], param.grad, name)


def test_what_lies_past_a_length_comes_neither_through_nor_back() -> None:
    encoder, x = make(nn.TransformerEncoder), drawn(S, N, E_DIM)
    expected = encoder(x, lengths=[4, 1])
    assert not expected[1:, 1].any()
    alone = encoder(x[:1, 1])
    np.testing.assert_array_equal(expected[:1, 1], alone)
    x[1:, 1] = np.nan
    y = encoder.forward(x, lengths=[4, 1])
    np.testing.assert_array_equal(y, expected)
    dx = encoder.backward(np.ones_like(y))
    assert not dx[1:, 1].any()
    assert all(np.isfinite(grad).all() for grad in encoder.grads.values())


def test_a_causal_decoder_does_not_see_what_comes() -> None:
    decoder = make(nn.TransformerDecoder)
    x, memory = drawn(T, N, E_DIM), drawn(S, N, E_DIM, seed=1)
    before = decoder(x, memory)
    x[2] += 1
    after = decoder(x, memory)
    np.testing.assert_array_equal(after[:2], before[:2])
    assert (after[2] != before[2]).all()
    assert (decoder(x, memory, causal=False)[:2] != after[:2]).any()


@pytest.mark.parametrize("kind", [nn.TransformerEncoder, nn.TransformerDecoder])
def test_dropout_trains_and_spares_inference(kind: type) -> None:
    model, x = make(kind, dropout=0.4), drawn(T, N, E_DIM)
    given = [x] if kind is nn.TransformerEncoder else [x, drawn(S, N, E_DIM, seed=1)]
    plain = make(kind)
    plain.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(model(*given), plain(*given))
    twin = copy.deepcopy(model)
    y = model.forward(*given)
    assert (y != plain(*given)).any()
    np.testing.assert_array_equal(twin.forward(*given), y)
    states = [(part, part.rng_state) for part in dropouts(model)]
    assert len(states) >= 4

    def same_masks() -> np.ndarray:
        for part, state in states:
            part.rng_state = state
        return model.forward(*given)

    names = ["x", "memory"][: len(given)]
    assert_gradients_match_differences(model, dict(zip(names, given, strict=True)), same_masks)


def dropouts(module) -> list[nn.Dropout]:
    if isinstance(module, nn.Dropout):
        return [module]
    return [found for _, part in module.parts() for found in dropouts(part)]


@pytest.mark.parametrize("shape", [(0, 2), (2, 0), (1, 1)])
def test_empty_and_single_sequences(shape: tuple[int, int]) -> None:
    encoder, decoder = make(nn.TransformerEncoder), make(nn.TransformerDecoder)
    x = np.ones((*shape, E_DIM))
    assert encoder.forward(x).shape == x.shape
    assert encoder.backward(x).shape == x.shape
    memory = np.ones((0, shape[1], E_DIM))
    assert decoder.forward(x, memory).shape == x.shape
    dx, dmemory = decoder.backward(x)
    assert (dx.shape, dmemory.shape) == (x.shape, memory.shape)


def test_transformers_name_what_they_refuse() -> None:
    encoder, decoder, x = make(nn.TransformerEncoder), make(nn.TransformerDecoder), drawn(T, N, 4)
    with pytest.raises(ValueError, match="activation: expected one of 'relu', 'gelu'"):
        nn.TransformerEncoder(4, 2, activation="swish")
    with pytest.raises(ValueError, match="num_heads: expected a divisor"):
        nn.TransformerEncoder(4, 3)
    with pytest.raises(ValueError, match="num_layers"):
        nn.TransformerEncoder(4, 2, 0)
    with pytest.raises(ValueError, match="x: expected"):
        encoder(drawn(T, N, 5))
    with pytest.raises(TypeError, match="expected dtype float64, got float32"):
        encoder(x.astype(np.float32))
    with pytest.raises(ValueError, match=r"lengths\[0\]: expected 0 to 3, got 4"):
        encoder(x, lengths=[4, 1])
    with pytest.raises(ValueError, match=r"memory_lengths\[0\]: expected 0 to 3, got 4"):
        decoder(x, x, memory_lengths=[4, 1])
    with pytest.raises(ValueError, match="memory: expected N=2"):
        decoder(x, drawn(T, 3, 4))
    with pytest.raises(RuntimeError, match="expected a forward"):
        encoder.backward(x)


def test_positions_are_sines_and_cosines() -> None:
    encoding = nn.PositionalEncoding(5, dtype="float64")
    y = encoding(np.zeros((7, 1, 5)))
    for t in range(7):
        for i in range(5):
            angle = t / 10000 ** (2 * (i // 2) / 5)
            assert y[t, 0, i] == pytest.approx((math.sin, math.cos)[i % 2](angle), abs=1e-15)
    x = drawn(7, 3, 5)
    assert_close(encoding(x) - x, np.broadcast_to(y, x.shape))
    np.testing.assert_array_equal(encoding(x[3:], start=3), encoding(x)[3:])
    turned = nn.PositionalEncoding(5, batch_first=True, dtype="float64")
    np.testing.assert_array_equal(turned(x.swapaxes(0, 1)), encoding(x).swapaxes(0, 1))
    np.testing.assert_array_equal(encoding(x[:, 0]), encoding(x)[:, 0])


def test_positional_encoding_passes_gradients_through_its_dropout() -> None:
    encoding, x = nn.PositionalEncoding(4, 0.5, dtype="float64", seed=0), drawn(5, 2, 4)
    y = encoding.forward(x)
    kept = y != 0
    assert 0 < kept.sum() < kept.size
    np.testing.assert_array_equal(encoding.backward(np.ones_like(x)), np.where(kept, 2.0, 0.0))
    with pytest.raises(ValueError, match="start"):
        encoding(x, start=-1)
