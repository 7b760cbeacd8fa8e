"""The demonstration: a character language model trained on a novel, as any user would write it.

``rnncore demo`` runs it. :mod:`rnncore.demo.model` is the model, :mod:`rnncore.demo.program` the
order of events, :mod:`rnncore.demo.settings` every number that was chosen.
"""

from rnncore.demo.program import run
from rnncore.demo.settings import LONG, SHORT, Settings

__all__ = ["LONG", "SHORT", "Settings", "run"]
