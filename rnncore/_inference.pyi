from typing import Any, final

from rnncore._rnncore import Packed

@final
class ShortCalls:
    def __init__(self, packed: Packed, batch_first: bool) -> None: ...
    def run(self, x: Any, state: Any, out: Any) -> tuple[Any, Any] | None: ...
