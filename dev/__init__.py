"""Tools of the developers; not shipped."""
