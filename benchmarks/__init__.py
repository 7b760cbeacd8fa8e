"""What speed is claimed from: run with ``python -m benchmarks`` in a checkout."""
