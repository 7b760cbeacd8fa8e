"""Step by step as samples arrive: a stream gives the same bits as the whole sequence at once.

python examples/streaming.py
"""

import time

import numpy as np

import rnncore as rc


def main() -> None:
    layer = rc.GRU(input_size=8, hidden_size=32, num_layers=2, seed=0)
    signal = np.random.default_rng(0).standard_normal((2000, 8)).astype(np.float32)

    engine = layer.freeze()
    whole, _ = engine(signal)

    stream = engine.stream()
    y = np.empty(32, np.float32)
    equal, started = True, time.perf_counter()
    for x_t, expected in zip(signal, whole, strict=True):
        stream.step(x_t, out=y)
        equal &= np.array_equal(y, expected)
    seconds = time.perf_counter() - started
    print(f"{len(signal)} steps, {seconds / len(signal) * 1e6:.1f} microseconds a step")
    print("bit for bit the whole sequence at once" if equal else "not the same bits")

    stream.reset()
    first = stream.step(signal[0])
    print("after reset it starts anew:", np.array_equal(first, whole[0]))


if __name__ == "__main__":
    main()
