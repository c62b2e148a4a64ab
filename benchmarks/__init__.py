"""Fan-out measured side by side; see `python -m benchmarks --help`."""
