"""``python -m benchmarks [recurrent|training|figures] ...``: all where none is named."""

import sys
from importlib import import_module

PROGRAMS = ("recurrent", "training", "figures")

if __name__ == "__main__":
    named = sys.argv[1] if len(sys.argv) > 1 else ""
    if named in PROGRAMS:
        import_module(f"benchmarks.{named}").main(sys.argv[2:])
    elif named in ("", "--threads", "--seconds"):
        for program in PROGRAMS:
            import_module(f"benchmarks.{program}").main(sys.argv[1:])
    else:
        sys.exit(
            f"usage: python -m benchmarks [{'|'.join(PROGRAMS)}] [options]; see README.md there"
        )
