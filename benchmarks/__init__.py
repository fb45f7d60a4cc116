"""Programs that measure, run as `python -m benchmarks.NAME`; RESULTS.md has what they showed."""
