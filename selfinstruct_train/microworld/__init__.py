"""The base model that ships with the package, its little world, and the code that made both."""

from pathlib import Path

WEIGHTS: Path = Path(__file__).parent / "weights"
"""Directory of the embedded base model, for `AutoModelForCausalLM.from_pretrained`."""
