"""Drops what a small classifier finds toxic."""

from __future__ import annotations

from selfinstruct_train.config import ToxicityConfig
from selfinstruct_train.generation.filters import FilterResult


class ToxicityGate:
    """Holds texts against the threshold of the config.

    Raises:
        EngineError: the classifier cannot be loaded, or lacks the label.
    """

    def __init__(self, config: ToxicityConfig) -> None:
        # transformers takes seconds to import, and most runs ask no classifier.
        from selfinstruct_train.models.classifier import TextClassifier

        self._config, self._classifier = config, TextClassifier(config)

    def fault(self, *texts: str) -> FilterResult | None:
        """Why texts that belong together are dropped; None where they are kept."""
        label, most = self._config.label, self._config.threshold
        found = self._classifier.probability("\n".join(filter(None, texts)))
        if found <= most:
            return None
        return FilterResult("toxic", f"{label} {found:.3f}, limit {most:g}")
