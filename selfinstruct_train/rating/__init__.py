"""People grade the answers of a run, blinded, on a page of their own machine."""
