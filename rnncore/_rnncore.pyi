from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Array = NDArray[Any]
_debug: ModuleType
_limits: ModuleType

class Spec:
    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        num_directions: int,
        proj_size: int = 0,
        bias: bool = True,
        nonlinearity: str = "tanh",
        dtype: str = "float32",
        weights: str = "full",
        peephole: bool = False,
        coupled: bool = False,
        reset_after: bool = True,
        layer_norm: bool = False,
        zoneout: tuple[float, float] = (0.0, 0.0),
        activations: tuple[tuple[str, float, float], ...] | None = None,
        clip: float | None = None,
    ) -> None: ...
    @property
    def cell_name(self) -> str: ...
    @property
    def has_options(self) -> bool: ...

class Packed:
    def __init__(self, spec: Spec, params: Sequence[_Array], num_threads: int) -> None: ...
    @property
    def spec(self) -> Spec: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def _capsule(self) -> object: ...

class Tape:
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def spent(self) -> bool: ...

def forward(
    packed: Packed,
    x: _Array,
    h0: _Array | None,
    c0: _Array | None,
    lengths: NDArray[np.int64] | None,
    resets: NDArray[np.bool_] | None,
    y: _Array,
    hn: _Array,
    cn: _Array | None,
    masks: Sequence[Sequence[_Array | None]] | None,
    keep: bool,
    recompute: bool,
    num_threads: int,
    memory: _Array | None = None,
) -> Tape | None: ...
def tape_width(spec: Spec, masked: Sequence[bool], recompute: bool) -> int: ...
def tape_memory(spec: Spec, steps: int, batch: int, width: int) -> _Array: ...
def tape_in(
    packed: Packed,
    memory: _Array,
    steps: int,
    batch: int,
    lengths: NDArray[np.int64] | None,
    resets: NDArray[np.bool_] | None,
    masks: Sequence[Sequence[_Array | None]] | None,
    recompute: bool,
) -> Tape: ...
def backward(
    packed: Packed,
    tape: Tape,
    x: _Array,
    y: _Array,
    h0: _Array | None,
    c0: _Array | None,
    masks: Sequence[Sequence[_Array | None]] | None,
    dy: _Array | None,
    dhn: _Array | None,
    dcn: _Array | None,
    dx: _Array | None,
    dh0: _Array,
    dc0: _Array | None,
    grads: Sequence[_Array],
    retain: bool,
    num_threads: int,
    overwrite: bool = False,
    report: tuple[Sequence[_Array | None], Callable[[int], object]] | None = None,
) -> None: ...
def isa() -> str: ...
def compiled_isas() -> list[str]: ...
def supported_isas() -> list[str]: ...
def set_isa(name: str) -> None: ...
def compiler() -> str: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def default_num_threads() -> int: ...
def borrow_threads(
    parallel: int,
    thread_num: int,
    num_threads: int,
    max_threads: int,
    in_parallel: int,
    dynamic: int,
) -> None: ...
def return_threads() -> None: ...
def linear_forward(
    x: _Array, weight: _Array, bias: _Array | None, out: _Array, num_threads: int
) -> None: ...
def linear_backward(
    x: _Array,
    weight: _Array,
    dout: _Array,
    dx: _Array | None,
    dweight: _Array,
    dbias: _Array | None,
    num_threads: int,
) -> None: ...
def batched_product(
    a: _Array, b: _Array, out: _Array, transposed: bool, num_threads: int
) -> None: ...
def softmax_cross_entropy(
    logits: _Array,
    targets: NDArray[np.int64],
    dlogits: _Array | None,
    weights: _Array | None = None,
    scale: float = 1.0,
    num_threads: int = 1,
) -> float: ...
def embedding_backward(
    indices: NDArray[np.int64], dout: _Array, dweight: _Array, num_threads: int = 1
) -> None: ...
def sgd_step(
    param: _Array,
    grad: _Array,
    velocity: _Array | None,
    lr: float,
    momentum: float,
    nesterov: bool,
    penalty: float,
    num_threads: int,
) -> None: ...
def adam_step(
    param: _Array,
    grad: _Array,
    m: _Array,
    v: _Array,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
    num_threads: int = 1,
    penalty: float = 0.0,
) -> None: ...
def sum_of_squares(x: _Array, num_threads: int) -> float: ...
def activation(
    name: str, x: _Array, out: _Array, isa: str | None = None, num_threads: int = 1
) -> None: ...
def write_safetensors(
    path: str | bytes, tensors: dict[str, _Array], metadata: dict[str, str]
) -> None: ...
def read_safetensors(path: str | bytes) -> tuple[dict[str, _Array], dict[str, str]]: ...

class CudaCell:
    @property
    def phases(self) -> int: ...
    @property
    def has_plain(self) -> bool: ...

class CudaProgram:
    def __init__(self, device: int, kernels: dict[str, int], width: int) -> None: ...
    def take_lengths(
        self, stream: int, steps: int, rows: int, lengths: int, taken: int, beyond: int
    ) -> None: ...

_Strided = tuple[int, int, int]

class CudaStack:
    def __init__(self, spec: Spec, dtype: str, params: list[int]) -> None: ...
    @property
    def nbytes(self) -> int: ...
    def pack(self, program: CudaProgram, stream: int, block: int) -> None: ...

class CudaSequence:
    def __init__(
        self,
        stack: CudaStack,
        steps: int,
        batch: int,
        host_lengths: list[int] | None,
        lengths: int,
        resets: int,
        x: _Strided,
        h0: int,
        c0: int,
        masks: tuple[list[Any], ...] | None,
    ) -> None: ...
    def tape_bytes(self, keep: bool) -> int: ...
    def forward_bytes(self) -> int: ...
    def backward_bytes(self, retain: bool) -> int: ...
    def resume(self, y: _Strided) -> None: ...
    def forward(
        self,
        program: CudaProgram,
        stream: int,
        allow_tf32: bool,
        tape: int,
        workspace: int,
        keep: bool,
        y: _Strided,
        hn: int,
        cn: int,
    ) -> None: ...
    def backward(
        self,
        program: CudaProgram,
        stream: int,
        allow_tf32: bool,
        tape: int,
        workspace: int,
        dy: _Strided,
        dhn: int,
        dcn: int,
        dx: _Strided,
        dh0: int,
        dc0: int,
        gradients: list[int],
        retain: bool,
    ) -> None: ...

def cuda_cells() -> dict[str, CudaCell]: ...
def cuda_device() -> int: ...
def cuda_tape_width(spec: Spec, dtype: str, masked: Sequence[bool], ragged: bool) -> int: ...
def cuda_width(spec: Spec, dtype: str) -> int: ...
def cuda_widths(cell: str, dtype: str) -> list[int]: ...
