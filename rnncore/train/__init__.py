"""Training: optimisers, schedules, gradient clipping, batches, a trainer with checkpoints.

Everything takes recurrent layers and :mod:`rnncore.nn` modules alike.
"""

from rnncore.train.batches import Batches, TextBatch, TextBatches
from rnncore.train.checkpoint import load_checkpoint, save_checkpoint
from rnncore.train.clipping import clip_grad_norm, clip_grad_value
from rnncore.train.evaluation import evaluate
from rnncore.train.history import History
from rnncore.train.optimizers import SGD, Adam, AdamW, Optimizer
from rnncore.train.padded_batches import PaddedBatch, PaddedBatches, PairBatches, reversed_within
from rnncore.train.plateau import Plateau
from rnncore.train.progress import Progress
from rnncore.train.schedules import (
    Constant,
    Cosine,
    Exponential,
    OneCycle,
    Schedule,
    Step,
    Warmup,
    WarmupCosine,
)
from rnncore.train.trainer import Trainer
from rnncore.train.window_batches import WindowBatch, WindowBatches

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Batches",
    "Constant",
    "Cosine",
    "Exponential",
    "History",
    "OneCycle",
    "Optimizer",
    "PaddedBatch",
    "PaddedBatches",
    "PairBatches",
    "Plateau",
    "Progress",
    "Schedule",
    "Step",
    "TextBatch",
    "TextBatches",
    "Trainer",
    "Warmup",
    "WarmupCosine",
    "WindowBatch",
    "WindowBatches",
    "clip_grad_norm",
    "clip_grad_value",
    "evaluate",
    "load_checkpoint",
    "reversed_within",
    "save_checkpoint",
]
