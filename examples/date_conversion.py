"""Dates letter by letter: "august 19, 2003" is read and "2003-08-19" written.

Chapter 8 of Deep Learning from Scratch 2: an encoder-decoder of LSTMs, the same with attention over
what the encoder wrote at every step, and a small transformer beside them. A date counts if all its
letters are right. More than a quarter of the book's test lines are also among those it trains on:
here duplicates are removed before the set is split.

python examples/date_conversion.py --data DIR
"""

from __future__ import annotations

import datetime
import time
from typing import Any

import jobs
import numpy as np
import pairs

import rnncore as rc
from rnncore import models, nn
from rnncore.pictures import new_figure

DATASET = "seq2seq-toy"
EMBEDDING, HIDDEN, EPOCHS = 16, 128, 6
WIDTH, HEADS, LAYERS = 64, 4, 2
RATES = {"encoder-decoder": 0.005, "with attention": 0.005, "transformer": 0.002}
FORMATS = ("%B %d, %Y", "%b %d, %Y", "%m/%d/%y", "%A, %B %d, %Y", "%d %B %Y")


class Transformer(nn.Module):
    """Read with self-attention, write with attention to what is written and to what was read."""

    def __init__(self, symbols: int, width: int, seed: int) -> None:
        super().__init__()
        options: Any = {"dim_feedforward": 2 * width, "dropout": 0.0, "norm_first": True}
        self.read = nn.Embedding(symbols, width, seed=seed)
        self.read_position = nn.PositionalEncoding(width)
        self.encoder = nn.TransformerEncoder(width, HEADS, LAYERS, **options, seed=seed + 1)
        self.write = nn.Embedding(symbols, width, seed=seed + 2)
        self.write_position = nn.PositionalEncoding(width)
        self.decoder = nn.TransformerDecoder(width, HEADS, LAYERS, **options, seed=seed + 3)
        self.output = nn.Linear(width, symbols, seed=seed + 4)

    def forward(self, source: Any, target: Any, lengths: Any) -> Any:
        x = self.read_position.forward(self.read.forward(source))
        memory = self.encoder.forward(x, lengths)
        z = self.write_position.forward(self.write.forward(target))
        return self.output.forward(self.decoder.forward(z, memory, memory_lengths=lengths))

    def backward(self, dlogits: Any) -> None:
        dz, dmemory = self.decoder.backward(self.output.backward(dlogits))
        self.write.backward(self.write_position.backward(dz))
        self.read.backward(self.read_position.backward(self.encoder.backward(dmemory)))

    def encode(self, source: Any, lengths: Any) -> Any:
        memory = self.encoder(self.read_position(self.read(source)), lengths)
        return np.zeros((0, len(lengths)), np.int64), memory, lengths

    def stepper(self) -> models.search.Step:
        def step(symbols: Any, state: Any) -> tuple[Any, Any]:
            written, memory, lengths = state
            written = np.concatenate([written, symbols[None]])
            z = self.write_position(self.write(written))
            y = self.decoder(z, memory, memory_lengths=lengths)
            return self.output(y[-1]), (written, memory, lengths)

        return step


def recurrent_model(symbols: int, hidden: int, attention: Any, seed: int) -> models.EncoderDecoder:
    layers = [rc.LSTM(EMBEDDING, hidden, seed=seed + place) for place in range(2)]
    return models.EncoderDecoder(symbols, symbols, *layers, attention=attention, seed=seed + 2)


def make_models(symbols: int, small: bool, seed: int) -> dict[str, Any]:
    hidden, width = (32, 16) if small else (HIDDEN, WIDTH)
    seed *= 5
    return {
        "encoder-decoder": recurrent_model(symbols, hidden, None, seed),
        "with attention": recurrent_model(symbols, hidden, nn.Attention("dot"), seed),
        "transformer": Transformer(symbols, width, seed),
    }


def made_dates(count: int, seed: int) -> list[tuple[str, str]]:
    """Return dates in five ways of writing them, for ``--quick``."""
    draw = np.random.default_rng(seed)
    found = []
    for day, way in zip(
        draw.integers(17_000, size=count), draw.integers(5, size=count), strict=True
    ):
        date = datetime.date(1970, 1, 1) + datetime.timedelta(days=int(day))
        found.append((date.strftime(FORMATS[way]), date.isoformat()))
    return found


def attention_maps(model: Any, task: pairs.Task, count: int = 4) -> list[tuple[str, str, Any]]:
    """Return questions of different formats, answers, and where each answer's letter looked."""
    part = task.validation
    kinds: dict[str, int] = {}
    for place, (question, _) in enumerate(part.texts):
        kinds.setdefault("".join("9" if c.isdigit() else "a" for c in question[:4]), place)
    found = []
    for place in list(kinds.values())[:count]:
        question, answer = part.texts[place]
        read = np.array([task.start, *part.targets[place]])
        model(part.sources[place][:, None], read[:, None])
        found.append((question, answer, model.decoder.attention.weights[0, : len(answer)]))
    return found


def draw(path: Any, fits: dict[str, Any], maps: list[tuple[str, str, Any]]) -> None:
    figure = new_figure(4 * (1 + len(maps)), 5)
    if figure is None:
        return
    first, *others = figure.subplots(1, 1 + len(maps))
    for name, fit in fits.items():
        epochs, right = zip(*fit["validation"], strict=True)
        seconds = fit["cpu_seconds"] / fit["epochs"]
        first.plot(epochs, right, "o-", label=f"{name}, {seconds:.0f} s an epoch")
    first.set(xlabel="epochs", ylabel="validation dates right", ylim=(0, 1.02))
    first.legend(fontsize="small")
    for axes, (question, answer, weights) in zip(others, maps, strict=True):
        axes.imshow(weights.T, cmap="gray", vmin=0, vmax=1, aspect="auto")
        axes.set_yticks(range(len(question)), list(question))
        axes.set_xticks(range(len(answer)), list(answer))
    jobs.save_picture(figure, path, dpi=90)


def main() -> None:
    arguments, started = jobs.parser(__doc__, DATASET).parse_args(), time.perf_counter()
    epochs = 3 if arguments.quick else arguments.epochs or EPOCHS
    made = made_dates(1500, arguments.seed) if arguments.quick else None
    task = pairs.make_task(made or pairs.read_pairs(arguments, DATASET, "date.txt"))
    print(task.describe())
    trained = make_models(len(task.alphabet), arguments.quick, arguments.seed)
    fits = {
        name: pairs.fit(model, task, name, epochs=epochs, rate=RATES[name], seed=arguments.seed)
        for name, model in trained.items()
    }
    for name, fit in fits.items():  # the test part, once, after all that validation decides
        before = time.process_time()
        fit["test"] = pairs.share_right(trained[name], task, task.test, False)
        fit["test_cpu_seconds"] = time.process_time() - before
        print(
            f"{name:16} {fit['validation'][-1][1]:8.3%} of validation, {fit['test']:8.3%} of test "
            f"dates right; {fit['cpu_seconds'] / epochs:.1f} s an epoch of one CPU, "
            f"{fit['parameters']:,} parameters"
        )
    jobs.write_results("date_conversion", arguments, {"data": task.counts(), **fits}, started)
    path = jobs.picture_path("date_conversion", arguments)
    if path is not None:
        draw(path, fits, attention_maps(trained["with attention"], task))


if __name__ == "__main__":
    main()
