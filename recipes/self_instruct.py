"""The whole loop: a model writes data, is tuned on it, is measured, and goes round again.

accelerate launch recipes/self_instruct.py --config configs/quickstart.yaml [key.sub=value ...]
accelerate launch --config_file configs/accelerate/cpu_2.yaml recipes/self_instruct.py --config ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfinstruct_train.cli.program import finish_run, run_recipe

if TYPE_CHECKING:
    from selfinstruct_train.rounds.loop import Loop


def main(loop: Loop) -> None:
    """The steps of each round."""
    loop.go_round(
        loop.generate,  # steps 1 to 4: instructions, classification, instances, filters
        loop.train,  # step 5: LoRA on the seeds and all data so far
        loop.evaluate,  # did it help? base, seeds-only and tuned on every suite
        loop.judge,  # what does a judge say? only where the config names one
    )
    finish_run(loop)


if __name__ == "__main__":
    run_recipe(__doc__, main)
