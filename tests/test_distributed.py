"""Gradients over several processes: their mean, when they leave, and what goes wrong."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from cases import assert_same_bits
from thread_world import Recorder, ThreadCommunicator, on_ranks
from tolerances import LARGEST_ENTRY

import rnncore as rc
from rnncore import distributed, nn, train

T, N, D, H = 9, 7, 5, 18


class Tagger(nn.Module):
    """A module of parts with parameters of its own."""

    def __init__(self, seed: int) -> None:
        super().__init__("float64")
        self.layer = rc.LSTM(D, H, 3, bidirectional=True, dtype="float64", seed=seed)
        self.output = nn.Linear(2 * H, 4, dtype="float64", seed=seed)
        self._add_parameter("scale", np.linspace(0.5, 1.5, 4))

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.scores = self.output.forward(self.layer.forward(x)[0])
        return self.scores * self._own_params["scale"]

    def backward(self, dy: np.ndarray) -> None:
        self._own_grads["scale"] += (dy * self.scores).sum((0, 1))
        self.layer.backward(self.output.backward(dy * self._own_params["scale"]), need_dx=False)


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    return draw.standard_normal((T, N, D)), draw.standard_normal((T, N, 4))


def train_on(model: Any, rows: slice, updates: int = 4) -> dict[str, np.ndarray]:
    """Do some updates on the mean of a row's loss, over some rows of the batch."""
    optimizer = train.Adam(model, lr=0.01)
    for update in range(updates):
        x, target = (array[:, rows] for array in batch(update))
        model.zero_grad()
        if x.shape[1]:
            y = model.forward(x)
            model.backward((y - target) / x.shape[1])
        else:
            model.reducer.synchronize()
        optimizer.step()
    return {name: value.copy() for name, value in model.params.items()}


def assert_close(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(actual) == list(expected)
    for name, value in expected.items():
        bound = LARGEST_ENTRY["float64", "gradient"] * np.abs(value).max()
        np.testing.assert_allclose(actual[name], value, rtol=0, atol=bound, err_msg=name)


@pytest.mark.parametrize("cuts", [(0, 3, N), (0, 2, 3, N), (0, 0, N)], ids=str)
@pytest.mark.parametrize("bucket_bytes", [1, 5000, 1 << 20])
def test_processes_train_as_one_does_on_the_whole_batch(
    cuts: tuple[int, ...], bucket_bytes: int
) -> None:
    def work(world: ThreadCommunicator) -> dict[str, np.ndarray]:
        first = cuts[world.rank]
        model = distributed.DataParallel(Tagger(world.rank), world, bucket_bytes=bucket_bytes)
        rows = slice(first, cuts[world.rank + 1])
        model.weight = rows.stop - rows.start
        trained = train_on(model, rows)
        model.check()
        return trained

    ranks = on_ranks(len(cuts) - 1, work)
    for other in ranks[1:]:
        assert_same_bits(other, ranks[0])
    assert_close(ranks[0], train_on(Tagger(0), slice(None)))
    again = on_ranks(len(cuts) - 1, work)
    assert_same_bits(again[0], ranks[0])


def test_gradients_of_a_layer_leave_while_the_layers_below_are_at_work() -> None:
    layer = rc.LSTM(D, H, 3, seed=0)
    left: list[tuple[int, bool]] = []
    own: dict[str, np.ndarray] = {}

    def seen(array: np.ndarray) -> None:
        if array.dtype == np.float32:
            left.append((array.size, any(value.any() for value in own.values())))

    reducer = distributed.Reducer(layer, Recorder(seen), bucket_bytes=1)
    own.update(layer.grads)
    x = np.ones((T, N, D), np.float32)
    y, _ = layer.forward(x)
    layer.backward(y)
    assert len(left) == 12, "four arrays of each of three layers"
    assert not any(ended for _, ended in left), "all left before the call changed its gradients"
    sizes = [layer.params[name].size + 1 for name in reversed(layer.params)]
    assert [size for size, _ in left] == sizes, "the last layer's first"
    reducer.synchronize()


VARIANTS = [
    lambda: rc.LSTM(D, H, 3, bidirectional=True, seed=1),
    lambda: rc.LSTM(D, H, 2, proj_size=7, seed=1),
    lambda: rc.LSTM(D, H, 2, peephole=True, layer_norm=True, zoneout=(0.1, 0.2), seed=1),
    lambda: rc.LSTM(D, H, 2, coupled=True, bias=False, seed=1),
    lambda: rc.GRU(D, H, 2, reset_after=False, seed=1),
    lambda: rc.RNN(D, H, 1, seed=1),
    lambda: rc.Bidirectional(rc.GRU(D, H, 2, seed=1)),
    lambda: rc.Stack([rc.LSTM(D, 11, 2, seed=1), rc.GRU(11, H, seed=2)]),
]


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("make", VARIANTS, ids=lambda make: repr(make())[:60])
def test_a_world_of_one_changes_no_bit(make: Any, recompute: bool) -> None:
    plain, listened = make(), make()
    reducer = distributed.Reducer(listened, distributed.SingleProcess(), bucket_bytes=1)
    x = np.random.default_rng(0).standard_normal((T, N, D)).astype("f4")
    results = []
    for layer in (plain, listened):
        draw = np.random.default_rng(5)
        for gradient in layer.grads.values():
            gradient[...] = draw.standard_normal(gradient.shape)
        with rc.threads(3 if layer is listened else 1):
            y, _, tape = layer.record(x, lengths=[9, 0, 4, 9, 1, 7, 3], recompute=recompute)
            dx, _ = layer.backward(np.cos(y), tape=tape)
        results.append({"y": y, "dx": dx})
    reducer.synchronize()
    assert_same_bits(results[1], results[0])
    assert_same_bits(dict(listened.grads), dict(plain.grads))


@pytest.mark.parametrize("threads", [1, 3])
def test_an_engine_that_fails_in_the_middle_leaves_gradients_as_they_were(threads: int) -> None:
    layer = rc.GRU(D, H, 3, seed=0)

    def fail(array: np.ndarray) -> None:
        if array.dtype == np.float32:
            raise ConnectionError("lost")

    reducer = distributed.Reducer(layer, Recorder(fail), bucket_bytes=1)
    for gradient in layer.grads.values():
        gradient[...] = 3
    with rc.threads(threads):
        y, _ = layer.forward(np.ones((T, N, D), np.float32))
        with pytest.raises(ConnectionError, match="lost"):
            layer.backward(y)
        assert all((gradient == 3).all() for gradient in layer.grads.values())
        reducer.close()
        y, _ = layer.forward(np.ones((T, N, D), np.float32))
        layer.backward(y)
    assert not any((gradient == 3).all() for gradient in layer.grads.values())


def interrupted(bucket_bytes: int) -> tuple[rc.GRU, distributed.Reducer]:
    """Return a layer whose backward failed after it had told of its second layer."""
    layer = rc.GRU(D, H, 2, seed=0)
    reducer = distributed.Reducer(layer, distributed.SingleProcess(), bucket_bytes=bucket_bytes)
    filled = reducer.filled

    def fail(grads: list[np.ndarray]) -> None:
        filled(grads)
        raise KeyboardInterrupt

    reducer.filled = fail  # type: ignore[method-assign]
    y, _ = layer.forward(np.ones((T, N, D), np.float32))
    with pytest.raises(KeyboardInterrupt):
        layer.backward(y)
    reducer.filled = filled  # type: ignore[method-assign]
    return layer, reducer


def test_totals_of_a_backward_that_failed_are_not_used() -> None:
    layer, reducer = interrupted(bucket_bytes=1 << 20)
    for gradient in layer.grads.values():
        gradient[...] = 5
    reducer.synchronize()
    assert all((gradient == 5).all() for gradient in layer.grads.values())


def test_gradients_that_left_before_a_failure_are_an_error() -> None:
    layer, reducer = interrupted(bucket_bytes=1)
    with pytest.raises(RuntimeError, match="synchronize: gradients left before"):
        reducer.synchronize()
    assert not any(gradient.any() for gradient in layer.grads.values())


def test_the_core_checks_the_places_that_it_is_to_write_to() -> None:
    layer = rc.GRU(D, H, 2, seed=0)
    reducer = distributed.Reducer(layer, distributed.SingleProcess())
    y, _, tape = layer.record(np.ones((T, N, D), np.float32))
    for bad in (
        lambda grads: grads[:-1],
        lambda grads: [None] * len(grads),
        lambda grads: grads[::-1],
    ):
        reducer.places = lambda grads, bad=bad: bad(grads)  # type: ignore[method-assign]
        with pytest.raises((TypeError, ValueError)):
            layer.backward(y, tape=tape)
        assert not tape.spent
    assert not any(gradient.any() for gradient in layer.grads.values())


def test_gradients_add_up_in_the_process_until_the_last_part_of_a_batch() -> None:
    def work(world: ThreadCommunicator) -> dict[str, np.ndarray]:
        model = distributed.DataParallel(Tagger(0), world)
        before = world.calls
        with model.no_sync():
            for part in range(2):
                model.forward(batch(10 * world.rank + part)[0])
                model.backward(batch(part)[1])
        assert world.calls == before
        model.forward(batch(10 * world.rank + 2)[0])
        model.backward(batch(2)[1])
        assert world.calls > before
        return dict(model.grads)

    ranks = on_ranks(2, work)
    expected = Tagger(0)
    for seed in (0, 1, 2):
        for rank in (0, 1):
            expected.forward(batch(10 * rank + seed)[0])
            expected.backward(batch(seed)[1] / 2)
    assert_same_bits(ranks[1], ranks[0])
    assert_close(ranks[0], dict(expected.grads))


def test_a_second_backward_without_synchronize_is_an_error_that_says_what_to_do() -> None:
    layer = rc.LSTM(D, H, 2, seed=0)
    reducer = distributed.Reducer(layer, distributed.SingleProcess(), bucket_bytes=1)
    for fails in (False, True):
        y, _ = layer.forward(np.ones((T, N, D), np.float32))
        if not fails:
            layer.backward(y)
            kept = {name: value.copy() for name, value in layer.grads.items()}
            continue
        with pytest.raises(RuntimeError, match="no_sync"):
            layer.backward(y)
    assert_same_bits(dict(layer.grads), kept)
    with pytest.raises(RuntimeError, match="weight: gradients are on their way"):
        reducer.weight = 2
    reducer.synchronize()
    assert_same_bits(dict(layer.grads), kept)


def test_a_cell_in_a_loop_hands_out_its_gradients_after_the_last_step() -> None:
    handed: list[bool] = []
    cell, done = rc.LSTMCell(D, H, seed=0), []
    reducer = distributed.Reducer(
        cell, Recorder(lambda array: handed.append(len(done) == T)), bucket_bytes=1
    )
    handed.clear()
    plain = rc.LSTMCell(D, H, seed=0)
    x = np.random.default_rng(1).standard_normal((T, N, D)).astype("f4")
    for one in (plain, cell):
        state, tapes = None, []
        for x_t in x:
            state, tape = one.record(x_t, state)
            tapes.append(tape)
        dstate = (np.ones_like(state[0]), None)
        for tape in reversed(tapes):
            if one is cell:
                done.append(tape)
            _, dstate = one.backward(dstate, tape=tape)
    assert handed == [True] * 4
    reducer.synchronize()
    assert_same_bits(dict(cell.grads), dict(plain.grads))


def test_a_tape_that_is_kept_for_another_gradient_keeps_the_layers_gradients_here() -> None:
    layer, handed = rc.GRU(D, H, 2, seed=0), []
    reducer = distributed.Reducer(layer, Recorder(lambda array: handed.append(1)), bucket_bytes=1)
    handed.clear()
    y, _, tape = layer.record(np.ones((T, N, D), np.float32))
    layer.backward(y, tape=tape, retain=True)
    assert not handed
    layer.backward(y, tape=tape)
    assert len(handed) == 8
    reducer.synchronize()


def test_tied_weights_are_summed_once_and_after_both_uses() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4, seed=0)
            self.second = nn.Linear(4, 4, seed=1)
            self.second._own_params = self.first._own_params
            self.second._own_grads = self.first._own_grads

        def forward(self, x: np.ndarray) -> np.ndarray:
            return self.second.forward(self.first.forward(x))

        def backward(self, dy: np.ndarray) -> None:
            self.first.backward(self.second.backward(dy))

    def work(world: ThreadCommunicator) -> dict[str, np.ndarray]:
        model = distributed.DataParallel(Tied(), world, bucket_bytes=1)
        assert len(model.reducer._buckets) == 2
        model.forward(np.eye(4, dtype="f4") * (1 + world.rank))
        model.backward(np.ones((4, 4), np.float32))
        return {name: value.copy() for name, value in model.grads.items()}

    ranks = on_ranks(2, work)
    expected = Tied()
    for scale in (1, 2):
        expected.forward(np.eye(4, dtype="f4") * scale)
        expected.backward(np.full((4, 4), 0.5, np.float32))
    assert_same_bits(ranks[1], ranks[0])
    for name, value in expected.grads.items():
        np.testing.assert_allclose(ranks[0][name], value, rtol=1e-6)


def test_a_module_that_calls_its_parents_backward_tells_once_and_last() -> None:
    class Doubled(nn.Linear):
        def backward(self, dy: Any, need_dx: bool = True) -> Any:
            dx = super().backward(dy, need_dx)
            self._own_grads["weight"] *= 2
            return dx

    sent: list[np.ndarray] = []
    layer = Doubled(2, 2, bias=False, seed=0)
    reducer = distributed.Reducer(layer, Recorder(lambda array: sent.append(array.copy())))
    sent.clear()
    layer.forward(np.ones((1, 2), np.float32))
    layer.backward(np.ones((1, 2), np.float32))
    assert [array.tolist() for array in sent] == [[2, 2, 2, 2, 1]]
    reducer.synchronize()


def test_other_parameters_on_another_rank_are_told_on_every_rank() -> None:
    def work(world: ThreadCommunicator) -> str:
        with pytest.raises(ValueError, match="modules: expected the parameters") as error:
            distributed.Reducer(nn.Linear(3 + world.rank // 2, 2), world)
        return str(error.value)

    assert all(text.endswith("got others on ranks 2, 3") for text in on_ranks(4, work))


def test_first_values_come_from_rank_0_or_are_compared() -> None:
    def work(world: ThreadCommunicator) -> np.ndarray:
        layer = nn.Linear(3, 2, seed=world.rank)
        with pytest.raises(ValueError, match=r"others on rank 1; broadcast=True"):
            distributed.Reducer(layer, world, broadcast=False)
        distributed.Reducer(layer, world).check()
        return layer.params["weight"].copy()

    first, second = on_ranks(2, work)
    assert np.array_equal(first, nn.Linear(3, 2, seed=0).params["weight"])
    assert np.array_equal(second, first)


def test_a_rank_that_drifts_is_found() -> None:
    def work(world: ThreadCommunicator) -> None:
        layer = rc.GRU(3, 4, seed=0)
        reducer = distributed.Reducer(layer, world)
        reducer.check()
        layer.params["bias_ih_l0"][2] += np.float32(1e-7) * world.rank
        with pytest.raises(RuntimeError, match="got others on ranks 1, 2"):
            reducer.check()

    on_ranks(3, work)


def test_the_mean_of_a_loss_is_weighted_as_gradients_are() -> None:
    def work(world: ThreadCommunicator) -> float:
        model = distributed.DataParallel(nn.Linear(1, 1, seed=0), world)
        model.weight = 3 - 2 * world.rank
        return model.mean(10.0 + world.rank)

    assert on_ranks(2, work) == [10.25, 10.25]


def test_weights_of_zero_everywhere_are_an_error_and_below_zero_too() -> None:
    layer = nn.Linear(1, 1, seed=0)
    reducer = distributed.Reducer(layer, distributed.SingleProcess())
    with pytest.raises(ValueError, match="weight: expected at least 0, got -1"):
        reducer.weight = -1
    reducer.weight = 0
    layer.grads["weight"][...] = 7
    with pytest.raises(ValueError, match="weight: expected more than 0"):
        reducer.synchronize()
    assert layer.grads["weight"] == 7
    reducer.weight = 1
    reducer.synchronize()
    assert layer.grads["weight"] == 7


def test_a_mean_without_any_weight_is_an_error_on_every_process() -> None:
    def work(world: ThreadCommunicator) -> str:
        reducer = distributed.Reducer(nn.Linear(1, 1, seed=0), world)
        reducer.weight = 0
        with pytest.raises(ValueError, match="weight: expected more than 0 on one process"):
            reducer.mean(3.0)
        reducer.weight = world.rank
        return str(reducer.mean(world.rank + 2.0))

    assert on_ranks(2, work) == ["3.0", "3.0"]


def test_two_reducers_on_one_module_and_modules_without_parameters_are_errors() -> None:
    layer = nn.Linear(1, 1, seed=0)
    first = distributed.Reducer(layer, distributed.SingleProcess())
    with pytest.raises(RuntimeError, match="another reducer"):
        distributed.DataParallel(layer, distributed.SingleProcess())
    first.close()
    distributed.DataParallel(layer, distributed.SingleProcess())
    with pytest.raises(ValueError, match="got none"):
        distributed.Reducer(nn.Dropout(0.5), distributed.SingleProcess())
    with pytest.raises(ValueError, match="bucket_bytes: expected"):
        distributed.Reducer(rc.GRU(1, 1), distributed.SingleProcess(), bucket_bytes=0)


def test_copies_and_pickles_of_a_model_do_not_listen() -> None:
    model = Tagger(0)
    parallel = distributed.DataParallel(model, Recorder(lambda array: None))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert [teller._listener for teller in other._tellers()] == [None] * 3
    assert all(teller._listener is parallel.reducer for teller in model._tellers())
    with pytest.raises(TypeError, match="copy its model"):
        copy.deepcopy(parallel)


def test_a_trainer_takes_it_for_the_model() -> None:
    def work(world: ThreadCommunicator) -> list[float]:
        model = distributed.DataParallel(nn.Linear(2, 3, seed=0), world)
        draw = np.random.default_rng(world.rank)
        batches = iter([(draw.standard_normal((4, 2)).astype("f4"), draw.integers(3, size=4))] * 5)
        trainer = train.Trainer(
            model, nn.SoftmaxCrossEntropy(), train.SGD(model, lr=0.5), batches, progress=False
        )
        trainer.run(5)
        model.check()
        return trainer.history.norms

    first, second = on_ranks(2, work)
    assert first == second
