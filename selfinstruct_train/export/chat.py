"""A question put to the base and to the tuned model of a run, side by side."""

from __future__ import annotations

from typing import NamedTuple

from selfinstruct_train.engines.base import Request
from selfinstruct_train.export.choose import choose_trained
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.records import Sampling
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.templates import cut_at_new_example, encode


class Answers(NamedTuple):
    """What both models say."""

    base: str
    """Cut where it begins a new example, as in the comparison that counts."""
    tuned: str


class Chat:
    """The base of a run and one of its tuned models, on one loaded copy of the weights."""

    def __init__(
        self, run: RunDirectory, round_number: int | None = None, max_tokens: int = 256
    ) -> None:
        """Load both.

        Args:
            run: where the model was tuned.
            round_number: which round's; by default the best.
            max_tokens: most tokens of an answer.

        Raises:
            RunError: the run has no such model.
            EngineError: the base is not to be had.
        """
        self._config = run.config()
        self.trained = choose_trained(run, self._config, round_number)
        self._answers = load_answers(self._config.generation.prompts)
        # Load torch, which need not be waited for where there is no such model.
        from selfinstruct_train.engines.local.transformers import TransformersEngine
        from selfinstruct_train.models.load import load_model

        self._loaded = load_model(self._config.model)
        self._engine = TransformersEngine(self._loaded, self._config.generation.engine)
        self._sampling = Sampling(max_tokens=max_tokens)

    def ask(self, instruction: str, input: str = "") -> Answers:
        """Ask both, greedily, in the template that the model was tuned in.

        Raises:
            EngineError: the question is too long for the model.
        """
        training = self._config.training.template
        prompt = encode(
            "plain" if training == "varied" else training,
            instruction,
            input,
            self._answers,
            tokenizer=self._loaded.tokenizer,
        )
        base, tuned = (
            next(iter(self._engine.generate([Request("0", prompt, self._sampling)], adapter))).text
            for adapter in (None, self.trained.directory.tuned)
        )
        return Answers(cut_at_new_example(base, self._answers).strip(), tuned.strip())
