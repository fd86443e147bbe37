"""The comparison alone: base, seeds-only and tuned on every suite.

accelerate launch recipes/evaluate.py --config configs/quickstart.yaml [key.sub=value ...]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfinstruct_train.cli.program import finish_run, run_recipe

if TYPE_CHECKING:
    from selfinstruct_train.rounds.loop import Loop


def main(loop: Loop) -> None:
    """The steps of each round."""
    loop.go_round(loop.evaluate, loop.judge)
    finish_run(loop)


if __name__ == "__main__":
    run_recipe(__doc__, main, ("evaluate",))
