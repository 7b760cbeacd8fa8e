"""Read Persuasion character by character, then write on at several temperatures.

Many to many: after every character its successor is predicted. The model, the text that rnncore
carries along, and the settings are those of ``rnncore demo``; the last tenth validates. Of what is
written at each temperature it is told how many words the novel has, and how many are different.

python examples/character_language_model.py
"""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import Any

import jobs

from rnncore import nn, train
from rnncore.demo import SHORT, Settings
from rnncore.demo.counted import counted_loss
from rnncore.demo.model import CharacterModel, mean_loss, reach, sample
from rnncore.demo.picture import draw
from rnncore.demo.text import Text, persuasion, split_text

TEMPERATURES = (0.25, 0.5, 0.8, 1.0, 1.3)
TINY = Settings(updates=120, hidden=48, dropout=0.0, rate=0.02, embedding=16, batch=16, steps=32)


def make_trainer(text: Text, settings: Settings, epochs: int | None) -> train.Trainer:
    model = CharacterModel(len(text.alphabet), settings)
    batches = train.TextBatches(text.training, settings.batch, settings.steps, settings.seed)
    if epochs:
        settings = replace(settings, updates=epochs * batches.per_epoch)
    return train.Trainer(
        model,
        nn.SoftmaxCrossEntropy(),
        train.Adam(model, betas=(0.9, settings.beta2)),
        batches,
        schedule=train.WarmupCosine(settings.rate, settings.updates, settings.warmup),
        max_norm=settings.max_norm,
        validate=lambda model: mean_loss(model, text),
        validate_every=max(1, settings.updates // 10),
    )


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def write(model: CharacterModel, text: Text, length: int, seed: int) -> dict[str, Any]:
    """Let the model write at each temperature; count its words that the novel knows."""
    known = set(words(text.decode(text.training)))
    found = {}
    for temperature in TEMPERATURES:
        written = sample(model, text, length, seed, temperature)
        used = words(written)
        found[str(temperature)] = {
            "known_words": sum(word in known for word in used) / max(1, len(used)),
            "different_words": len(set(used)) / max(1, len(used)),
            "text": written[:600],
        }
    return found


def main() -> None:
    arguments, started = jobs.parser(__doc__).parse_args(), time.perf_counter()
    text, settings = persuasion(), replace(SHORT, seed=arguments.seed)
    if arguments.quick:
        text = split_text("three pages", text.decode(text.indices[:20_000]))
        settings = replace(TINY, seed=arguments.seed)
    trainer = make_trainer(text, settings, arguments.epochs)
    trainer.run(trainer.schedule.updates)
    losses = {
        "validation": trainer.history.validation[-1][1],
        "counted_5_gram": counted_loss(text),
    }
    print(f"validation: {losses['validation']:.6f} nats per character")
    print(f"  a counted 5-gram: {losses['counted_5_gram']:.6f}")
    samples = write(trainer.model, text, 500 if arguments.quick else 5000, arguments.seed)
    for temperature, one in samples.items():
        print(
            f"\ntemperature {temperature}: {one['known_words']:.1%} of the words are the novel's, "
            f"{one['different_words']:.1%} are different\n{one['text'][:200]}"
        )
    figures = {
        **losses,
        "updates": trainer.updates,
        "parameters": trainer.model.num_parameters,
        "training_seconds": trainer.history.seconds,
        "curve": trainer.history.validation,
        "samples": samples,
    }
    jobs.write_results("character_language_model", arguments, figures, started)
    path = jobs.picture_path("character_language_model", arguments)
    untrained = CharacterModel(len(text.alphabet), settings)
    reaches = {
        "trained": reach(trainer.model, text.validation),
        "untrained": reach(untrained, text.validation),
    }
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if draw(path, trainer.history, losses["counted_5_gram"], reaches):
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
