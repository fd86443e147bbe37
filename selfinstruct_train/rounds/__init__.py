"""The loop, round after round."""
