"""The order of events of ``rnncore demo``."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rnncore import nn, train
from rnncore.config import show_config
from rnncore.demo.counted import counted_loss
from rnncore.demo.model import CharacterModel, mean_loss, reach, sample
from rnncore.demo.picture import draw
from rnncore.demo.settings import SHORT, Settings
from rnncore.demo.speed import Measured, compare
from rnncore.demo.text import Text
from rnncore.io import save_tensors
from rnncore.threads import get_num_threads
from rnncore.train.checkpoint import read_notes

VALIDATIONS = 10
CHECKPOINTS = 20
REDUCED = ("bfloat16", "int8")


@dataclass(frozen=True)
class Outputs:
    """The files of one run."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        """What ``--resume`` goes on from."""
        return self.folder / "checkpoint.safetensors"

    @property
    def model(self) -> Path:
        """The trained weights alone."""
        return self.folder / "model.safetensors"

    @property
    def sample(self) -> Path:
        """What the model wrote."""
        return self.folder / "sample.txt"

    @property
    def picture(self) -> Path:
        """Loss and gradients."""
        return self.folder / "picture.png"

    @property
    def report(self) -> Path:
        """Every number, and the machine they come from."""
        return self.folder / "report.json"


def say(text: str = "") -> None:
    """Write a line to standard output now."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def stored_settings(folder: Path, text: Text) -> Settings:
    """Return the settings of the run that left a checkpoint in a folder.

    Raises
    ------
    OSError
        If there is no checkpoint.
    ValueError
        If it was trained on another text.
    """
    path = Outputs(folder).checkpoint
    user = read_notes(path)["user"]
    if user["sha256"] != text.sha256:
        raise ValueError(f"{path}: trained on {user['text']}, got another text, {text.name}")
    return Settings(**user["settings"])


def make_trainer(text: Text, settings: Settings, checkpoint: Path) -> train.Trainer:
    """Put model, loss, optimiser and batches together."""
    model = CharacterModel(len(text.alphabet), settings)
    return train.Trainer(
        model=model,
        loss=nn.SoftmaxCrossEntropy(),
        optimizer=train.Adam(model, betas=(0.9, settings.beta2)),
        batches=train.TextBatches(text.training, settings.batch, settings.steps, settings.seed),
        schedule=train.WarmupCosine(settings.rate, settings.updates, settings.warmup),
        max_norm=settings.max_norm,
        validate=lambda model: mean_loss(model, text),
        validate_every=max(1, settings.updates // VALIDATIONS),
        checkpoint=checkpoint,
        checkpoint_every=max(1, settings.updates // CHECKPOINTS),
        notes={"settings": asdict(settings), "text": text.name, "sha256": text.sha256},
    )


def run(
    text: Text,
    folder: Path,
    settings: Settings = SHORT,
    *,
    resume: bool = False,
    compared: bool = True,
    sample_length: int = 600,
) -> bool:
    """Train on a text and show what came of it.

    Parameters
    ----------
    text : Text
        What is learnt.
    folder : Path
        Where the files go; made if absent.
    settings : Settings
        Those of the checkpoint when resuming.
    resume : bool
        Go on from the checkpoint in the folder.
    compared : bool
        Measure the training step beside NumPy and PyTorch.
    sample_length : int
        Characters to write.

    Returns
    -------
    bool
        False if Ctrl-C ended the training; its checkpoint is then in the folder.
    """
    files = Outputs(folder)
    trainer = make_trainer(text, settings, files.checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    if resume:
        trainer.load()
    describe(text, settings, trainer)
    if not trainer.run(settings.updates):
        say(f"stopped after {trainer.updates} of {settings.updates} updates")
        say(f"wrote {files.checkpoint}; --resume with the same --out goes on to the same numbers")
        return False
    losses = show_losses(text, trainer)
    written = sample(trainer.model, text, sample_length, settings.seed)
    say(f"\nsample\n------\n{written}\n------")
    measured = compare(text, settings) if compared else []
    show_speed(measured)
    write(files, text, settings, trainer, losses, written, measured)
    return True


def describe(text: Text, settings: Settings, trainer: train.Trainer) -> None:
    """Say what is about to be trained."""
    say(
        f"{text.name}: {len(text.indices):,} characters, {len(text.alphabet) - 1} different ones; "
        f"the last {len(text.indices) - text.cut:,} validate"
    )
    say(
        f"model: embedding {settings.embedding}, two LSTM layers of {settings.hidden}, softmax; "
        f"{trainer.model.num_parameters:,} parameters"
    )
    say(
        f"training: {settings.updates:,} updates of {settings.batch} x {settings.steps} "
        f"characters, {get_num_threads()} threads"
    )
    if trainer.updates:
        say(f"resumed after {trainer.updates:,} updates")


def show_losses(text: Text, trainer: train.Trainer) -> dict[str, float]:
    """Print the final validation loss beside the counted model's, and return all of them."""
    losses = {"model": trainer.history.validation[-1][1], "counted": counted_loss(text)}
    for weights in REDUCED:
        losses[weights] = mean_loss(trainer.model, text, weights)
    characters = trainer.updates * trainer.batches.batch * trainer.batches.steps
    seconds = trainer.history.seconds
    say(f"trained on {characters:,} characters in {seconds:.0f} s")
    say("\nvalidation loss, nats per character")
    say(f"  this model       {losses['model']:.6f}")
    for weights in REDUCED:
        more = math.expm1(losses[weights] - losses["model"])
        say(f"    in {weights:13} {losses[weights]:.6f}   perplexity {more:+.2%}")
    say(f"  counted 5-gram   {losses['counted']:.6f}")
    return losses


def show_speed(measured: list[Measured]) -> None:
    """Print the table of the contenders."""
    if not measured:
        return
    say(f"\none training step, {get_num_threads()} threads, median of interleaved rounds")
    say(f"  {'':19} {'characters/s':>12} {'ms (from - to)':>22} {'ratio':>6} {'first loss':>11}")
    for one in measured:
        span = f"{one.seconds * 1e3:.1f} ({one.fastest * 1e3:.1f} - {one.slowest * 1e3:.1f})"
        ratio = one.rate / measured[0].rate
        say(f"  {one.name:19} {one.rate:12,.0f} {span:>22} {ratio:6.2f} {one.loss:11.6f}")
    if not any(one.name.startswith("PyTorch") for one in measured):
        say("  PyTorch is not installed")


def write(
    files: Outputs,
    text: Text,
    settings: Settings,
    trainer: train.Trainer,
    losses: dict[str, float],
    written: str,
    measured: list[Measured],
) -> None:
    """Write model, sample, picture and report, and say where they are."""
    reaches = {
        "trained": reach(trainer.model, text.validation),
        "untrained": reach(CharacterModel(len(text.alphabet), settings), text.validation),
    }
    save_tensors(files.model, trainer.model.state_dict(), {"alphabet": text.alphabet})
    files.sample.write_text(written + "\n", encoding="utf-8")
    drawn = draw(files.picture, trainer.history, losses["counted"], reaches)
    report: dict[str, Any] = {
        "text": {"name": text.name, "characters": len(text.indices), "sha256": text.sha256},
        "settings": asdict(settings),
        "validation_loss": losses,
        "history": asdict(trainer.history),
        "gradient_norms": {moment: norms.tolist() for moment, norms in reaches.items()},
        "speed": [asdict(one) for one in measured],
        "machine": show_config("dicts"),
    }
    files.report.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    say()
    for path in (files.checkpoint, files.model, files.sample, files.report):
        say(f"wrote {path}")
    if drawn:
        say(f"wrote {files.picture}")
    else:
        say('no picture: matplotlib is not installed (pip install "rnncore[examples]")')
