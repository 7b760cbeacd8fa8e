"""Vanishing and exploding gradients, and what gates and clipping do to them: numbers, a picture.

python examples/vanishing_gradients.py [picture.png]
"""

import sys

from rnncore import diagnose


def main(path: str | None = None) -> None:
    flows = diagnose.cell_flows()
    for name, norms in flows.items():
        ratio = diagnose.step_ratio(norms)
        print(f"{name:20} {ratio.kind:9} {ratio.per_step:.3f} a step")
    runs = diagnose.clipping_runs()
    for name, history in runs.items():
        print(f"{name:20} {len(history.losses):3} updates, last loss {history.losses[-1]:.2g}")
    if path and diagnose.draw_remedies(path, flows, runs):
        print(f"wrote {path}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
