"""The run directory: file names, marks, stores."""
