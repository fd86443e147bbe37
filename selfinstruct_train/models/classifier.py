"""A small text classifier beside the model that writes: how likely a label is for a text."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from selfinstruct_train.config import ToxicityConfig
from selfinstruct_train.errors import EngineError

_SETTING = "generation.filters.toxicity"
_MOST = 512
"""Tokens of a window where the model names no limit."""
_SPARE = 2
"""Positions that some architectures, such as RoBERTa, count and do not give to text."""


class TextClassifier:
    """Reads texts one by one, so that what is beside a text never bears on its score."""

    def __init__(self, config: ToxicityConfig) -> None:
        """Load it; only safetensors are read and no code from the model's folder is run.

        Raises:
            EngineError: it cannot be loaded, its head was never trained, or it lacks the label.
        """
        folder = Path(config.model).expanduser()
        source = str(folder) if folder.is_dir() else config.model
        # The program says itself what it does.
        transformers_logging.disable_progress_bar()
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(
                source, revision=config.revision, trust_remote_code=False
            )
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                source,
                revision=config.revision,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except Exception as error:  # hub, file and format faults come as a dozen unrelated classes
            detail = (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
            raise EngineError(
                f"{_SETTING}.model: cannot load '{config.model}' ({detail}); name a folder or a "
                "model of the Hub for sequence classification that has safetensors weights"
            ) from error
        if missing := sorted(loading["missing_keys"]):
            raise EngineError(
                f"{_SETTING}.model: '{config.model}' was never trained to classify (no weights for "
                f"{missing[0]}); name a model for sequence classification"
            )
        labels = {name: number for number, name in model.config.id2label.items()}
        if config.label not in labels:
            raise EngineError(
                f"{_SETTING}.label: '{config.model}' has no label '{config.label}'; it has "
                f"{', '.join(labels)}"
            )
        self._model, self._label = model.eval(), int(labels[config.label])
        # A head with several labels at once, or with one alone, says yes or no to each.
        kind = getattr(model.config, "problem_type", None)
        self._apart = kind == "multi_label_classification" or len(labels) == 1
        positions = getattr(model.config, "max_position_embeddings", None) or _MOST + _SPARE
        self._window = min(self._tokenizer.model_max_length, positions - _SPARE)

    def probability(self, text: str) -> float:
        """How likely the label is, 0 to 1; of a text longer than the model reads, its worst part.

        Args:
            text: of any length; windows overlap by an eighth.
        """
        windows = self._tokenizer(
            [text],
            truncation=True,
            max_length=self._window,
            stride=self._window // 8,
            return_overflowing_tokens=True,
        )["input_ids"]
        return max(map(self._probability, windows))

    def _probability(self, tokens: list[int]) -> float:
        with torch.inference_mode():
            logits = self._model(input_ids=torch.tensor([tokens])).logits[0]
        found = logits.sigmoid() if self._apart else logits.softmax(-1)
        return float(found[self._label])
