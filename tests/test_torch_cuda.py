"""rnncore.torch's CUDA side without a GPU: tensors of the CPU, the kernels' own text emulated."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from emulation.build import compiler
from hypothesis import example, given, settings
from test_torch_parity import DOUBLE, configurations, draw_inputs
from torch_modules import (
    LAYERS,
    assert_close,
    assert_same,
    library,
    parts,
    run,
    torch,
    twins,
    watch_retained,
)
from torch_on_emulation import TorchMemory, running

import rnncore.torch as rt
from rnncore.backends.cuda_addresses import ALIGNMENT
from rnncore.torch import cuda, ops, packing
from rnncore.torch.call import aligned

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler for the emulation")

PLAIN: dict[str, Any] = {"dtype": torch.float64}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "rnn": [{"nonlinearity": "relu"}, {"activations": [("Softsign",)], "clip": 0.7}],
    "lstm": [
        {"proj_size": 2, "peephole": True, "zoneout": (0.4, 0.3)},
        {"coupled": True, "layer_norm": True, "recurrent_dropout": 0.3},
        {"dropout": 0.3, "variational": True, "clip": 0.7, "recompute": True},
    ],
    "gru": [{"reset_after": False, "layer_norm": True, "dropout": 0.4}, {"zoneout": 0.3}],
}
EVERY = [(cell, options) for cell, all_of_it in OPTIONS.items() for options in all_of_it]
COMMON = {"bidirectional": True, "batch_first": True}


@pytest.fixture
def emulated() -> Iterator[TorchMemory]:
    with running("float64") as memory:
        yield memory


def build(cell: str, **options: Any) -> torch.nn.Module:
    torch.manual_seed(1)
    return getattr(rt, LAYERS[cell])(3, 4, 2, **(PLAIN | options))


def sequence(**options: Any) -> torch.Tensor:
    return torch.randn(5, 2, 3, dtype=torch.float64, **options)


def results(module: torch.nn.Module, x: Any, hx: Any, trains: bool) -> list[Any]:
    """Return outputs, and gradients where something requires them."""
    if trains:
        return run(module, x, hx)
    y, state = module(x, hx)
    return [getattr(y, "data", y) if isinstance(y, tuple) else y, *parts(state)]


def seeded(module: torch.nn.Module, *given: Any, **options: Any) -> list[Any]:
    torch.manual_seed(2)
    return run(module, *given, **options)


@pytest.mark.parametrize("persists", [False, True], ids=["steps", "persistent"])
@settings(max_examples=25)
@given(c=configurations())
@example(
    c={
        "cell": "lstm", "sizes": (3, 17), "form": "unsorted", "T": 6, "N": 5, "state": True,
        "options": {
            "num_layers": 2, "bias": True, "batch_first": True, "bidirectional": True,
            "proj_size": 5,
        },
        "needs": (True, True, True), "frozen": {0, 5}, "seed": 1,
    }
)  # fmt: skip
def test_results_and_gradients_equal_torchs(c: dict[str, Any], persists: bool) -> None:
    if persists:
        options = {k: v for k, v in c["options"].items() if k != "proj_size"}
        c = c | {"options": options, "sizes": (c["sizes"][0], min(c["sizes"][1], 32))}
    theirs, ours = twins(c["cell"], *c["sizes"], **c["options"], dtype=torch.float64)
    for module in (theirs, ours):
        for i, parameter in enumerate(module.parameters()):
            parameter.requires_grad_(i % 8 not in c["frozen"])
    x, hx = draw_inputs(c)
    leaves = [x, *parts(hx), *ours.parameters()]
    trains = any(torch.is_tensor(t) and t.requires_grad for t in leaves)
    with torch.set_grad_enabled(trains):
        with running("float64", persists):
            found = results(ours, x, hx, trains)
        assert_close(found, results(theirs, x, hx, trains), **DOUBLE)


@pytest.mark.parametrize(("cell", "options"), EVERY)
@pytest.mark.parametrize("where", ["host", "device", "none"])
def test_every_option_equals_the_cpus(cell: str, options: dict, where: str, monkeypatch) -> None:
    module = build(cell, **COMMON, **options)
    x = torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True)
    resets = torch.zeros(4, 5, dtype=torch.bool)
    resets[0, 3] = resets[2, 1] = True
    given = {"resets": resets} | ({} if where == "none" else {"lengths": [5, 2, 0, 4]})
    expected = seeded(module, x, **given)
    if where == "device":
        monkeypatch.setattr(cuda, "_are_known", lambda lengths: False)
    with running("float64"):
        assert_close(seeded(module, x, **given), expected, **DOUBLE)


@pytest.mark.parametrize(
    "form", ["one step", "odd step", "one row", "sliced", "transposed", "expanded"]
)
@pytest.mark.parametrize("batch_first", [False, True])
def test_an_input_of_any_strides_stays_inside_the_tape(form: str, batch_first: bool) -> None:
    module = build("gru", batch_first=batch_first)
    big = torch.randn(6, 7, 9, dtype=torch.float64)
    x = {
        "one step": big[:1, ::2, :3],
        "odd step": big.as_strided((1, 4, 3), (100, 3, 1)),  # which torch calls contiguous
        "one row": big[::2, 2:3, 1:4],
        "sliced": big[1:5, 2:6, ::3],
        "transposed": big[..., :3].contiguous().transpose(0, 1),
        "expanded": big[:1, :1, :3].expand(4, 5, 3),
    }[form].requires_grad_()
    expected = run(module, x)
    with running("float64"):
        assert_close(run(module, x), expected, **DOUBLE)


@pytest.mark.parametrize("cell", LAYERS)
def test_gradients_equal_central_differences(cell: str, emulated: TorchMemory) -> None:
    module = getattr(rt, LAYERS[cell])(2, 2, bidirectional=True, dtype=torch.float64)
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)

    def call(x: torch.Tensor, *_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y, state = module(x, lengths=[3, 1])
        return y, *parts(state)

    assert torch.autograd.gradcheck(call, (x, *module.parameters()))


def arguments(module: torch.nn.Module, x: torch.Tensor, masks: list, keep: bool) -> tuple:
    return (
        x, None, None, list(module.parameters()), torch.tensor([5, 2]), None, masks,
        module._spec(), False, module.recompute, keep, False,
    )  # fmt: skip


@pytest.mark.parametrize(("cell", "options"), EVERY)
def test_the_operators_pass_opcheck(cell: str, options: dict, emulated: TorchMemory) -> None:
    module, x = build(cell, **options), sequence(requires_grad=True)
    masks = module._draw_masks(x, False)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    library.opcheck(ops.forward, arguments(module, x, masks, True), test_utils=checks)
    with torch.no_grad():
        given = arguments(module, x.detach(), masks, True)
        y, _, _, tape = ops.forward(*given)
        assert tape.shape[:2] == (5, 2)
        backward = (tape, y, *given[:-2], torch.ones_like(y), None, None, True)
        library.opcheck(ops.backward, backward, test_utils=checks)
        library.opcheck(ops.forward, arguments(module, x.detach(), [], False))


@pytest.mark.parametrize("cell", LAYERS)
def test_a_compiled_model_is_one_graph_with_the_same_results(
    cell: str, emulated: TorchMemory
) -> None:
    torch._dynamo.reset()
    module = build(cell, zoneout=0.2)

    def call(x: torch.Tensor) -> torch.Tensor:
        return module(x.sin(), lengths=torch.full((x.shape[1],), 2))[0].square().sum()

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    for shape in ((5, 2, 3), (7, 3, 3)):
        x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        found = []
        for function in (call, compiled):
            torch.manual_seed(1)
            loss = function(x)
            found.append(list(torch.autograd.grad(loss, [x, *module.parameters()])))
        assert_close(found[1], found[0], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("cell", "options"), EVERY)
def test_a_retained_graph_gives_the_same_bits_again(
    cell: str, options: dict, emulated: TorchMemory, monkeypatch
) -> None:
    retained = watch_retained(monkeypatch, cuda)
    module, x = build(cell, **options), sequence(requires_grad=True)
    leaves = [x, *module.parameters()]
    loss = module(x, lengths=[5, 3])[0].sin().sum()
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    second = torch.autograd.grad(loss, leaves, retain_graph=True)
    last = torch.autograd.grad(loss, leaves)
    assert_same(list(second), list(first))
    assert_same(list(last), list(first))
    assert retained == [True, True, False]


def test_a_module_used_twice_in_a_graph_has_a_tape_for_each_call() -> None:
    module = rt.GRU(3, 3, 2, **PLAIN)
    x = sequence(requires_grad=True)

    def twice() -> list[torch.Tensor]:
        y, h = module(x)
        y, _ = module(y, h)
        return list(torch.autograd.grad(y.sin().sum(), [x, *module.parameters()]))

    expected = twice()
    with running("float64"):
        assert_close(twice(), expected, **DOUBLE)


@pytest.mark.parametrize("hook", ["shifted", "checkpoint"])
def test_saved_tensors_may_be_copied_or_made_again(hook: str, emulated: TorchMemory) -> None:
    module, x = build("lstm", dropout=0.4), sequence(requires_grad=True)
    leaves = [x, *module.parameters()]
    torch.manual_seed(5)
    expected = torch.autograd.grad(module(x)[0].sin().sum(), leaves)

    def shifted(t: torch.Tensor) -> torch.Tensor:  # at an address that is not aligned
        room = torch.empty(t.numel() + 1, dtype=t.dtype)[1:].view(t.shape)
        return room.copy_(t)

    torch.manual_seed(5)
    if hook == "checkpoint":
        y = torch.utils.checkpoint.checkpoint(lambda x: module(x)[0], x, use_reentrant=False)
    else:
        with torch.autograd.graph.saved_tensors_hooks(shifted, lambda t: t):
            y, _ = module(x)
    assert_same(list(torch.autograd.grad(y.sin().sum(), leaves)), list(expected))


def test_a_tape_at_an_odd_address_is_copied_and_no_other() -> None:
    room = torch.arange(25, dtype=torch.float64)
    even, odd = (room[at : at + 24].view(2, 3, 4) for at in (0, 1))
    assert aligned(even, ALIGNMENT) is even
    copy = aligned(odd, ALIGNMENT)
    assert torch.equal(copy, odd)
    assert copy.data_ptr() % 16 == 0


def test_packed_weights_are_found_by_backward_and_go_with_their_tape(
    emulated: TorchMemory, monkeypatch
) -> None:
    packs = []
    pack = cuda._Packer.pack
    monkeypatch.setattr(cuda._Packer, "pack", lambda *given: packs.append(1) or pack(*given))
    gc.collect()
    before = len(packing._of_tapes)
    module, x = build("lstm"), sequence(requires_grad=True)
    y, _ = module(x)
    assert len(packing._of_tapes) == before + 1
    y.sum().backward()
    assert len(packs) == 1
    del y
    gc.collect()
    assert len(packing._of_tapes) == before


def test_hold_packs_once_for_each_stream_and_sees_changes_by_torch(
    emulated: TorchMemory, monkeypatch
) -> None:
    packs = []
    pack = cuda._Packer.pack
    monkeypatch.setattr(cuda._Packer, "pack", lambda *given: packs.append(given[0]) or pack(*given))
    cell, x = rt.GRUCell(3, 4, **PLAIN), torch.randn(2, 3, dtype=torch.float64)
    with torch.no_grad(), rt.hold(cell):
        first = cell(x)
        assert torch.equal(cell(x), first)
        assert len(packs) == 1
        cell.weight_hh.mul_(1.5)
        cell.weight_ih.mul_(1.5)
        changed = cell(x)
    assert len(packs) == 2
    assert not torch.equal(changed, first)
    assert cuda._Packer(1).name != cuda._Packer(2).name
    torch.testing.assert_close(changed, cell(x), rtol=0, atol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 4e-3), ("bfloat16", 3e-2)])
@pytest.mark.parametrize("cell", LAYERS)
def test_modules_of_16_bits_have_results_and_gradients_of_16_bits(
    cell: str, dtype: str, tolerance: float
) -> None:
    narrow = getattr(torch, dtype)
    module = build(cell, bidirectional=True, dtype=torch.float32).to(narrow)
    x = sequence().to(narrow).requires_grad_()
    h = torch.randn(4, 2, 4).to(narrow)
    with running(dtype):
        found = run(module, x, (h, h) if cell == "lstm" else h)
    assert {t.dtype for t in found} == {narrow}
    wide, x, h = module.to(torch.float64), x.detach().double().requires_grad_(), h.double()
    expected = run(wide, x, (h, h) if cell == "lstm" else h)
    for ours, theirs in zip(found, expected, strict=True):
        scale = theirs.abs().max()
        torch.testing.assert_close(ours.double() / scale, theirs / scale, rtol=0, atol=tolerance)


def test_16_bit_modules_on_the_cpu_are_still_refused() -> None:
    module = rt.GRU(3, 4, dtype=torch.float16)
    with pytest.raises(NotImplementedError, match=r"input: expected torch.float32 or torch.float"):
        module(torch.ones(5, 2, 3, dtype=torch.float16))


@pytest.mark.parametrize("wrong", [-1, 6])
def test_lengths_that_the_host_knows_are_checked(wrong: int, emulated: TorchMemory) -> None:
    with pytest.raises(ValueError, match=rf"lengths\[1\]: expected 0 to 5, got {wrong}"):
        build("gru")(sequence(), lengths=[5, wrong])


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3)])
def test_empty_sequences_and_batches_run(cell: str, shape: tuple, emulated: TorchMemory) -> None:
    module = build(cell)
    x = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    h = torch.randn(2, shape[1], 4, dtype=torch.float64)
    y, state = module(x, (h, h) if cell == "lstm" else h)
    assert y.shape == (*shape[:2], 4)
    if not shape[0]:
        assert torch.equal(parts(state)[0], h)
    y.sum().backward()
    assert all(torch.count_nonzero(p.grad) == 0 for p in module.parameters())


def test_memory_of_a_call_is_registered_no_longer_than_it_lives(emulated: TorchMemory) -> None:
    module, x = build("lstm"), sequence(requires_grad=True)
    module(x)[0].sum().backward()
    kept = {p.untyped_storage().data_ptr() for p in (x, *module.parameters())}
    kept |= {p.grad.untyped_storage().data_ptr() for p in (x, *module.parameters())}
    gc.collect()
    assert set(emulated.registered) <= kept
