"""Attention and MultiHeadAttention: gradients, PyTorch's numbers, lengths, what they refuse."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from modules import assert_close, assert_gradients_match_differences, drawn, stir

from rnncore import nn

T, S, N = 3, 4, 2
LENGTHS = [4, 2]


def single(kind: str, **options: object) -> nn.Attention:
    sizes = {"dot": (None, None), "general": (3, 5), "additive": (3, 5, 4)}[kind]
    return nn.Attention(kind, *sizes, dtype="float64", seed=1, **options)


def arrays_for(kind: str) -> dict[str, np.ndarray]:
    return {"query": drawn(T, N, 3), "keys": drawn(S, N, 3 if kind == "dot" else 5, seed=1)}


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("kind", ["dot", "general", "additive"])
def test_gradients_match_differences(kind: str, lengths) -> None:
    attention, inputs = single(kind), arrays_for(kind)
    assert_gradients_match_differences(
        attention, inputs, lambda: attention.forward(*inputs.values(), lengths=lengths)
    )
    inputs["values"] = drawn(S, N, 6, seed=2)
    assert_gradients_match_differences(
        attention, inputs, lambda: attention.forward(*inputs.values(), lengths=lengths)
    )


@pytest.mark.parametrize("kind", ["dot", "general"])
def test_scaled_gradients_match_differences(kind: str) -> None:
    assert_gradients_match_differences(single(kind, scaled=True), arrays_for(kind))


@pytest.mark.parametrize("kind", ["dot", "general", "additive"])
def test_contexts_are_the_formula_step_by_step(kind: str) -> None:
    attention, inputs = single(kind), arrays_for(kind)
    query, keys = inputs.values()
    values = drawn(S, N, 6, seed=2)
    got = attention(query, keys, values, lengths=LENGTHS)
    p = attention.params
    for n in range(N):
        for t in range(T):
            q, k = query[t, n], keys[: LENGTHS[n], n]
            scores = {
                "dot": lambda q=q, k=k: k @ q,
                "general": lambda q=q, k=k: k @ (q @ p["weight"]),
                "additive": lambda q=q, k=k: (
                    np.tanh(p["weight_query"] @ q + k @ p["weight_key"].T) @ p["weight_score"]
                ),
            }[kind]()
            shares = np.exp(scores) / np.exp(scores).sum()
            assert_close(got[t, n], shares @ values[: LENGTHS[n], n])
            assert_close(attention.weights[n, t, : LENGTHS[n]], shares)
            assert not attention.weights[n, t, LENGTHS[n] :].any()


def test_layouts_are_one_computation() -> None:
    attention, inputs = single("general"), arrays_for("general")
    query, keys = inputs.values()
    y = attention.forward(query, keys, lengths=LENGTHS)
    dquery, dkeys = attention.backward(y)
    turned = single("general", batch_first=True)
    z = turned.forward(query.swapaxes(0, 1), keys.swapaxes(0, 1), lengths=LENGTHS)
    np.testing.assert_array_equal(z, y.swapaxes(0, 1))
    dturned = turned.backward(z)
    np.testing.assert_array_equal(dturned[0], dquery.swapaxes(0, 1))
    np.testing.assert_array_equal(dturned[1], dkeys.swapaxes(0, 1))
    alone = attention.forward(query[:, 1], keys[:, 1], lengths=2)
    np.testing.assert_array_equal(alone, y[:, 1])
    assert attention.weights.shape == (T, S)
    assert attention.backward(alone)[1].shape == (S, 5)


def test_one_step_of_queries_is_a_decoders_step() -> None:
    attention, (query, keys) = single("additive"), arrays_for("additive").values()
    whole = attention(query, keys, lengths=LENGTHS)
    step = attention.forward(query[1], keys, lengths=LENGTHS)
    np.testing.assert_array_equal(step, whole[1])
    assert attention.weights.shape == (N, S)
    dquery, dkeys = attention.backward(step)
    assert (dquery.shape, dkeys.shape) == ((N, 3), (S, N, 5))


@pytest.mark.parametrize("kind", ["dot", "general", "additive"])
def test_what_lies_past_a_length_does_not_come_through(kind: str) -> None:
    attention, (query, keys) = single(kind), arrays_for(kind).values()
    values = drawn(S, N, 6, seed=2)
    expected = attention(query, keys, values, lengths=[4, 0])
    assert not expected[:, 1].any()
    keys[0:, 1] = np.nan
    values[0:, 1] = np.inf
    got = attention.forward(query, keys, values, lengths=[4, 0])
    np.testing.assert_array_equal(got, expected)
    for gradient in attention.backward(np.ones_like(got)):
        assert np.isfinite(gradient).all()
        assert not gradient[:, 1].any()
    assert all(np.isfinite(grad).all() for grad in attention.grads.values())


def test_large_scores_do_not_overflow() -> None:
    attention = nn.Attention("dot")
    keys = np.array([[[1e4]], [[-1e4]], [[9e3]]], np.float32)
    y = attention(np.full((1, 1, 1), 1e4, np.float32), keys)
    np.testing.assert_array_equal(y, [[[1e4]]])


@pytest.mark.parametrize("shape", [(0, 2, 4, 3), (2, 0, 4, 3), (2, 2, 0, 3), (1, 1, 1, 1)])
def test_empty_and_single_sequences(shape: tuple[int, ...]) -> None:
    steps, rows, seen, width = shape
    attention = nn.Attention("general", width, seed=0)
    y = attention.forward(
        np.ones((steps, rows, width), np.float32), np.ones((seen, rows, width), np.float32)
    )
    assert y.shape == (steps, rows, width)
    dquery, dkeys = attention.backward(y)
    assert (dquery.shape, dkeys.shape) == ((steps, rows, width), (seen, rows, width))
    if seen == 0:
        assert not y.any()


def test_attention_names_what_it_refuses() -> None:
    attention, (query, keys) = single("general"), arrays_for("general").values()
    with pytest.raises(RuntimeError, match="expected a forward"):
        attention.backward(query)
    with pytest.raises(ValueError, match=r"query: expected \(T, N, 3\), got \(3, 2, 4\)"):
        attention(drawn(3, 2, 4), keys)
    with pytest.raises(ValueError, match="keys: expected N=2"):
        attention(query, drawn(4, 3, 5))
    with pytest.raises(ValueError, match="values: expected as many as keys"):
        attention(query, keys, drawn(3, 2, 5))
    with pytest.raises(ValueError, match=r"lengths\[1\]: expected 0 to 4, got 5"):
        attention(query, keys, lengths=[1, 5])
    with pytest.raises(ValueError, match="kind: expected one of"):
        nn.Attention("cosine")
    with pytest.raises(ValueError, match="query_size: expected a size"):
        nn.Attention("general")
    with pytest.raises(ValueError, match="hidden_size: has no meaning"):
        nn.Attention("dot", hidden_size=3)
    with pytest.raises(ValueError, match="key_size: expected query_size=3"):
        nn.Attention("dot", 3, 4)
    with pytest.raises(ValueError, match="scaled: has no meaning"):
        nn.Attention("additive", 3, scaled=True)
    attention.forward(query, keys)
    with pytest.raises(ValueError, match="dy: expected"):
        attention.backward(drawn(3, 2, 4))
    assert not attention.grads["weight"].any()


# --- several heads --------------------------------------------------------------------------------

E_DIM, HEADS = 6, 2


def multi(**options: object) -> nn.MultiHeadAttention:
    attention = nn.MultiHeadAttention(E_DIM, HEADS, dtype="float64", seed=1, **options)
    stir(attention)
    return attention


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_self_attentions_gradients_match_differences(causal: bool, bias: bool) -> None:
    attention, x = multi(bias=bias), drawn(S, N, E_DIM)
    assert_gradients_match_differences(
        attention, {"x": x}, lambda: attention.forward(x, lengths=[4, 3], causal=causal)
    )


@pytest.mark.parametrize("given", [2, 3])
def test_cross_attentions_gradients_match_differences(given: int) -> None:
    sizes = {} if given == 2 else {"kdim": 3, "vdim": 5}
    attention = multi(**sizes)
    inputs = {"query": drawn(T, N, E_DIM), "key": drawn(S, N, E_DIM if given == 2 else 3, seed=1)}
    if given == 3:
        inputs["value"] = drawn(S, N, 5, seed=2)
    assert_gradients_match_differences(
        attention, inputs, lambda: attention.forward(*inputs.values(), lengths=LENGTHS)
    )


def torch_attention(ours: nn.MultiHeadAttention, **options: object):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.MultiheadAttention(E_DIM, HEADS, dtype=torch.float64, **options)
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in ours.state_dict().items()})
    return torch, theirs


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_multi_head_attention_equals_pytorchs(causal: bool, batch_first: bool) -> None:
    ours = multi(batch_first=batch_first)
    torch, theirs = torch_attention(ours, batch_first=batch_first)
    shape = (N, S, E_DIM) if batch_first else (S, N, E_DIM)
    x, lengths = drawn(*shape), np.array([4, 3])
    tensor = torch.tensor(x, requires_grad=True)
    mask = torch.triu(torch.ones(S, S, dtype=torch.bool), 1) if causal else None
    padding = torch.from_numpy(np.arange(S) >= lengths[:, None])
    y, weights = theirs(tensor, tensor, tensor, padding, attn_mask=mask, average_attn_weights=False)
    assert_close(ours.forward(x, lengths=lengths, causal=causal), y)
    assert_close(ours.weights, weights)
    dy = drawn(*shape, seed=3)
    y.backward(torch.from_numpy(dy))
    assert_close(ours.backward(dy), tensor.grad)
    for name, param in theirs.named_parameters():
        assert_close(ours.grads[name], param.grad, name)


def test_cross_attention_with_other_sizes_equals_pytorchs() -> None:
    ours = multi(kdim=3, vdim=5)
    torch, theirs = torch_attention(ours, kdim=3, vdim=5)
    arrays = [drawn(T, N, E_DIM), drawn(S, N, 3, seed=1), drawn(S, N, 5, seed=2)]
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    y, _ = theirs(*tensors)
    assert_close(ours.forward(*arrays), y)
    dy = drawn(T, N, E_DIM, seed=3)
    y.backward(torch.from_numpy(dy))
    for got, tensor in zip(ours.backward(dy), tensors, strict=True):
        assert_close(got, tensor.grad)
    for name, param in theirs.named_parameters():
        assert_close(ours.grads[name], param.grad, name)


def test_keys_past_a_length_are_not_seen_and_none_seen_mixes_zeros() -> None:
    attention, query, key = multi(), drawn(T, N, E_DIM), drawn(S, N, E_DIM, seed=1)
    expected = attention(query, key, lengths=[2, 0])
    np.testing.assert_array_equal(
        expected[:, 1], np.tile(attention.params["out_proj.bias"], (T, 1))
    )
    key[2:, 0], key[:, 1] = np.nan, np.inf
    got = attention.forward(query, key, lengths=[2, 0])
    np.testing.assert_array_equal(got, expected)
    dquery, dkey = attention.backward(np.ones_like(got))
    assert np.isfinite(dquery).all()
    assert not dkey[2:, 0].any()
    assert not dkey[:, 1].any()
    assert all(np.isfinite(grad).all() for grad in attention.grads.values())


def test_a_row_has_the_same_bits_alone_and_in_a_batch() -> None:
    attention, x = multi(), drawn(S, 5, E_DIM)
    whole = attention(x, lengths=[4, 1, 3, 2, 4], causal=True)
    for n, length in enumerate([4, 1, 3, 2, 4]):
        np.testing.assert_array_equal(attention(x[:, n], lengths=length, causal=True), whole[:, n])


def test_dropout_of_shares_repeats_from_its_state_and_spares_inference() -> None:
    attention, x = multi(dropout=0.5), drawn(S, N, E_DIM)
    before = attention.dropout.rng_state
    y = attention.forward(x)
    assert (y != attention(x)).any()
    attention.dropout.rng_state = before
    assert_gradients_match_differences(attention, {"x": x}, lambda: repeat(attention, x, before))
    np.testing.assert_array_equal(repeat(attention, x, before), y)


def repeat(attention: nn.MultiHeadAttention, x: np.ndarray, state: dict) -> np.ndarray:
    attention.dropout.rng_state = state
    return attention.forward(x)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_forget_the_call(copied) -> None:
    attention, x = multi(), drawn(S, N, E_DIM)
    y = attention.forward(x)
    other = copied(attention)
    assert other.weights is None
    np.testing.assert_array_equal(other(x), y)
    with pytest.raises(RuntimeError, match="expected a forward"):
        other.backward(y)


def test_reprs_tell_sizes_and_parts() -> None:
    lines = repr(nn.MultiHeadAttention(4, 2, kdim=3)).splitlines()
    assert lines[0] == "MultiHeadAttention("
    assert lines[1].strip().startswith("4, 2, bias=True, kdim=3, vdim=4")
    assert lines[2].strip().startswith("out_proj: Linear(4, 4")
    assert repr(nn.Attention("general", 3, 5)) == (
        "Attention('general', query_size=3, key_size=5, batch_first=False, dtype='float32')"
    )


def test_multi_head_attention_names_what_it_refuses() -> None:
    attention, x = multi(), drawn(S, N, E_DIM)
    with pytest.raises(ValueError, match="num_heads: expected a divisor of 6, got 4"):
        nn.MultiHeadAttention(6, 4)
    with pytest.raises(ValueError, match="key: expected an array beside value"):
        attention(x, None, x)
    with pytest.raises(ValueError, match="key: expected an array of 3 features"):
        multi(kdim=3)(x)
    with pytest.raises(ValueError, match="value: expected as many steps as key, 4"):
        attention(x, x, x[:3])
    with pytest.raises(ValueError, match="key: expected N=2"):
        attention(x, drawn(S, 3, E_DIM))
    with pytest.raises(TypeError, match="causal"):
        attention(x, causal=1)
    with pytest.raises(RuntimeError, match="expected a forward"):
        attention.backward(x)
