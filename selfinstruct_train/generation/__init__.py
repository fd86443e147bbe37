"""Steps 1 to 4: instructions, classification, instances, filters."""
