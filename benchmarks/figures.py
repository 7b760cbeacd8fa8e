"""Write README's figures from the stored results: ``python benchmarks/figures.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"

SEQUENCES = "cpu-inference-training"
RECURRENT = "cpu-recurrent-inference"

Result = dict[str, Any]
Row = dict[str, Any]


def load(name: str) -> Result:
    """Return a stored result."""
    loaded: Result = json.loads((RESULTS / f"{name}.json").read_text())
    return loaded


def rows_of(result: Result, mode: str) -> list[Row]:
    """Return a mode's rows, which are stored with those first where rnncore is behind."""
    return [row for row in result["rows"] if row["mode"] == mode]


def conditions(result: Result) -> str:
    """Return in words what the figures depend on, and the command that measures them again."""
    c = result["conditions"]
    text = f"{c['cpu']}, {c['threads']} threads, {c['isa']}, {c['compiler']}, commit {c['commit']}"
    peers = ", ".join(
        f"{name} {version}" for name, version in c["peers"].items() if name != "torch.compile"
    )
    return f"{text}; {peers}.\nAgain: `{c['command']}`"


def milliseconds(row: Row, name: str | None) -> str:
    """Return a contender's median."""
    times = row["contenders"].get(name, {}).get("times")
    return "-" if times is None else f"{times['median_s'] * 1e3:#.3g}".rstrip(".")


def percent(share: float | None) -> str:
    """Return a share of a limit."""
    return "-" if share is None else f"{share:.0%}"


def ratio(value: float | None) -> str:
    """Return how many times as fast."""
    return "-" if value is None else f"{value:.2f}"


def against(row: Row, name: str) -> float | None:
    """Return a contender's time over ours."""
    ours, theirs = (row["contenders"].get(one, {}).get("times") for one in ("rnncore", name))
    return None if ours is None or theirs is None else theirs["median_s"] / ours["median_s"]


def peers_table(result: Result, mode: str) -> str:
    """Return a mode's rows beside the best peer of each; training beside PyTorch as well."""
    training = mode == "training"
    heading = [mode, "rnncore ms", "best peer", "its ms", "times as fast"]
    heading += ["as PyTorch"] * training + ["of the limit"]
    lines = [heading, ["---"] * len(heading)]
    for row in rows_of(result, mode):
        best = row["best_peer"]
        line = [row["case"], milliseconds(row, "rnncore"), best or "-", milliseconds(row, best)]
        line.append(ratio(row["times_as_fast"]))
        if training:
            line.append(ratio(against(row, "PyTorch")))
        lines.append([*line, percent(row["share_of_limit"])])
    mean = ratio(result["geometric_means"].get(mode))
    lines.append(["geometric mean, each capped at 10", "", "", "", mean, *[""] * (1 + training)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def recurrent_table(result: Result) -> str:
    """Return shares of the machine's limits."""
    lines = ["| LSTM, recurrent part | us a step | share of |", "| --- | --- | --- |"]
    for row in rows_of(result, "inference"):
        times, limit = row["contenders"]["rnncore"]["times"], row["limit"]
        steps = int(row["case"].split("T=")[1].split()[0])
        if limit["bound"] == "arithmetic":
            of = f"{limit['peak'] / 1e9:.0f} GFLOP/s, the FMA peak"
        else:
            of = f"{limit['bandwidth'] / 1e9:.0f} GB/s, reading that size"
        case = row["case"].removeprefix("LSTM ").replace(" D=1", "")
        share = percent(row["share_of_limit"])
        lines.append(f"| {case} | {times['median_s'] / steps * 1e6:.1f} | {share} of {of} |")
    return "\n".join(lines)


def section() -> str:
    """Return the text between README's two marks."""
    sequences, recurrent = load(SEQUENCES), load(RECURRENT)
    return f"""
Everyone in one process, interleaved repeat by repeat, float32, medians. Weights are frozen in
inference, and who is timed computes what we do. The limit is the smaller of the FMA peak and what
reading the recurrent weights once a step allows, both measured in the same run.
{conditions(sequences)}

{peers_table(sequences, "inference")}

Training is forward, backward with dx and all gradients, weights packed anew each step:

{peers_table(sequences, "training")}

Inference, the recurrent part alone, beside the machine's limits.
Again: `{recurrent["conditions"]["command"]}`

{recurrent_table(recurrent)}

"""


def main() -> None:
    """Rewrite the section."""
    before, _, rest = README.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    README.write_text(before + BEGIN + section() + END + after)
    print(f"wrote {README}")


if __name__ == "__main__":
    main()
