"""From a run directory to one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import jinja2
import yaml
from markupsafe import Markup

from selfinstruct_train.config import DEFAULT_TRAINING, Config
from selfinstruct_train.judging.results import Estimate
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.records import Rejection
from selfinstruct_train.report import figures, tables
from selfinstruct_train.report.answers import LONGEST, SideBySide, side_by_side, system_label
from selfinstruct_train.report.baselines import Baselines, read_baselines, standing_label
from selfinstruct_train.report.counts import trait_yields
from selfinstruct_train.report.drawing import Plot
from selfinstruct_train.report.facts import RunFacts, read_facts
from selfinstruct_train.report.headline import BASELINE, Headline, judge_suite
from selfinstruct_train.report.judge_section import judge_section
from selfinstruct_train.report.people import people_section
from selfinstruct_train.report.rows_page import write_rows
from selfinstruct_train.report.suite_facts import SuiteFacts
from selfinstruct_train.report.treemap import verbs_plot
from selfinstruct_train.report.verbs import Verbs, find_verbs
from selfinstruct_train.report.wording import (
    clip,
    duration,
    number,
    share,
    signed,
    spread,
    visible,
)
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.run.manifest import Start
from selfinstruct_train.run.stores import write_atomically
from selfinstruct_train.text.words import length

HERE = Path(__file__).parent
"""Folder of the templates and of the style sheet."""
_GENERATION = ("instructions", "classification", "instances")
_KEPT_SHOWN = 20
_DROPPED_PER_REASON = 4
_TRAITS_SHOWN = 200
"""Lines of the table of attributes: a file of persons may hold thousands."""
_METRICS = {
    "rouge_l": "ROUGE-L",
    "accuracy": "right by answers and constraints",
    "oracle_accuracy": "right by the oracle",
    "instruction_level_strict": "constraints, instruction-level",
    "prompt_level_strict": "constraints, prompt-level",
}


class SuiteSection(NamedTuple):
    """What the page says of one suite."""

    facts: SuiteFacts
    key: str
    """Prefix of its ids on the page."""
    verdict: Headline
    plots: tuple[Plot, ...]
    answers: SideBySide
    baselines: Baselines | None
    """Published models beside the run's; None where there are none."""


class StageTime(NamedTuple):
    """How long one stage took and what it says of itself."""

    place: str
    """The round and the training, in words."""
    stage: str
    seconds: float
    figures: str


def write_report(run: RunDirectory, facts: RunFacts | None = None) -> Path:
    """Write the report of a run, finished or not, as one self-contained HTML file.

    The page of all rows is written beside it.

    The page loads nothing: its content policy allows no network, and one script by its hash. All
    that a model or a data file wrote is escaped, with control and direction marks spelled out.

    Args:
        run: the run directory.
        facts: what was read of it; by default it is read here.

    Returns:
        Path of the page, inside the run directory.

    Raises:
        RunError: the folder is not a run, nothing in it is finished, or it cannot be written.
        DataError: a row of the run cannot be read.
    """
    write_atomically(run.report, render_page(facts or read_facts(run)))
    write_rows(run, page_environment())
    return run.report


def render_page(facts: RunFacts) -> str:
    """The page as text."""
    suites = tuple(_suite_section(i, suite, facts.config) for i, suite in enumerate(facts.suites))
    instructions = [row for r in facts.rounds for row in r.instructions]
    verbs = find_verbs([row.instruction for row in instructions])
    return (
        page_environment()
        .get_template("page.html")
        .render(
            facts=facts,
            suites=suites,
            script=Markup((HERE / "page.js").read_text("utf-8")),
            judges=tuple(
                section
                for i, suite in enumerate(facts.suites)
                if (section := judge_section(suite, facts.config, f"suite-{i}"))
            ),
            people=people_section(facts),
            data_plots=_data_plots(facts, verbs),
            training=_training_plot(facts),
            rewards=_rewards_plot(facts),
            statistics=tables.paper_statistics(facts),
            verbs=verbs,
            yields=_yields(facts),
            traits=trait_yields(r.counts for r in facts.rounds)[:_TRAITS_SHOWN],
            kept=spread([row for r in facts.rounds for row in r.instances], _KEPT_SHOWN),
            dropped=tuple(_dropped_sample(facts)),
            stages=tuple(_stage_times(facts)),
            worked=_worked(facts),
            elapsed=_elapsed(facts),
            commands=_commands(facts),
            settings=yaml.safe_dump(
                facts.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True
            ),
        )
    )


def page_environment() -> jinja2.Environment:
    """Templates whose every output is escaped, control and direction marks spelled out.

    All extend ``layout.html``, whose content policy allows the page's ``script``, where it has one.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Whatever is put out passes here, so that no place of the template can forget it.
        finalize=_seen,
    )
    environment.filters |= {
        "number": number,
        "signed": signed,
        "duration": duration,
        "digest": _digest,
        "estimate": _estimate,
        "clip": lambda text: clip(text, LONGEST),
        "label": system_label,
        "standing": standing_label,
        "words": lambda name: name.replace("_", " "),
        "metric": lambda name: _METRICS.get(name, name.replace("_", " ")),
    }
    environment.globals |= {
        "share": share,
        "baseline": BASELINE,
        # The page's own files are the only text that is not escaped.
        "style": Markup((HERE / "style.css").read_text("utf-8")),
        "script": None,
    }
    return environment


def _seen(value: object) -> object:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _estimate(estimate: Estimate | None, add: float = 0.0) -> str:
    """A figure with its interval in brackets; a dash where there is none."""
    if estimate is None:
        return number(None)
    value, low, high = (number(x + add) for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} ({low} to {high})"


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _suite_section(index: int, suite: SuiteFacts, config: Config) -> SuiteSection:
    key = f"suite-{index}"
    confidence = suite.best.comparison.confidence
    # Plots of one kind stand side by side.
    plots = [figures.rounds_plot(suite, m, f"{key}-rounds-{m}") for m in figures.UNITS]
    plots += [
        figures.groups_plot(suite.best.groups(BASELINE, m), m, confidence, f"{key}-groups-{m}")
        for m in figures.UNITS
    ]
    found = tuple(plot for plot in plots if plot)
    shown = side_by_side(suite, load_answers(config.generation.prompts))
    baselines = read_baselines(suite, config, f"{key}-published-plot")
    return SuiteSection(suite, key, judge_suite(suite), found, shown, baselines)


def _data_plots(facts: RunFacts, verbs: Verbs) -> tuple[Plot, ...]:
    instructions = [row for r in facts.rounds for row in r.instructions]
    instances = [row for r in facts.rounds for row in r.instances]
    lengths = {
        "an instruction": [length(row.instruction, facts.units) for row in instructions],
        "an input that is not empty": [
            length(row.input, facts.units) for row in instances if row.input.strip()
        ],
        "an output": [length(row.output, facts.units) for row in instances],
    }
    plots = (
        *(
            figures.yield_plot(rows, what, f"yield-{i}")
            for i, (what, rows) in enumerate(_yields(facts).items())
        ),
        figures.acceptance_plot(
            {r.number: tables.acceptance(r) for r in facts.rounds},
            facts.config.generation.saturation_floor,
            "acceptance",
        ),
        figures.similarity_plot(
            [row.nearest_seed.score for row in instructions if row.nearest_seed], "similarity"
        ),
        figures.lengths_plot(lengths, facts.units, "lengths"),
        verbs_plot(verbs, "verbs"),
    )
    return tuple(plot for plot in plots if plot)


def _yields(facts: RunFacts) -> Mapping[str, tuple[tables.YieldRow, ...]]:
    return {
        "instruction candidates": tables.instruction_yield(facts.rounds),
        "instances": tables.instance_yield(facts.rounds),
    }


def _training_plot(facts: RunFacts) -> Plot | None:
    curves = {
        f"round {r.number}": tuple(step for step in r.steps if step.reward_accuracy is None)
        for r in facts.rounds
    }
    curves |= {f"seeds only, {steps} steps": rows for steps, rows in facts.seeds_only.items()}
    return figures.training_plot(curves, "training")


def _rewards_plot(facts: RunFacts) -> Plot | None:
    curves = {}
    for facts_of_round, pairs in ((r, found) for r in facts.rounds for found in r.pairs):
        name = "" if pairs.training == DEFAULT_TRAINING else f", {pairs.training}"
        curves[f"round {facts_of_round.number}{name}"] = pairs.steps
    return figures.rewards_plot(curves, "rewards")


def _dropped_sample(facts: RunFacts) -> Iterator[tuple[str, tuple[Rejection, ...]]]:
    """A few dropped rows for each reason, the commonest reason first."""
    reasons: dict[str, list[Rejection]] = {}
    counts: Counter[str] = Counter()
    for r in facts.rounds:
        for row in r.rejections:
            reasons.setdefault(_reason_label(row.stage, row.reason), []).append(row)
        for why, count in r.counts.dropped.items():
            # What the selection left out has a section of its own.
            if why.stage != "selection":
                counts[_reason_label(*why)] += count
    for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        yield f"{reason} ({count:,})", spread(reasons[reason], _DROPPED_PER_REASON)


def _reason_label(stage: str, reason: str) -> str:
    return f"{stage}: {tables.reason_words(reason)}"


def _stage_times(facts: RunFacts) -> Iterator[StageTime]:
    for place, stage, mark in facts.stages:
        said = (
            f"{name.replace('_', ' ')} {number(v, 3) if isinstance(v, int | float) else v}"
            for name, v in mark.figures.items()
            if v is not None
        )
        yield StageTime(place, stage, mark.seconds, ", ".join(said))


def _worked(facts: RunFacts) -> float:
    """Seconds of all stages; those of generation run together, so their time counts once."""
    together: dict[str, float] = {}
    apart = 0.0
    for place, stage, mark in facts.stages:
        if stage in _GENERATION:
            together[place] = max(together.get(place, 0.0), mark.seconds)
        else:
            apart += mark.seconds
    return apart + sum(together.values())


def _elapsed(facts: RunFacts) -> float | None:
    """Seconds from the first start to the last finished stage, pauses counted."""
    if not facts.stages or facts.manifest is None or not facts.manifest.starts:
        return None
    try:
        began = datetime.fromisoformat(facts.manifest.starts[0].at)
        ended = max(datetime.fromisoformat(mark.finished) for _, _, mark in facts.stages)
        return (ended - began).total_seconds()
    except (ValueError, TypeError):
        return None


def _commands(facts: RunFacts) -> tuple[str, ...]:
    """The command as it was typed, and one that repeats the run from its saved settings."""
    config = shlex.quote(str(facts.path / "config.yaml"))
    again = f"selfinstruct run {config} --output-dir {shlex.quote(f'{facts.path}-again')}"
    typed = _typed(facts.manifest.starts[-1]) if facts.manifest and facts.manifest.starts else ""
    return (typed, again) if typed else (again,)


def _typed(start: Start) -> str:
    if not start.command:
        return ""
    program, *arguments = start.command
    name = Path(program).name
    interpreter = ["python", program] if name.endswith(".py") else [name]
    return shlex.join([*interpreter, *arguments])
