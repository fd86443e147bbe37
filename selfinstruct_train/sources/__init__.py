"""Data sets by name, and the one reader of task files."""
