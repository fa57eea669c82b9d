"""Faults that are put into a running service, and what was lost: ``python -m benchmarks.faults`` (``make faults``)."""
