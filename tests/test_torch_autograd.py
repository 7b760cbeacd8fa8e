"""rnncore.torch under autograd: tapes' lives, graphs kept and shared, and what has no gradient."""

from __future__ import annotations

import gc
import itertools
import threading

import pytest
from torch_modules import LAYERS, assert_same, library, parts, run, torch, watch_retained

import rnncore as rc
import rnncore.torch as rt
from rnncore import _rnncore
from rnncore.torch import cpu, ops, packing

OPTIONS = {
    "rnn": {"nonlinearity": "relu"},
    "lstm": {"peephole": True, "proj_size": 2},
    "gru": {"reset_after": False, "recompute": True},
}


def build(cell: str, **options: object) -> torch.nn.Module:
    torch.manual_seed(1)
    return getattr(rt, LAYERS[cell])(3, 4, 2, dtype=torch.float64, **options)


def sequence(**options: object) -> torch.Tensor:
    return torch.randn(5, 2, 3, dtype=torch.float64, **options)


def gradients(module: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(module(x)[0].sin().sum(), [x, *module.parameters()]))


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradients_equal_central_differences(cell: str, bidirectional: bool) -> None:
    module = build(cell, bidirectional=bidirectional, batch_first=True)
    x = sequence(requires_grad=True)
    resets = torch.zeros(5, 2, dtype=torch.bool)
    resets[3, 1] = True

    def call(x: torch.Tensor, *_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y, state = module(x, lengths=[2, 1, 0, 2, 2], resets=resets)
        return y, *parts(state)

    assert torch.autograd.gradcheck(call, (x, *module.parameters()))


def arguments(module: torch.nn.Module, x: torch.Tensor, masks: list, keep: bool) -> tuple:
    lengths = torch.tensor([5, 2])
    return (
        x, None, None, list(module.parameters()), lengths, None, masks,
        module._spec(), False, module.recompute, keep, False,
    )  # fmt: skip


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("zoneout", [0.0, 0.3])
def test_the_operators_pass_opcheck(cell: str, zoneout: float) -> None:
    module = build(cell, **OPTIONS[cell], zoneout=zoneout, dropout=0.2)
    x = sequence(requires_grad=True)
    masks = module._draw_masks(x, False)
    assert masks
    library.opcheck(ops.forward, arguments(module, x, masks, True))
    with torch.no_grad():
        given = arguments(module, x.detach(), masks, True)
        y, _, _, tape = ops.forward(*given)
        dy = torch.ones_like(y)
        library.opcheck(ops.backward, (tape, y, *given[:-2], dy, None, None, True))
        library.opcheck(ops.forward, arguments(module, x.detach(), [], False))


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_tape_holds_nothing_that_forward_did_not_write(cell: str, dtype: torch.dtype) -> None:
    module = build(cell, **OPTIONS[cell], layer_norm=True, dropout=0.2).to(dtype)
    x = sequence().to(dtype)
    given = arguments(module, x, module._draw_masks(x, False), True)
    tapes = []
    for poisoned in (False, True):
        _rnncore._debug.fill_with_nan(poisoned)
        try:
            tapes.append(ops.forward(*given)[3].detach().clone())
        finally:
            _rnncore._debug.fill_with_nan(False)
    assert_same(*([tape] for tape in tapes))


@pytest.mark.parametrize("cell", LAYERS)
def test_a_retained_graph_gives_the_same_bits_again(cell: str) -> None:
    module, x = build(cell, **OPTIONS[cell]), sequence(requires_grad=True)
    leaves = [x, *module.parameters()]
    loss = module(x)[0].sin().sum()
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    second = torch.autograd.grad(loss, leaves, retain_graph=True)
    last = torch.autograd.grad(loss, leaves)
    assert_same(list(second), list(first))
    assert_same(list(last), list(first))
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, leaves)


def test_a_tape_is_overwritten_where_it_is_used_last_and_nowhere_else(monkeypatch) -> None:
    retained = watch_retained(monkeypatch, cpu)
    module, x = build("lstm"), sequence(requires_grad=True)
    loss = module(x)[0].sum()
    loss.backward(retain_graph=True)
    loss.backward()
    torch.autograd.grad(module(x)[0].sum(), x, create_graph=True)
    assert retained == [True, False, True]


@pytest.mark.parametrize("what", ["x", "weight_hh_l1", "y", "hx"])
def test_a_tensor_changed_before_its_gradient_is_torchs_usual_error(what: str) -> None:
    module, x = build("gru"), sequence(requires_grad=True) * 1.0
    hx = torch.zeros(2, 2, 4, dtype=torch.float64)
    y, _ = module(x, hx)
    loss = y.sum()
    changed = {"x": x, "y": y, "hx": hx, "weight_hh_l1": module.weight_hh_l1}[what]
    with torch.no_grad():
        changed.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("how", ["grad", "inside a penalty"])
def test_a_second_gradient_is_an_error_and_not_wrong_numbers(how: str) -> None:
    module, x = build("lstm"), sequence(requires_grad=True)
    loss = module(x)[0].sum()
    (dx,) = torch.autograd.grad(loss, x, create_graph=True)
    assert_same([dx], list(torch.autograd.grad(module(x)[0].sum(), x)))
    with pytest.raises(RuntimeError, match="gradient of a gradient"):
        dx.square().sum().backward() if how == "grad" else (loss + dx.norm()).backward()


def transforms(module: torch.nn.Module, x: torch.Tensor) -> dict:
    def call(x: torch.Tensor) -> torch.Tensor:
        return module(x)[0].sum()

    needing = x.clone().requires_grad_()
    many = torch.ones(3, 5, 2, 4, dtype=torch.float64)

    def dual() -> None:
        with torch.autograd.forward_ad.dual_level():
            call(torch.autograd.forward_ad.make_dual(x, x))

    return {
        "vmap": lambda: torch.vmap(call, in_dims=1)(x[:, :, None]),
        "grad": lambda: torch.func.grad(call)(x),
        "jvp": lambda: torch.func.jvp(call, (x,), (x,)),
        "hessian": lambda: torch.func.hessian(call)(x),
        "dual level": dual,
        "batched gradients": lambda: torch.autograd.grad(
            module(needing)[0], needing, many, is_grads_batched=True
        ),
    }


@pytest.mark.parametrize(
    "which", ["vmap", "grad", "jvp", "hessian", "dual level", "batched gradients"]
)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_transforms_without_a_rule_are_a_clear_error(cell: str, which: str) -> None:
    with pytest.raises(NotImplementedError, match=r"rnncore\.torch: .*has no rules"):
        transforms(build(cell), sequence())[which]()


def test_the_module_runs_with_parameters_given_for_one_call() -> None:
    module, other = build("gru"), build("gru")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    x = sequence()
    y, _ = torch.func.functional_call(module, dict(other.named_parameters()), (x,))
    assert_same([y], [other(x)[0]])
    assert not torch.equal(module(x)[0], y)


def blocks() -> int:
    gc.collect()
    return int(_rnncore._debug.live_blocks())


def test_tapes_go_with_their_graph_with_or_without_a_gradient() -> None:
    module, x = build("lstm"), sequence(requires_grad=True)
    before = blocks()
    y, state = module(x)
    assert blocks() > before
    y.sum().backward()
    assert blocks() == before
    y, state = module(x)
    assert blocks() > before
    del y, state
    assert blocks() == before
    assert not packing._of_tapes


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_no_tape_is_kept_where_no_gradient_can_follow(mode) -> None:
    module, x = build("lstm"), sequence(requires_grad=True)
    before = blocks()
    with mode():
        kept = module(x)
    assert blocks() == before
    assert not kept[0].requires_grad
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    kept = module(x.detach())
    assert blocks() == before
    assert_same([kept[0]], [module(x)[0].detach()])


def test_a_module_used_twice_in_a_graph_has_a_tape_for_each_call() -> None:
    theirs = torch.nn.GRU(4, 4, dtype=torch.float64)
    ours = rt.GRU(4, 4, dtype=torch.float64)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(5, 2, 4, dtype=torch.float64, requires_grad=True)

    def twice(module: torch.nn.Module) -> list[torch.Tensor]:
        first, h = module(x)
        second, _ = module(first.flip(0) + x, h)
        return list(torch.autograd.grad(second.sin().sum(), [x, *module.parameters()]))

    for actual, expected in zip(twice(ours), twice(theirs), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-12)


def test_gradients_accumulate_over_calls() -> None:
    module = build("lstm")
    first, second = sequence(), sequence()
    for x in (first, second):
        module(x)[0].sum().backward()
    accumulated = [p.grad.clone() for p in module.parameters()]
    separate = []
    for x in (first, second):
        module.zero_grad()
        module(x)[0].sum().backward()
        separate.append([p.grad.clone() for p in module.parameters()])
    assert_same(accumulated, [a + b for a, b in zip(*separate, strict=True)])


@pytest.mark.parametrize("hook", ["copied", "checkpoint", "save_on_cpu"])
def test_saved_tensors_may_be_copied_or_made_again(hook: str) -> None:
    module, x = build("lstm", dropout=0.4), sequence(requires_grad=True)
    torch.manual_seed(5)
    expected = gradients(module, x)
    torch.manual_seed(5)
    if hook == "checkpoint":
        y = torch.utils.checkpoint.checkpoint(lambda x: module(x)[0], x, use_reentrant=False)
    elif hook == "save_on_cpu":
        with torch.autograd.graph.save_on_cpu():
            y, _ = module(x)
    else:

        def shifted(t: torch.Tensor) -> torch.Tensor:  # at an address that is not aligned
            room = torch.empty(t.numel() + 1, dtype=t.dtype)[1:].view(t.shape)
            return room.copy_(t)

        with torch.autograd.graph.saved_tensors_hooks(shifted, lambda t: t):
            y, _ = module(x)
    found = torch.autograd.grad(y.sin().sum(), [x, *module.parameters()])
    assert_same(list(found), expected)


def test_two_backward_passes_at_once_give_the_bits_of_one() -> None:
    modules = [build("lstm", bidirectional=True), build("gru", **OPTIONS["gru"])]
    xs = [sequence(requires_grad=True) for _ in modules]
    expected = [gradients(m, x) for m, x in zip(modules, xs, strict=True)]
    errors: list[BaseException] = []
    barrier = threading.Barrier(4)

    def work(i: int) -> None:
        try:
            barrier.wait()
            for _ in range(20):
                assert_same(gradients(modules[i % 2], xs[i % 2]), expected[i % 2])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop])
def test_any_optimiser_trains_it_as_it_trains_torchs(optimizer) -> None:
    losses = []
    x, target = sequence(), torch.randn(5, 2, 4, dtype=torch.float64)
    for package in (torch.nn, rt):
        torch.manual_seed(1)
        module = package.LSTM(3, 4, 2, dtype=torch.float64)
        steps = optimizer(module.parameters(), lr=0.05)
        for _ in range(15):
            steps.zero_grad()
            loss = torch.nn.functional.mse_loss(module(x)[0], target)
            loss.backward()
            steps.step()
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-7)


def test_weights_changed_by_any_means_are_seen_by_the_next_call() -> None:
    module, x = build("gru"), sequence()
    for change in (
        lambda w: w.mul_(2.0),
        lambda w: w.data.mul_(2.0),
        lambda w: w.detach().numpy().__imul__(2.0),
    ):
        with torch.no_grad():
            before = module(x)[0]
            change(module.weight_ih_l0)
            assert not torch.equal(module(x)[0], before)


def test_hold_packs_once_and_sees_changes_by_torch() -> None:
    cell = rt.LSTMCell(3, 4)
    x = torch.randn(2, 3)
    expected = cell(x)
    packed = itertools.count()
    pack = cpu.backends.get_backend("cpu").pack

    class Counting:
        def __getattr__(self, name: str) -> object:
            if name == "pack":
                return lambda *args: (next(packed), pack(*args))[1]
            return getattr(cpu.backends.get_backend("cpu"), name)

    original, cpu._backend = cpu._backend, Counting
    try:
        with rt.hold(cell):
            for _ in range(3):
                assert_same(list(cell(x)), list(expected))
            assert next(packed) == 1
            with torch.no_grad():
                cell.weight_ih.mul_(2.0)
            assert not torch.equal(cell(x)[0], expected[0])
        assert not packing._held
        assert not packing._held_addresses
    finally:
        cpu._backend = original


def test_what_is_packed_is_kept_no_longer_than_its_tape() -> None:
    module, x = build("lstm"), sequence(requires_grad=True)
    y = module(x)[0]
    assert len(packing._of_tapes) == 1
    y.sum().backward()
    assert not packing._of_tapes


def test_torchs_number_of_threads_is_a_limit() -> None:
    before = torch.get_num_threads()
    try:
        with rc.threads(3):
            torch.set_num_threads(2)
            assert cpu.num_threads() == 2
            torch.set_num_threads(8)
            assert cpu.num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_outputs_and_gradients_are_views_of_nothing() -> None:
    module, x = build("lstm", batch_first=True), sequence(requires_grad=True)
    y, (h, c) = module(x)
    found = torch.autograd.grad(y.sum(), [x, *module.parameters()])
    assert y.is_contiguous()
    pointers = [t.untyped_storage().data_ptr() for t in (x, y, h, c, *found, *module.parameters())]
    assert len(set(pointers)) == len(pointers)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    module, x = build("gru"), sequence(requires_grad=True)
    results = []
    for threads in (1, 2, 3):
        with rc.threads(threads):
            results.append(run(module, x))
    assert_same(results[1], results[0])
    assert_same(results[2], results[0])
