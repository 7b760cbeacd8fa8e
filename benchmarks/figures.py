"""Write README's figures from the stored results: ``python -m benchmarks figures``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"


def load(name: str) -> dict[str, Any]:
    """Return a stored result."""
    loaded: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return loaded


def conditions(result: dict[str, Any]) -> str:
    """Return in words what the figures depend on."""
    c = result["conditions"]
    text = f"{c['cpu']}, {c['threads']} threads, {c['isa']}, {c['compiler']}, commit {c['commit']}"
    return text + (f", PyTorch {c['torch']}" if "torch" in c else "")


def recurrent_table(result: dict[str, Any]) -> str:
    """Return shares of the machine's limits."""
    lines = ["| LSTM, recurrent part | us a step | share of |", "| --- | --- | --- |"]
    for row in result["rows"]:
        steps = int(row["case"].split("T=")[1].split()[0])
        if row["bound"] == "arithmetic":
            of = f"{row['share']:.0%} of {row['peak_gflops']:.0f} GFLOP/s, the FMA peak"
        else:
            of = f"{row['share']:.0%} of {row['peak_read_gbytes']:.0f} GB/s, reading that size"
        case = row["case"].removeprefix("LSTM ").replace(" D=1", "")
        lines.append(f"| {case} | {row['median_s'] / steps * 1e6:.1f} | {of} |")
    return "\n".join(lines)


def training_table(result: dict[str, Any]) -> str:
    """Return training steps beside PyTorch's, the closest first."""
    lines = [
        "| training step | rnncore ms | PyTorch ms | times as fast | of FMA peak |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        ours, theirs = row["rnncore"]["median_s"] * 1e3, row["torch"]["median_s"] * 1e3
        share = f"{row['share_of_peak']:.0%}"
        lines.append(
            f"| {row['case']} | {ours:.2f} | {theirs:.2f} | {row['ratio']:.2f} | {share} |"
        )
    lines.append(f"| geometric mean, each capped at 10 | | | {result['geometric_mean']:.2f} | |")
    return "\n".join(lines)


def section() -> str:
    """Return the text between README's two marks."""
    recurrent, training = load("recurrent"), load("training")
    return f"""
Training (forward, backward with dx and all gradients, weights packed anew each step) beside PyTorch
eager, interleaved in one process; float32. Other peers are not measured yet.
{conditions(training)}:

{training_table(training)}

Inference, the recurrent part alone, beside limits measured in the same run.
{conditions(recurrent)}:

{recurrent_table(recurrent)}

"""


def main(_: list[str]) -> None:
    """Rewrite the section."""
    before, _, rest = README.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    README.write_text(before + BEGIN + section() + END + after)
    print(f"wrote {README}")
