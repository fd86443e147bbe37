"""Where text comes from, behind one protocol."""
