"""Steps 1 to 4 alone: the model writes instruction data from the seed tasks.

accelerate launch recipes/generate.py --config configs/quickstart.yaml [key.sub=value ...]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfinstruct_train.cli.program import run_recipe
from selfinstruct_train.cli.steps import say_end

if TYPE_CHECKING:
    from selfinstruct_train.rounds.loop import Loop


def main(loop: Loop) -> None:
    """The steps of each round."""
    loop.go_round(loop.generate)
    say_end(loop, "generate")


if __name__ == "__main__":
    run_recipe(__doc__, main, ("generate",))
