"""Many to one: tell noisy waves of different lengths apart by the state at their end.

python examples/sequence_classification.py
"""

import numpy as np

import rnncore as rc
from rnncore import nn, train

SHAPES = ("sine", "square", "saw")
LONGEST = 40


def waves(count, draw):
    """Return waves (T, N, 1), their lengths (N,) and which shape each has (N,)."""
    kind, lengths = draw.integers(3, size=count), draw.integers(15, LONGEST + 1, size=count)
    period, start = draw.uniform(8, 14, size=count), draw.uniform(0, 1, size=count)
    phase = np.arange(LONGEST)[:, None] / period + start
    shapes = np.stack([np.sin(2 * np.pi * phase), np.sign(phase % 1 - 0.5), 2 * (phase % 1) - 1])
    clean = shapes[kind, :, np.arange(count)].T
    x = clean + 0.3 * draw.standard_normal(clean.shape)
    return x[:, :, None].astype(np.float32), lengths, kind


def main() -> None:
    draw = np.random.default_rng(0)
    lstm, output = rc.LSTM(1, 32, forget_bias=1.0, seed=1), nn.Linear(32, len(SHAPES), seed=2)
    loss, optimizer = nn.SoftmaxCrossEntropy(), train.Adam([lstm, output], lr=0.01)
    for update in range(1, 301):
        x, lengths, kind = waves(64, draw)
        _, (h, c) = lstm.forward(x, lengths=lengths)  # h[0]: each wave's state at its own end
        value = loss.forward(output.forward(h[0]), kind)
        optimizer.zero_grad()
        dh = output.backward(loss.backward())[None]
        lstm.backward(None, (dh, np.zeros_like(c)))
        train.clip_grad_norm([lstm, output], 1.0)
        optimizer.step()
        if update % 50 == 0:
            print(f"update {update}: loss {value:.3f}")

    x, lengths, kind = waves(1000, draw)
    _, (h, _) = lstm(x, lengths=lengths)
    right = output(h[0]).argmax(axis=1) == kind
    for place, name in enumerate(SHAPES):
        print(f"{name:6} {right[kind == place].mean():.1%} of new waves recognised")


if __name__ == "__main__":
    main()
