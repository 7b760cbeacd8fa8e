"""A character model in one page: train it on a text, then let it write.

python examples/char_model.py my_text.txt
"""

import sys
from pathlib import Path

import numpy as np

import rnncore as rc
from rnncore import nn, train


class CharModel(nn.Module):
    def __init__(self, symbols: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 32, seed=0)
        self.gru = rc.GRU(32, 128, stateful=True, seed=1)
        self.output = nn.Linear(128, symbols, seed=2)

    def forward(self, x):
        y, _ = self.gru.forward(self.embedding.forward(x))
        return self.output.forward(y)

    def backward(self, dlogits):
        dx, _ = self.gru.backward(self.output.backward(dlogits))
        self.embedding.backward(dx)


def main() -> None:
    text = Path(sys.argv[1] if len(sys.argv) > 1 else __file__).read_text(encoding="utf-8")
    alphabet = sorted(set(text))
    indices = np.array([alphabet.index(character) for character in text])

    model = CharModel(len(alphabet))
    updates = 300
    trainer = train.Trainer(
        model,
        nn.SoftmaxCrossEntropy(),
        train.Adam(model),
        train.TextBatches(indices, batch=8, steps=32),
        schedule=train.WarmupCosine(peak=0.01, updates=updates, warmup=10),
        max_norm=1.0,
    )
    trainer.run(updates)
    print(f"loss {trainer.history.losses[0]:.3f} -> {trainer.history.losses[-1]:.3f}")

    stream, draw, index = model.gru.freeze().stream(), np.random.default_rng(0), indices[0]
    for _ in range(300):
        logits = model.output(stream.step(model.embedding(index))).astype(float)
        shares = np.exp(logits - logits.max())
        index = draw.choice(len(alphabet), p=shares / shares.sum())
        print(alphabet[index], end="")
    print()


if __name__ == "__main__":
    main()
