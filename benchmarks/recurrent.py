"""The recurrent part of LSTM inference, as shares of what the machine can do.

    python -m benchmarks recurrent [--threads 2] [--seconds 4]

Limits are measured in the same run, before and after each case: fused multiply-adds in registers,
and reading an array of the weights' size. A case of one row reads every weight once a step, so its
limit is the reading; cases of many rows are limited by arithmetic.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import rnncore as rc
from benchmarks import measure
from benchmarks.cases import RECURRENT, Case
from rnncore import _rnncore


def run(case: Case, threads: int, seconds: float) -> dict[str, Any]:
    """Time one case between two measurements of its limit."""
    layer = getattr(rc, case.cell)(case.D, case.H, seed=0)
    engine = layer.freeze()
    x = np.random.default_rng(0).standard_normal((case.T, case.N, case.D), np.float32)
    out = np.empty((case.T, case.N, case.H), np.float32)
    weight_bytes = 4 * case.gates * case.H * case.H
    limits = []

    def look() -> None:
        rate = _rnncore._limits.fma_rate(threads, 0.1)
        limits.append((rate, _rnncore._limits.read_rate(weight_bytes, threads, 0.1)))

    times: list[float] = []
    for _ in range(4):
        look()
        part = measure.interleaved({"us": lambda: engine(x, out=out)}, seconds / 4)
        times += part["us"]
    look()
    result = measure.summary(times)
    peak, bandwidth = (float(np.median(column)) for column in zip(*limits, strict=True))
    rate = case.forward_operations / result["median_s"]
    reading = weight_bytes * case.T / result["median_s"]
    bound = "reading" if case.N == 1 else "arithmetic"
    share = reading / bandwidth if case.N == 1 else rate / peak
    return {
        "case": str(case),
        **result,
        "gflops": rate / 1e9,
        "peak_gflops": peak / 1e9,
        "read_gbytes": reading / 1e9,
        "peak_read_gbytes": bandwidth / 1e9,
        "bound": bound,
        "share": share,
    }


def main(arguments: list[str]) -> None:
    """Run every case and write benchmarks/results/recurrent.json."""
    parser = argparse.ArgumentParser("benchmarks recurrent", description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each case")
    parser.add_argument("--name", default="recurrent", help="of the result file")
    options = parser.parse_args(arguments)
    rc.set_num_threads(options.threads)
    rows = []
    print(f"{'case':34} {'us/step':>8} {'GFLOP/s':>8} {'of':>6} {'GB/s':>6} {'of':>6}  share")
    for case in RECURRENT:
        row = run(case, options.threads, options.seconds)
        rows.append(row)
        print(
            f"{row['case']:34} {row['median_s'] / case.T * 1e6:8.2f} {row['gflops']:8.1f} "
            f"{row['peak_gflops']:6.0f} {row['read_gbytes']:6.1f} {row['peak_read_gbytes']:6.1f}  "
            f"{row['share']:.0%} of {row['bound']}"
        )
    path = measure.write(
        options.name, {"conditions": measure.conditions(options.threads), "rows": rows}
    )
    print(f"wrote {path}")
