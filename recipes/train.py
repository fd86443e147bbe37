"""Step 5 alone: LoRA on what recipes/generate.py has written.

accelerate launch recipes/train.py --config configs/quickstart.yaml [key.sub=value ...]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfinstruct_train.cli.program import run_recipe
from selfinstruct_train.cli.steps import say_end

if TYPE_CHECKING:
    from selfinstruct_train.rounds.loop import Loop


def main(loop: Loop) -> None:
    """The steps of each round."""
    loop.go_round(loop.train)
    say_end(loop, "train")


if __name__ == "__main__":
    run_recipe(__doc__, main, ("train",))
