"""Did it help? Suites, scores, and comparisons with intervals."""
