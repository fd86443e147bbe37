"""A steered round by a scripted model, on as many processes as the environment says.

``python steer_on_processes.py FOLDER`` is launched by test_steering_together, which also calls
`write` for a round of one process.
"""

import sys
from pathlib import Path

from selfinstruct_train.distributed import ALONE, World, join_world
from selfinstruct_train.engines.parallel import ParallelEngine
from selfinstruct_train.engines.scripted import ScriptedEngine
from selfinstruct_train.generation.stages import generate_round
from selfinstruct_train.records import Instance
from selfinstruct_train.run.directory import RunDirectory
from tests.generation.test_categories import TOPICS, seeds
from tests.generation.test_generate import small_config
from tests.generation.test_steering import AUGMENTED, STEERED, operating

SETTINGS = (
    *STEERED,
    AUGMENTED,
    "generation.instructions.sampling=rare_first",
    "generation.labels=model",
    "generation.instances.fix=true",
    "generation.max_requests=60",
)

ENDINGS = tuple(f"by {number} o'clock" for number in range(10, 25))


def score(prompt: str, answer: str) -> float:
    """Finds a topic in the question, likes a seed's own answer, which its task ends with, a little;
    otherwise anything that follows from the texts alone."""
    question = prompt.rpartition("\nTask:")[2]
    if answer.strip() in TOPICS:
        return float(answer.strip() in question)
    if any(question.count(ending) == 2 for ending in ENDINGS):
        return 0.5 * (answer.strip() == "Yes")
    return (len(question) * 7 + len(answer)) % 5 - 2.0


def write(folder: Path, world: World = ALONE) -> RunDirectory:
    """Write the round; every process must call."""
    config = small_config(folder, *SETTINGS)
    run = RunDirectory(config.output_dir, world)
    run.open(config)
    engine = ScriptedEngine(operating, score)
    shared = ParallelEngine(engine, world) if world.size > 1 else engine
    # Of answers that differ the arbiter can learn what a wrong one is.
    tasks = [
        task.model_copy(
            update={
                "instruction": f"{task.instruction} {ending}",
                "instances": (Instance(output=ending),),
            }
        )
        for task, ending in zip(seeds(6, 5, 4), ENDINGS, strict=True)
    ]
    generate_round(config, shared, run, 0, tasks, None, lambda i, g: i, lambda update: None)
    return run


if __name__ == "__main__":
    write(Path(sys.argv[1]), join_world())
