"""A small model writes, scores and is trained, with every warning shown; says nothing itself."""

import sys
import warnings
from pathlib import Path

from selfinstruct_train.environment import prepare_environment

prepare_environment()

from selfinstruct_train.config import EngineConfig  # noqa: E402
from selfinstruct_train.distributed import ALONE  # noqa: E402
from selfinstruct_train.engines.base import Request  # noqa: E402
from selfinstruct_train.engines.local.transformers import TransformersEngine  # noqa: E402
from selfinstruct_train.packs.pack import load_answers  # noqa: E402
from selfinstruct_train.records import Sampling  # noqa: E402
from selfinstruct_train.run.directory import RoundDirectory  # noqa: E402
from selfinstruct_train.training import sft  # noqa: E402
from tests.helpers import small_models  # noqa: E402

loaded = small_models.loaded_model()
# Hidden by Python unless asked for, these say what a next version takes away from us.
warnings.filterwarnings("always", module="selfinstruct_train")
engine = TransformersEngine(loaded, EngineConfig())
sampling = Sampling(max_tokens=8, temperature=1.0, repetition_penalty=1.2, seed=1)
asked = [Request(str(n), "Name a colour.\n" * (n + 1), sampling) for n in range(3)]
assert len(list(engine.generate(asked))) == 3
assert engine.score("Is it so?", [" First.", " Second."], [" Yes", " No"])
engine.close()
sft.train(
    loaded,
    small_models.rows(),
    small_models.settings(max_steps=2, save_steps=1),
    RoundDirectory(Path(sys.argv[1])),
    answers=load_answers("en"),
    seed=1,
    world=ALONE,
)
