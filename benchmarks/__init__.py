"""What the engines do and how fast: ``python -m benchmarks``, or ``make bench``. README.md beside this file says more."""
