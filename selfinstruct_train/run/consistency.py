"""At every start: do the finished stages still match the settings, and their files the marks?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from selfinstruct_train.config import Config
from selfinstruct_train.errors import RunError
from selfinstruct_train.run.decisions import with_rolled_back
from selfinstruct_train.run.marks import require_files
from selfinstruct_train.run.stage import (
    STAGES,
    Contents,
    basis,
    changes,
    dependencies,
    suite_of,
    with_training,
)

if TYPE_CHECKING:
    from selfinstruct_train.run.directory import RoundDirectory, RunDirectory

REPLACED = "replaced"
"""Folder of a run that holds the results which were made again."""


class _Place(NamedTuple):
    """A stage of a round, or of the training on seed tasks alone."""

    directory: RoundDirectory
    number: int
    stage: str
    """As the table names it."""
    config: Config
    """The settings, with those of its own training where a sweep has several."""

    @property
    def own_name(self) -> str:
        """As the directory names it."""
        return "train" if self.stage == "seeds-only" else self.stage


def require_consistent(
    run: RunDirectory, config: Config, contents: Contents, redo: str | None = None
) -> tuple[str, ...]:
    """See that what is finished or begun was made of these settings, data and models.

    Args:
        run: the run directory; only the main process may call.
        config: the settings of this start.
        contents: hashes of data and models.
        redo: a stage whose results, and those that depend on them, are first moved away. Where
            nothing but the content of suites has changed, the other suites' results stay.

    Returns:
        What was done, one sentence each.

    Raises:
        RunError: a stage was made of something else, or a file is not what its stage left.
    """
    if redo is not None and redo not in {stage.name for stage in STAGES}:
        names = ", ".join(stage.name for stage in STAGES)
        raise RunError(f"--redo {redo}: no such stage; name one of {names}")
    places = list(_places(run, config))
    again = [place for place in places if redo is not None and _is_redone(place, redo, config)]
    undecided = {place.number for place in again if place.stage == "evaluate"}
    stale: dict[str, dict[str, str]] = {}
    for place in places:
        own = with_rolled_back(contents, run.path, place.number, undecided)
        if place not in again and (found := _changes(place, own)):
            stale.setdefault(place.stage, {}).update(found)
    if stale:
        raise RunError(_sentence(run.path, stale))
    notes = _move(run, again, _changed_suites(again, contents))
    for place in places:
        mark = place.directory.read_mark(place.own_name)
        if mark is not None:
            notes += require_files(place.directory.path, mark)
    return tuple(notes)


def _places(run: RunDirectory, config: Config) -> Iterator[_Place]:
    """The stages of the trainings that the config asks for: others stand beside them untouched."""
    variants = [with_training(config, training.name) for training in config.training.trainings]
    for number, directory in enumerate(run.rounds()):
        for stage in STAGES:
            if stage.name in ("train", "evaluate", "judge"):
                for own in variants:
                    training = directory.training(own.training.name)
                    yield _Place(training, number, stage.name, own)
            elif stage.name != "seeds-only":
                yield _Place(directory, number, stage.name, config)
    for own in variants:
        for directory in run.all_seeds_only(own.training.name):
            yield _Place(directory, 0, "seeds-only", own)
            yield _Place(directory, 0, "evaluate", own)


def _is_redone(place: _Place, redo: str, config: Config) -> bool:
    # The adapter on seed tasks alone is trained with the same settings as the tuned one.
    if place.stage == "seeds-only" and redo == "train":
        return True
    return redo in dependencies(place.stage, place.number, config)


def _changes(place: _Place, contents: Contents) -> dict[str, str]:
    mark = place.directory.read_mark(place.own_name)
    before = place.directory.begun(place.own_name) if mark is None else mark.depends_on
    if before is None:
        return {}
    if mark is None and not before:
        return {"what it was begun with": "its file is damaged"}
    return changes(before, basis(place.stage, place.number, place.config, contents))


def _changed_suites(places: list[_Place], contents: Contents) -> frozenset[str]:
    """Suites, where nothing else that these places depend on has changed."""
    if any(place.stage not in ("evaluate", "judge") for place in places):
        return frozenset()
    suites = {suite_of(key) for place in places for key in _changes(place, contents)}
    return frozenset() if None in suites else frozenset(filter(None, suites))


def _sentence(run: Path, stale: dict[str, dict[str, str]]) -> str:
    # A change reaches all stages that read the first one; naming it once with each would bury it.
    order = [stage.name for stage in STAGES if stage.name in stale]
    found = {key: change for name in reversed(order) for key, change in stale[name].items()}
    what = ", ".join(f"{key}: {change}" for key, change in found.items())
    first = "train" if order[0] == "seeds-only" else order[0]
    return (
        f"{run}: no longer matches what was made of other settings or data: {', '.join(order)} "
        f"({what}); restore what changed, make it again by adding --redo {first} to the command "
        f"(old results are moved to {run / REPLACED}), or give another output_dir"
    )


def _move(run: RunDirectory, places: list[_Place], suites: frozenset[str]) -> list[str]:
    """Move results away; of evaluations only those of some suites, where any are given."""
    target = run.path / REPLACED
    number = len(list(target.iterdir())) if target.is_dir() else 0
    moved = set()
    for place in places:
        directory = place.directory
        traces = [directory.decision, *map(directory.evaluation, sorted(suites))]
        for path in traces if suites else directory.traces(place.own_name):
            if path.exists():
                new = target / str(number) / path.relative_to(run.path)
                new.parent.mkdir(parents=True, exist_ok=True)
                path.rename(new)
                moved.add(place.stage)
        # Only now: what a mark does not know of counts as not yet evaluated.
        if suites:
            directory.forget_suites(place.own_name, suites)
    if not moved:
        return []
    names = ", ".join(stage.name for stage in STAGES if stage.name in moved)
    which = f" on {', '.join(sorted(suites))}" if suites else ""
    return [f"made again: {names}{which}; the old results are in {target / str(number)}"]
