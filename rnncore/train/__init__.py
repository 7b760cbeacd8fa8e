"""Training: optimisers, schedules, gradient clipping, batches, a trainer with checkpoints.

Everything takes recurrent layers and :mod:`rnncore.nn` modules alike.
"""

from rnncore.train.batches import TextBatch, TextBatches
from rnncore.train.checkpoint import load_checkpoint, save_checkpoint
from rnncore.train.clipping import clip_grad_norm, clip_grad_value
from rnncore.train.gradient_flow import gradient_flow
from rnncore.train.optimizers import SGD, Adam, AdamW, Optimizer
from rnncore.train.progress import Progress
from rnncore.train.schedules import WarmupCosine
from rnncore.train.trainer import History, Trainer

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "History",
    "Optimizer",
    "Progress",
    "TextBatch",
    "TextBatches",
    "Trainer",
    "WarmupCosine",
    "clip_grad_norm",
    "clip_grad_value",
    "gradient_flow",
    "load_checkpoint",
    "save_checkpoint",
]
