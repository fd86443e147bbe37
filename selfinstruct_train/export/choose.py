"""Which tuned model of a run is meant."""

from __future__ import annotations

from selfinstruct_train.config import Config
from selfinstruct_train.errors import RunError
from selfinstruct_train.evaluation.compare import Trained, best_training
from selfinstruct_train.models.whole import is_tuned
from selfinstruct_train.run.directory import RunDirectory


def choose_trained(run: RunDirectory, config: Config, number: int | None = None) -> Trained:
    """The best model by the suite that chooses, or the last one where none was measured.

    Args:
        run: where it was tuned.
        config: the run's settings.
        number: of a round; None looks at all.

    Raises:
        RunError: there is none.
    """
    rounds = run.rounds() if number is None else [run.round(number)]
    if (best := best_training(rounds, config.evaluation)) is not None:
        return best
    for directory in reversed(rounds):
        for name, training in directory.trainings().items():
            if is_tuned(training.tuned):
                return Trained(int(directory.path.name.removeprefix("round-")), name, training)
    which = "" if number is None else f" in round {number}"
    raise RunError(
        f"{run.path}: no model is tuned{which} yet; go on with 'selfinstruct train "
        f"{run.config_file}'"
    )
