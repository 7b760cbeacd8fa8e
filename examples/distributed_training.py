"""What the examples of several processes share: a character model and its training, row by row.

``distributed_mpi.py`` and ``distributed_torch.py`` differ in what joins the processes alone.
"""

import argparse

import numpy as np

import rnncore as rc
from rnncore import distributed, nn, train
from rnncore.demo.text import persuasion

ROWS = 16  # of the whole batch


class CharModel(nn.Module):
    def __init__(self, symbols: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 32, seed=0)
        self.lstm = rc.LSTM(32, hidden, num_layers=2, stateful=True, seed=1)
        self.output = nn.Linear(hidden, symbols, seed=2)

    def forward(self, x):
        y, _ = self.lstm.forward(self.embedding.forward(x))
        return self.output.forward(y)

    def backward(self, dlogits):
        dx, _ = self.lstm.backward(self.output.backward(dlogits))
        self.embedding.backward(dx)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a small model and 20 updates")
    parser.add_argument("--save", help="where rank 0 writes the parameters, as safetensors")
    return parser.parse_args()


def train_on_own_rows(world: distributed.Communicator, arguments: argparse.Namespace) -> None:
    hidden, updates = (48, 20) if arguments.quick else (128, 300)
    text = persuasion()
    model = distributed.DataParallel(CharModel(len(text.alphabet), hidden), world)
    own = slice(world.rank * ROWS // world.size, (world.rank + 1) * ROWS // world.size)
    model.weight = own.stop - own.start  # the mean over all rows, also where they do not divide
    batches = train.TextBatches(text.training, ROWS, steps=32)
    loss, optimizer, losses = nn.SoftmaxCrossEntropy(), train.Adam(model, lr=0.005), []
    for _ in range(updates):
        inputs, targets, first = next(batches)
        if first:
            model.reset_state()
        value = loss.forward(model.forward(np.ascontiguousarray(inputs[:, own])), targets[:, own])
        model.zero_grad()
        model.backward(loss.backward())
        train.clip_grad_norm(model, 1.0)
        optimizer.step()
        losses.append(model.mean(value))
    model.check()  # the same bits everywhere
    if world.rank == 0:
        told = f"{world.size} process{'es' * (world.size > 1)}"
        print(f"{told}: loss {losses[0]:.4f} -> {losses[-1]:.4f}")
        if arguments.save:
            rc.io.save_tensors(arguments.save, model.state_dict())
