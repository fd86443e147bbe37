"""The report: reads a finished or half-finished run directory and writes one self-contained page."""
