"""The report: reads a run directory, finished or not, and writes one self-contained page."""
