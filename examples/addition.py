"""Addition letter by letter: "57+5" is read and "62" written, plain, reversed, peeky.

The encoder-decoders of Deep Learning from Scratch 2, chapter 7: one LSTM reads the question, and
another starts from its state and writes the answer. Questions may be turned around, and every step
of a peeky decoder sees the encoder's last state. An answer counts if all its letters are right.

python examples/addition.py --data DIR
"""

from __future__ import annotations

import time
from typing import Any

import jobs
import numpy as np
import pairs

import rnncore as rc
from rnncore import models
from rnncore.pictures import new_figure

DATASET = "seq2seq-toy"
EMBEDDING, HIDDEN, EPOCHS, RATE = 16, 128, 15, 0.005
VARIANTS = {  # reverse, peeky
    "plain": (False, False),
    "reversed": (True, False),
    "peeky": (False, True),
    "reversed, peeky": (True, True),
}


def small_sums(count: int, seed: int) -> list[tuple[str, str]]:
    """Return sums of numbers below 50, for ``--quick``."""
    numbers = np.random.default_rng(seed).integers(50, size=(count, 2))
    return [(f"{a}+{b}", str(a + b)) for a, b in numbers.tolist()]


def make_model(task: pairs.Task, peeky: bool, hidden: int, seed: int) -> models.EncoderDecoder:
    count, seen = len(task.alphabet), hidden if peeky else 0
    return models.EncoderDecoder(
        count,
        count,
        rc.LSTM(EMBEDDING, hidden, seed=3 * seed),
        rc.LSTM(EMBEDDING + seen, hidden, seed=3 * seed + 1),
        peeky=peeky,
        seed=3 * seed + 2,
    )


def examples(model: Any, task: pairs.Task, reverse: bool, count: int = 6) -> list[list[str]]:
    """Return some test questions, what was written and what is right: the mistakes first."""
    written = pairs.answers(model, task, task.test, reverse)
    rows = [[a, mine, b] for mine, (a, b) in zip(written, task.test.texts, strict=True)]
    return sorted(rows, key=lambda row: row[1] == row[2])[:count]


def draw(path: Any, fits: dict[str, Any]) -> None:
    figure = new_figure(7, 4.5)
    if figure is None:
        return
    axes = figure.subplots()
    for name, fit in fits.items():
        epochs, right = zip(*fit["validation"], strict=True)
        axes.plot(epochs, right, "o-", label=f"{name}: test {fit['test']:.2%}")
    axes.set(xlabel="epochs", ylabel="validation answers right", title="Addition", ylim=(0, 1.02))
    axes.legend()
    jobs.save_picture(figure, path)


def main() -> None:
    arguments, started = jobs.parser(__doc__, DATASET).parse_args(), time.perf_counter()
    hidden, epochs = (32, 10) if arguments.quick else (HIDDEN, arguments.epochs or EPOCHS)
    made = small_sums(3000, arguments.seed) if arguments.quick else None
    task = pairs.make_task(made or pairs.read_pairs(arguments, DATASET, "addition.txt"))
    print(task.describe())
    fits, trained = {}, {}
    for name, (reverse, peeky) in VARIANTS.items():
        trained[name] = model = make_model(task, peeky, hidden, arguments.seed)
        fits[name] = pairs.fit(
            model, task, name, epochs=epochs, rate=RATE, seed=arguments.seed, reverse=reverse
        )
    for name, fit in fits.items():  # the test part, once, after all that validation decides
        fit["test"] = pairs.share_right(trained[name], task, task.test, VARIANTS[name][0])
        print(
            f"{name:16} {fit['validation'][-1][1]:7.2%} of validation, {fit['test']:7.2%} of test "
            f"answers right, {fit['cpu_seconds']:.0f} s of one CPU"
        )
    best = max(fits, key=lambda name: fits[name]["validation"][-1][1])
    print(f"chosen by validation: {best}, {fits[best]['test']:.2%} of test answers right")
    shown = examples(trained[best], task, VARIANTS[best][0])
    for question, written, right in shown:
        print(f"  {question:>8} = {written:5} {'' if written == right else f'not {right}'}")
    figures = {"data": task.counts(), "hidden": hidden, "best": best, "examples": shown}
    jobs.write_results("addition", arguments, {**figures, "variants": fits}, started)
    path = jobs.picture_path("addition", arguments)
    if path is not None:
        draw(path, fits)


if __name__ == "__main__":
    main()
