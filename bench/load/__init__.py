"""Many people at once: `python -m bench.load`, or `make load`."""
