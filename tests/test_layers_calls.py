"""How layers are called: layouts, tapes, gradients that accumulate, and packing."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from both_backends import CLASSES, assert_same, backend_of, both_backends, normal, parts, snapshot

import rnncore as rc

pytestmark = pytest.mark.usefixtures(both_backends.__name__)

T, N, D, H = 5, 3, 4, 6


def make(cell: str, **options: object) -> object:
    return CLASSES[cell](D, H, **{"num_layers": 2, "seed": 7, **options})


def start(layer: object, batch: int = N) -> object:
    shapes = layer.spec.state_shapes(batch)
    arrays = [normal(*shape, seed=i, dtype=layer.dtype) for i, shape in enumerate(shapes)]
    return tuple(arrays) if len(arrays) == 2 else arrays[0]


def row_of(state: object, n: int) -> object:
    rows = [part[:, n] for part in parts(state)]
    return tuple(rows) if len(rows) == 2 else rows[0]


@pytest.mark.parametrize("cell", CLASSES)
def test_batch_first_is_the_same_call_with_the_first_axes_exchanged(cell: str) -> None:
    plain, turned = make(cell), make(cell, batch_first=True)
    x, dy = normal(T, N, D), normal(T, N, H, seed=1)
    state, lengths = start(plain), [5, 0, 3]
    y, end = plain.forward(x, state, lengths)
    dx, dstart = plain.backward(dy, end)
    turned_y, turned_end = turned.forward(x.swapaxes(0, 1), state, lengths)
    turned_dx, turned_start = turned.backward(dy.swapaxes(0, 1), turned_end)
    assert turned_y.flags.c_contiguous
    assert_same([turned_y.swapaxes(0, 1), turned_dx.swapaxes(0, 1)], [y, dx])
    assert_same([turned_end, turned_start], [end, dstart])
    assert_same(list(turned.grads.values()), list(plain.grads.values()))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("cell", CLASSES)
def test_an_unbatched_sequence_is_a_batch_of_one_without_its_axis(cell, batch_first) -> None:
    layer = make(cell, batch_first=batch_first, bidirectional=True)
    x, dy, state = normal(T, D), normal(T, 2 * H, seed=1), start(layer, 1)
    axis = 0 if batch_first else 1
    y, end = layer.forward(np.expand_dims(x, axis), state, [4])
    dx, dstart = layer.backward(np.expand_dims(dy, axis), end)
    grads = snapshot(layer)
    layer.zero_grad()
    alone_y, alone_end = layer.forward(x, row_of(state, 0), 4)
    alone_dx, alone_start = layer.backward(dy, alone_end)
    assert alone_y.shape == (T, 2 * H)
    assert_same([alone_y, alone_dx], [y.squeeze(axis), dx.squeeze(axis)])
    assert_same([alone_end, alone_start], [row_of(end, 0), row_of(dstart, 0)])
    assert_same(snapshot(layer), grads)


@pytest.mark.parametrize("cell", CLASSES)
def test_inference_forward_and_record_return_the_same_bits(cell: str) -> None:
    layer, x = make(cell), normal(T, N, D)
    expected = layer(x, start(layer), [5, 2, 0])
    assert_same(layer.forward(x, start(layer), [5, 2, 0]), expected)
    assert_same(layer.record(x, start(layer), [5, 2, 0])[:2], expected)


def test_backward_uses_the_last_forward_whatever_inference_came_after() -> None:
    layer, x, dy = make("gru"), normal(T, N, D), normal(T, N, H, seed=1)
    layer.forward(x)
    expected, _ = layer.backward(dy)
    layer.forward(x)
    layer(normal(T + 2, N + 1, D, seed=9))
    dx, _ = layer.backward(dy)
    assert_same(dx, expected)


def test_tapes_may_be_used_in_any_order() -> None:
    layer = make("lstm")
    first, second = normal(T, N, D), normal(T + 1, N, D, seed=1)
    expected = []
    for x in (first, second):
        layer.forward(x)
        expected.append(layer.backward(np.ones((len(x), N, H), "f4"))[0])
    *_, tape_1 = layer.record(first)
    *_, tape_2 = layer.record(second)
    dx_2, _ = layer.backward(np.ones((T + 1, N, H), "f4"), tape=tape_2)
    dx_1, _ = layer.backward(np.ones((T, N, H), "f4"), tape=tape_1)
    assert_same([dx_1, dx_2], expected)


def test_a_retained_tape_gives_the_same_bits_again_and_is_spent_at_last() -> None:
    layer, dy = make("lstm", bidirectional=True), normal(T, N, 2 * H, seed=1)
    *_, tape = layer.record(normal(T, N, D), None, [5, 2, 0])
    runs = []
    for retain in (True, True, False):
        layer.zero_grad()
        dx, dstart = layer.backward(dy, tape=tape, retain=retain)
        runs.append([dx, dstart, snapshot(layer)])
        assert tape.spent is not retain
    assert_same(runs[1], runs[0])
    assert_same(runs[2], runs[0])
    with pytest.raises(RuntimeError, match="tape: already spent"):
        layer.backward(dy, tape=tape)


def test_backward_twice_after_one_forward_is_a_runtime_error() -> None:
    layer, dy = make("gru"), normal(T, N, H)
    with pytest.raises(RuntimeError, match="expected a forward call"):
        layer.backward(dy)
    layer.forward(normal(T, N, D))
    layer.backward(dy)
    before = snapshot(layer)
    with pytest.raises(RuntimeError, match="already spent"):
        layer.backward(dy)
    assert_same(snapshot(layer), before)


def test_a_tape_belongs_to_the_layer_that_recorded_it() -> None:
    layer, twin = make("gru"), make("gru")
    *_, tape = layer.record(normal(T, N, D))
    with pytest.raises(RuntimeError, match="tape: recorded by another layer"):
        twin.backward(normal(T, N, H), tape=tape)
    with pytest.raises(TypeError, match="tape: expected a tape"):
        layer.backward(normal(T, N, H), tape="tape")
    layer.backward(normal(T, N, H), tape=tape)


def test_moving_a_layer_makes_its_older_tapes_foreign() -> None:
    layer = make("gru")
    *_, tape = layer.record(normal(T, N, D))
    assert layer.to("cpu") is layer
    with pytest.raises(RuntimeError, match="before this one moved"):
        layer.backward(normal(T, N, H), tape=tape)


def test_a_refused_gradient_leaves_the_tape_usable() -> None:
    layer, dy = make("lstm"), normal(T, N, H, seed=1)
    layer.forward(normal(T, N, D))
    expected, _ = layer.backward(dy)
    layer.forward(normal(T, N, D))
    with pytest.raises(ValueError, match="dy: expected"):
        layer.backward(dy[1:])
    with pytest.raises(TypeError, match="need_dx"):
        layer.backward(dy, None, 1)
    dx, _ = layer.backward(dy)
    assert_same(dx, expected)


@pytest.mark.parametrize("cell", CLASSES)
def test_absent_gradients_are_zeros(cell: str) -> None:
    layer, x, dy = make(cell), normal(T, N, D), normal(T, N, H, seed=1)
    dend = start(layer)
    zeros = [np.zeros_like(part) for part in parts(dend)]
    zero = tuple(zeros) if len(zeros) == 2 else zeros[0]

    def gradient(dy: object, dstate: object) -> list:
        layer.zero_grad()
        layer.forward(x, start(layer))
        return [*layer.backward(dy, dstate), snapshot(layer)]

    assert_same(gradient(dy, None), gradient(dy, zero))
    assert_same(gradient(None, dend), gradient(np.zeros_like(dy), dend))
    if cell == "lstm":
        assert_same(gradient(dy, (dend[0], None)), gradient(dy, (dend[0], zeros[1])))
        assert_same(gradient(dy, (None, dend[1])), gradient(dy, (zeros[0], dend[1])))


def test_without_need_dx_everything_else_is_the_same() -> None:
    layer, x, dy = make("lstm"), normal(T, N, D), normal(T, N, H, seed=1)
    layer.forward(x)
    _, expected_start = layer.backward(dy)
    expected = snapshot(layer)
    layer.zero_grad()
    layer.forward(x)
    dx, dstart = layer.backward(dy, need_dx=False)
    assert dx is None
    assert_same(dstart, expected_start)
    assert_same(snapshot(layer), expected)


def test_gradients_add_up_until_they_are_zeroed() -> None:
    layer, x, dy = make("gru", dtype="float64"), normal(T, N, D), normal(T, N, H, seed=1)
    x, dy = x.astype("f8"), dy.astype("f8")
    layer.forward(x)
    layer.backward(dy)
    once = {name: grad.copy() for name, grad in layer.grads.items()}
    layer.forward(x)
    layer.backward(dy)
    for name, grad in layer.grads.items():
        assert np.array_equal(grad, 2 * once[name])
        assert np.abs(grad).max() > 0
    layer.zero_grad()
    assert all((grad == 0).all() for grad in layer.grads.values())


def test_chunks_with_the_state_carried_on_are_the_whole_sequence() -> None:
    layer, x, dy = make("lstm", dtype="float64"), normal(7, N, D), normal(7, N, H, seed=1)
    x, dy = x.astype("f8"), dy.astype("f8")
    whole, end = layer(x)
    *_, tape = layer.record(x)
    dx, _ = layer.backward(dy, tape=tape)
    first, middle, tape_1 = layer.record(x[:3])
    second, last, tape_2 = layer.record(x[3:], middle)
    dx_2, dmiddle = layer.backward(dy[3:], tape=tape_2)
    dx_1, _ = layer.backward(dy[:3], dmiddle, tape=tape_1)
    assert_same([np.concatenate([first, second]), last], [whole, end])
    assert_same(np.concatenate([dx_1, dx_2]), dx)


@pytest.mark.host_only
def test_tapes_refer_to_the_callers_arrays() -> None:
    layer, x = make("gru", batch_first=True), normal(N, T, D)
    state = start(layer)
    y, _, tape = layer.record(x, state)
    with tape.record() as record:
        assert np.shares_memory(record.inputs.x, x)
        assert np.shares_memory(record.inputs.state[0], state)
        assert np.shares_memory(record.y, y)


@pytest.mark.host_only
def test_a_spent_tape_lets_go_of_everything() -> None:
    layer, x = make("gru"), normal(T, N, D)
    x_alive = weakref.ref(x)
    _, _, tape = layer.record(x)
    del x
    assert x_alive() is not None
    layer.backward(None, tape=tape)
    assert x_alive() is None
    assert tape.nbytes == 0


def test_a_dropped_layer_frees_its_arrays_at_once() -> None:
    layer = make("lstm", stateful=True)
    layer.forward(normal(T, N, D))
    alive = weakref.ref(layer.params["weight_hh_l0"])
    gc.disable()
    try:
        del layer
        assert alive() is None
    finally:
        gc.enable()


def test_lengths_are_copied() -> None:
    layer, x, dy = make("gru"), normal(T, N, D), normal(T, N, H, seed=1)
    layer.forward(x, None, [5, 2, 0])
    expected, _ = layer.backward(dy)
    lengths = np.array([5, 2, 0])
    layer.forward(x, None, lengths)
    lengths[:] = 5
    dx, _ = layer.backward(dy)
    assert_same(dx, expected)


@pytest.mark.parametrize("lengths", [(5, 2, 0), [np.int8(5), np.uint64(2), 0]])
def test_lengths_may_be_a_list_or_a_tuple_of_any_integers(lengths: object) -> None:
    layer, x = make("gru"), normal(T, N, D)
    assert_same(layer(x, None, lengths), layer(x, None, np.array([5, 2, 0])))


@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (5, 0), (0, 0)])
def test_an_empty_call_hands_the_state_on(steps: int, batch: int) -> None:
    layer = make("lstm", bidirectional=True)
    state = start(layer, batch)
    x = np.zeros((steps, batch, D), "f4")
    y, end = layer.forward(x, state, [] if batch == 0 else None)
    assert y.shape == (steps, batch, 2 * H)
    if steps == 0:
        assert_same(end, state)
        assert not np.shares_memory(end[0], state[0])
    dx, dstart = layer.backward(np.zeros_like(y), end)
    assert dx.shape == x.shape
    assert_same(dstart, end)
    assert all((grad == 0).all() for grad in layer.grads.values())


def test_writing_into_a_parameter_is_seen_by_the_next_call() -> None:
    layer, x = make("gru"), normal(T, N, D)
    before, _ = layer(x)
    layer.params["bias_hh_l1"][...] += 1
    changed, _ = layer(x)
    assert not np.array_equal(before, changed)
    layer.params["bias_hh_l1"][...] -= 1
    layer.params["weight_hh_l0"][0, 0] += 1
    assert not np.array_equal(layer(x)[0], before)


@pytest.mark.host_only
def test_params_and_grads_are_read_only_mappings_of_writable_arrays() -> None:
    layer = make("lstm")
    for mapping in (layer.params, layer.grads):
        with pytest.raises(TypeError):
            mapping["weight_ih_l0"] = np.zeros((4 * H, D), "f4")
        with pytest.raises(TypeError):
            del mapping["weight_ih_l0"]
        assert all(array.flags.writeable for array in mapping.values())
    assert list(layer.params) == list(layer.grads) == list(layer.spec.param_shapes())
    assert layer.grads["weight_ih_l0"] is layer.grads["weight_ih_l0"]


def test_a_held_layer_packs_its_weights_once(
    monkeypatch: pytest.MonkeyPatch, both_backends: str
) -> None:
    layer, x, packed = make("gru"), normal(T, N, D), []
    backend = backend_of(both_backends)
    pack = backend.pack
    monkeypatch.setattr(backend, "pack", lambda *given: packed.append(1) or pack(*given))
    expected = layer(x)
    with layer.hold():
        with layer.hold():
            assert_same(layer(x), expected)
        layer.forward(x)
        layer.backward(np.ones((T, N, H), "f4"))
        assert_same(layer(x), expected)
    assert len(packed) == 2
    layer(x)
    assert len(packed) == 3


def test_loading_into_a_held_layer_is_seen() -> None:
    layer, other, x = make("gru"), make("gru", seed=8), normal(T, N, D)
    with layer.hold():
        layer(x)
        layer.load_state_dict(other.state_dict())
        assert_same(layer(x), other(x))


def test_an_error_inside_hold_ends_it() -> None:
    layer, x = make("gru"), normal(T, N, D)
    before, _ = layer(x)
    with pytest.raises(ValueError, match="x: expected"), layer.hold():
        layer(layer(x)[0])
    layer.params["bias_hh_l1"][...] += 1
    assert not np.array_equal(layer(x)[0], before)


@pytest.mark.host_only
def test_torch_tensors_are_taken_without_a_copy() -> None:
    torch = pytest.importorskip("torch")
    layer, x = make("lstm"), normal(T, N, D)
    tensor, lengths = torch.from_numpy(x), torch.tensor([5, 2, 0])
    state = tuple(torch.from_numpy(part) for part in start(layer))
    y, end, tape = layer.record(tensor, state, lengths)
    assert_same([y, end], layer(x, start(layer), [5, 2, 0]))
    with tape.record() as record:
        assert np.shares_memory(record.inputs.x, x)
    dx, _ = layer.backward(torch.from_numpy(y), tape=tape)
    assert isinstance(dx, np.ndarray)
    with pytest.raises(TypeError, match="x: expected"):
        layer(tensor.clone().requires_grad_())
    with pytest.raises(TypeError, match="x: expected"):
        layer(tensor.to(torch.bfloat16))
    with pytest.raises(TypeError, match="x: expected dtype float32, got float64"):
        layer(tensor.double())


def test_a_seed_draws_the_same_layer_and_no_seed_a_new_one() -> None:
    assert_same(list(make("gru").params.values()), list(make("gru").params.values()))
    fresh = [make("gru", seed=None).params["weight_hh_l0"] for _ in range(2)]
    assert not np.array_equal(*fresh)
    doubles = make("gru", dtype="float64").params
    for name, array in make("gru").params.items():
        assert np.array_equal(doubles[name].astype("f4"), array)


def test_initial_values_are_uniform_within_one_over_the_root_of_h() -> None:
    layer = rc.LSTM(50, 100, num_layers=2, proj_size=20, seed=1)
    for array in layer.params.values():
        assert np.abs(array).max() <= np.float32(0.1)
        assert np.abs(array).max() > 0.095
        assert abs(array.mean()) < 0.02
        assert abs(array.std() - 0.1 / np.sqrt(3)) < 0.006


def test_forget_bias_is_added_to_the_forget_gates_input_bias() -> None:
    plain, raised = make("lstm"), make("lstm", forget_bias=1.5)
    for name, array in raised.params.items():
        difference = array - plain.params[name]
        if name.startswith("bias_ih"):
            assert np.allclose(difference[H : 2 * H], 1.5, atol=1e-6)
            difference = np.delete(difference, np.s_[H : 2 * H])
        assert (difference == 0).all()
