"""A training on two processes that tells itself to stop; launched by test_two_processes."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from selfinstruct_train.cli.program import guard

FOLDER, WHO, AT = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
RANK = int(os.environ["RANK"])


def victims() -> list[int]:
    ranks = [int((FOLDER / f"pid-{rank}").read_text()) for rank in (0, 1)]
    return {"nobody": [], "one": ranks[1:], "both": ranks, "launcher": [os.getppid()]}[WHO]


def program() -> None:
    import small_models as small

    from selfinstruct_train.distributed import join_world
    from selfinstruct_train.packs.pack import load_answers
    from selfinstruct_train.records import TrainingStep
    from selfinstruct_train.run.directory import RoundDirectory
    from selfinstruct_train.training.sft import train

    def stop(step: TrainingStep, total: int) -> None:
        if step.step == AT:
            for process in victims():
                os.kill(process, signal.SIGTERM)

    (FOLDER / f"pid-{RANK}").write_text(str(os.getpid()))
    world = join_world()
    config = small.settings(max_steps=8, save_steps=100)
    directory = RoundDirectory(FOLDER / "round-0", world)
    train(
        small.loaded_model(), small.rows(), config, directory,
        answers=load_answers("en"), seed=1, world=world, on_step=stop,
    )  # fmt: skip


code: object = 0
try:
    guard(program)
except SystemExit as end:
    code = end.code
    raise
finally:
    (FOLDER / f"code-{RANK}").write_text(str(code))
