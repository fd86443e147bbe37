"""Everything that is language or domain."""
