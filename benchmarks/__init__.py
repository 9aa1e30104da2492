"""Figures beside the Rust peer: ``python -m benchmarks`` (``make bench``)."""
