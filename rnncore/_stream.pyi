from typing import Any, final

from numpy.typing import NDArray

from rnncore._rnncore import Packed

_Array = NDArray[Any]
_State = _Array | tuple[_Array, _Array]

@final
class Stream:
    def __init__(
        self, packed: Packed, batch: int, h0: _Array | None = None, c0: _Array | None = None
    ) -> None: ...
    @property
    def batch(self) -> int: ...
    def step(self, x_t: _Array, out: _Array | None = None) -> _Array: ...
    def reset(self, rows: Any = None) -> None: ...
    @property
    def state(self) -> _State: ...
    @state.setter
    def state(self, value: _State) -> None: ...
