"""How the model of a config does on the labels of a seed file, without a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from selfinstruct_train.chat import ChatTemplate
from selfinstruct_train.config import Config
from selfinstruct_train.engines.select import make_engine
from selfinstruct_train.generation.classification import (
    calibrate_on,
    choose_demonstrations,
    score_kinds,
)
from selfinstruct_train.generation.domain import shown_pack
from selfinstruct_train.generation.seed_check import KindFigures
from selfinstruct_train.generation.style import settle_style
from selfinstruct_train.models.describe import describe_model
from selfinstruct_train.models.load import load_model
from selfinstruct_train.models.precision import settle_precision
from selfinstruct_train.packs.pack import load_pack, require_demonstrations
from selfinstruct_train.records import SeedTask


def classification_figures(
    config: Config, seeds: Sequence[SeedTask], say: Callable[[str], None]
) -> KindFigures:
    """Calibrate step 2 on labelled seeds, as a run of this config would.

    Args:
        config: names the model, the engine, the pack and how step 2 asks.
        seeds: at least one.
        say: told what was decided, and the figures in one sentence.

    Raises:
        SelfInstructError: the model, the pack or the server is at fault.
    """
    described = describe_model(config.model)
    config, note = settle_style(config, described)
    say(note)
    if (precision := settle_precision(config.model, described)) is not None:
        described = described._replace(dtype=precision.dtype)
        say(precision.note)
    generation = config.generation
    asked = generation.model_copy(update={"engine": generation.engine.at_once})
    config = config.model_copy(update={"generation": asked})
    here = asked.engine.kind == "transformers"
    engine = make_engine(config, load_model(config.model, described) if here else described)
    pack = shown_pack(load_pack(config.generation.prompts), config, seeds)
    require_demonstrations(pack, config.generation.prompts)
    shown = choose_demonstrations(config, pack, seeds)
    step = config.generation.classification
    chats = (step.style or config.generation.style) != "completion"
    template = ChatTemplate(described.tokenizer, pack.wording.system) if chats else None

    def score(texts: Sequence[str]) -> list[tuple[float, float]]:
        return score_kinds(engine, pack.wording, shown.tasks, texts, template).scores

    found = calibrate_on(shown.others, score, step.requests_per_batch, lambda done, total: None)
    engine.close()
    say(found.sentence)
    return KindFigures.of(found, shown.source)
