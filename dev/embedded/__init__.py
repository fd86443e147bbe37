"""Making the embedded model; not shipped."""
