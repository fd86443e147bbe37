"""Figures of a run for programs that watch many: experiment trackers, and Prometheus.

Training gives its own figures to the trackers, through transformers; here are those of all other
stages: how much of what was written is kept, and how fast it is written.
"""

from __future__ import annotations

import importlib
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from selfinstruct_train.errors import ConfigError, RunError
from selfinstruct_train.progress import ProgressUpdate, Said

_EVERY_SECONDS = 10.0
_PROJECT = "huggingface"
"""Where transformers puts the figures of training, unless the environment names another."""
_PREFIX = "selfinstruct"
_ROUND = re.compile(r"^round \d+ ")


def figures_of(update: ProgressUpdate) -> dict[str, float]:
    """What an update says, by name; what is not known is left out."""
    found = {"done": float(update.done)}
    if judged := update.kept + update.dropped.total():
        found |= {"kept": float(update.kept), "dropped": float(update.dropped.total())}
        found["acceptance"] = update.kept / judged
    if update.tokens and update.seconds > 0:
        found["tokens_per_second"] = update.tokens / update.seconds
    if (left := update.seconds_left) is not None:
        found["seconds_left"] = left
    return found


class Tracker(Protocol):
    """Takes figures."""

    def log(self, figures: dict[str, float], step: int) -> None:
        """Keep figures of a moment."""
        ...

    def close(self) -> None:
        """Send what is left."""
        ...


class Tracking:
    """Passes on what a run is at, now and then; trackers are opened by the first figures."""

    def __init__(
        self,
        trackers: Sequence[Callable[[], Tracker]],
        watched: PrometheusFile | None = None,
        every_seconds: float = _EVERY_SECONDS,
    ) -> None:
        """Open nothing yet.

        Args:
            trackers: each opens one.
            watched: the file for Prometheus, if one is wanted.
            every_seconds: between two figures of a stage.
        """
        self._open = trackers
        self._trackers: list[Tracker] | None = None
        self._watched = watched
        self._every = every_seconds
        self._step = 0
        self._shown = ("", 0.0)

    def record(self, shown: ProgressUpdate | Said) -> None:
        """Take what the user is told; an update of training goes to Prometheus alone."""
        if isinstance(shown, Said):
            return
        stage, at = self._shown
        is_last = shown.done == shown.total
        if stage == shown.stage and not is_last and time.monotonic() - at < self._every:
            return
        self._shown = shown.stage, time.monotonic()
        if self._watched is not None:
            self._watched.write(shown)
        if "training" not in shown.stage:
            self._log(shown)

    def close(self) -> None:
        """Close the trackers: training opens its own."""
        for tracker in self._trackers or ():
            tracker.close()
        self._trackers = None

    def _log(self, update: ProgressUpdate) -> None:
        if self._trackers is None:
            self._trackers = [make() for make in self._open]
        # One curve over all rounds.
        stage = _ROUND.sub("", update.stage)
        named = {f"{stage}/{name}": value for name, value in figures_of(update).items()}
        for tracker in self._trackers:
            tracker.log(named, self._step)
        self._step += 1


def open_tracker(name: str, run: Path) -> Tracker:
    """A tracker that ``training.report_to`` names.

    Args:
        name: tensorboard, wandb or trackio.
        run: the run directory, after which what is tracked is called.
    """
    if name == "tensorboard":
        return _TensorBoard(run / "tensorboard")
    return _Wandb(name, f"{run.resolve().name} generation")


class _TensorBoard:
    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder))  # type: ignore[no-untyped-call]

    def log(self, figures: dict[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    """Weights & Biases, and trackio, which has the same calls."""

    def __init__(self, package: str, name: str) -> None:
        self._module: Any = importlib.import_module(package)
        project = os.environ.get(f"{package.upper()}_PROJECT", _PROJECT)
        self._module.init(project=project, name=name)

    def log(self, figures: dict[str, float], step: int) -> None:
        self._module.log(figures, step=step)

    def close(self) -> None:
        self._module.finish()


class PrometheusFile:
    """A file for the textfile collector of Prometheus' node exporter, replaced as a whole."""

    def __init__(self, path: Path, run: str) -> None:
        """Write nothing yet.

        Args:
            path: of the file; its name must end with ``.prom``, which the collector looks for.
            run: name of the run, a label of every figure.

        Raises:
            ConfigError: the package that writes it is not installed.
        """
        try:
            from prometheus_client import CollectorRegistry, Gauge, write_to_textfile
        except ImportError:
            raise ConfigError(
                "metrics_file: needs the package prometheus_client; run: pip install "
                "'selfinstruct-train[metrics]'"
            ) from None
        self._path = path
        self._write = write_to_textfile
        self._registry = CollectorRegistry()
        self._run = run
        meanings = {
            "done": "Items of the stage that are done",
            "total": "Items that the stage is to do, where that is known",
            "kept": "Rows kept",
            "acceptance": "Rows kept of those that were judged",
            "tokens_per_second": "Tokens written a second since the process began the stage",
            "seconds_left": "Seconds until the end of the stage at the pace so far",
        }
        self._gauges = {
            name: Gauge(f"{_PREFIX}_{name}", text, ["run", "stage"], registry=self._registry)
            for name, text in meanings.items()
        }
        self._dropped = Gauge(
            f"{_PREFIX}_dropped",
            "Rows dropped, by reason",
            ["run", "stage", "reason"],
            registry=self._registry,
        )
        self._updated = Gauge(
            f"{_PREFIX}_last_update_timestamp_seconds",
            "When the run last said anything, in seconds since 1970",
            ["run"],
            registry=self._registry,
        )

    def write(self, update: ProgressUpdate) -> None:
        """Replace the file.

        Raises:
            RunError: it cannot be written.
        """
        found = figures_of(update)
        if update.total is not None:
            found["total"] = float(update.total)
        for name, gauge in self._gauges.items():
            if name in found:
                gauge.labels(self._run, update.stage).set(found[name])
        for reason, count in update.dropped.items():
            self._dropped.labels(self._run, update.stage, reason).set(count)
        self._updated.labels(self._run).set_to_current_time()
        try:
            self._write(str(self._path), self._registry)
        except OSError as error:
            raise RunError(
                f"metrics_file: {self._path} cannot be written ({error.strerror}); name a file in "
                "a folder that exists and is yours, or leave it out"
            ) from None
