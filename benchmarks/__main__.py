"""``python -m benchmarks [recurrent|training] ...``: both where none is named."""

import sys

from benchmarks import recurrent, training

PROGRAMS = {"recurrent": recurrent.main, "training": training.main}

if __name__ == "__main__":
    named = sys.argv[1] if len(sys.argv) > 1 else ""
    if named in PROGRAMS:
        PROGRAMS[named](sys.argv[2:])
    elif named in ("", "--threads", "--seconds"):
        for program in PROGRAMS.values():
            program(sys.argv[1:])
    else:
        sys.exit(f"usage: python -m benchmarks [{'|'.join(PROGRAMS)}] [options]; see README.md there")
