"""Step 5 alone: LoRA on what recipes/generate.py has written.

accelerate launch recipes/train.py --config configs/quickstart.yaml [key.sub=value ...]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfinstruct_train.cli.program import run_recipe

if TYPE_CHECKING:
    from selfinstruct_train.rounds.loop import Loop


def story(loop: Loop) -> None:
    """What this recipe does with an opened run."""
    for number in range(loop.config.rounds):
        loop.train(number)


if __name__ == "__main__":
    run_recipe(__doc__, story)
