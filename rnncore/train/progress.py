"""Progress on standard error: tqdm's bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

LINE_SECONDS = 10.0


class Progress:
    """Show how far a loop of known length is.

    On a terminal it is tqdm's bar if tqdm can be imported, and one line written over and over if
    not; into a file or a pipe it is a plain line every ten seconds.

    Parameters
    ----------
    total : int
        Length of the loop.
    done : int
        Those done before.
    label : str
        Written in front.
    show : bool
        False writes nothing.
    unit : str
        What is counted.
    """

    def __init__(
        self, total: int, done: int = 0, label: str = "", show: bool = True, unit: str = "updates"
    ) -> None:
        self.total, self.done, self.label, self.unit = total, done, label, unit
        self._show = show
        self._terminal = sys.stderr.isatty()
        self._started = self._written = time.perf_counter()
        self._first = done
        self._note = ""
        self._bar = self._tqdm() if show and self._terminal else None

    def _tqdm(self) -> Any:
        try:
            from tqdm import tqdm
        except ImportError:
            return None
        return tqdm(
            total=self.total,
            initial=self.done,
            desc=self.label,
            unit=f" {self.unit}",
            file=sys.stderr,
        )

    def advance(self, note: str = "") -> None:
        """Count one more; ``note`` is shown at the end of the line."""
        self.done += 1
        self._note = note
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(1)
        elif self._show:
            pause = 0.2 if self._terminal else LINE_SECONDS
            if time.perf_counter() - self._written >= pause:
                self._line()

    def _line(self, last: bool = False) -> None:
        self._written = time.perf_counter()
        seconds = self._written - self._started
        rate = (self.done - self._first) / seconds if seconds > 0 else 0.0
        line = f"{self.label}: {self.done}/{self.total} {rate:.1f} {self.unit}/s {self._note}"
        if self._terminal:
            sys.stderr.write("\r" + line.ljust(79) + ("\n" if last else ""))
        else:
            sys.stderr.write(line.rstrip() + "\n")
        sys.stderr.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._show and self.done > self._first:
            self._line(last=True)
