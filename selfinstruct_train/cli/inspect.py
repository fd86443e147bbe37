"""Commands that look at answers and runs: scores, comparisons, judges, people, the report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from selfinstruct_train.cli.options import (
    AsJson,
    ConfigArgument,
    Overrides,
    RunArgument,
    SuiteOption,
    to_json,
)


def score(
    suite: SuiteOption,
    predictions: Annotated[Path, typer.Option(help="JSONL of answers, ours or as published.")],
    as_json: AsJson = False,
) -> None:
    """Score a predictions file against a suite; no model is loaded."""
    from selfinstruct_train.evaluation.metrics import score_predictions
    from selfinstruct_train.evaluation.suites import load_suite, read_predictions

    loaded = load_suite(suite)
    result = score_predictions(predictions.stem, read_predictions(predictions, loaded), loaded)
    if as_json:
        print(to_json({"suite": loaded.name} | result.model_dump()))
    else:
        print(
            f"{loaded.name}: ROUGE-L {result.rouge_l:.2f}, exact match {result.exact_match:.1f} %, "
            f"{result.mean_words:.1f} words on average, {result.empty:.1f} % empty, n = {result.n}"
        )
        if result.accuracy is not None:
            print(f"accuracy (accepted answers and constraints): {result.accuracy:.1f} %")
        if (kept := result.constraints) is not None:
            print(
                f"constraints, strict: instruction-level {kept.instruction_level_strict:.1f} % of "
                f"{kept.declared} met, prompt-level {kept.prompt_level_strict:.1f} % of "
                f"{kept.answers} answers meet all"
            )


def compare(
    a: Annotated[Path, typer.Argument(help="Run directory or predictions file.")],
    b: Annotated[Path, typer.Argument(help="The one that is compared with it.")],
    suite: SuiteOption,
    as_json: AsJson = False,
    html: Annotated[Path | None, typer.Option(help="Also write a page.")] = None,
) -> None:
    """Paired comparison of B against A with a bootstrap interval."""
    if html is not None:
        from selfinstruct_train.report.versus import write_versus

        result = write_versus(a, b, suite, html)
    else:
        from selfinstruct_train.evaluation.compare import compare_sources

        result = compare_sources(a, b, suite)
    if as_json:
        print(to_json(result.model_dump()))
        return
    verdict = (
        "cannot be told apart"
        if result.ci_low <= 0 <= result.ci_high
        else ("B is better" if result.delta > 0 else "A is better")
    )
    print(
        f"{suite}: B - A = {result.delta:+.2f} ROUGE-L (95 % interval {result.ci_low:+.2f} to "
        f"{result.ci_high:+.2f}): {verdict}; {result.wins} wins, {result.ties} ties, "
        f"{result.losses} losses"
    )
    for pair in result.pairs:
        if pair.group == "overall" and pair.metric == "accuracy":
            print(
                f"accuracy: B - A = {pair.delta:+.1f} points (95 % interval {pair.ci_low:+.1f} to "
                f"{pair.ci_high:+.1f})"
            )
        if pair.group == "overall" and pair.metric.endswith("_strict"):
            name = pair.metric.removesuffix("_strict").replace("_", "-")
            print(
                f"constraints, {name} (strict): B - A = {pair.delta:+.1f} points (95 % interval "
                f"{pair.ci_low:+.1f} to {pair.ci_high:+.1f})"
            )


def judge(
    config: ConfigArgument,
    a: Annotated[Path, typer.Argument(help="Run directory or predictions file.")],
    b: Annotated[Path, typer.Argument(help="The one that is judged against it.")],
    suite: SuiteOption,
    overrides: Overrides = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the verdicts; by default one beside B.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Let a model judge B against A, asked in both orders. Resumes what is there."""
    from selfinstruct_train.config import load_config

    settings = load_config(config, overrides or ())
    from selfinstruct_train.evaluation.win_rate import judge_match, open_judge, read_match
    from selfinstruct_train.progress import Progress
    from selfinstruct_train.run.lock import hold

    match = read_match(a, b, suite)
    folder = output or b.absolute().parent / match.folder_name
    progress = Progress()
    with hold(folder / "judge.lock", "judgement", "give another --output") as lock:
        for note in lock.notes:
            progress.say(note)
        judgement = judge_match(settings, open_judge(settings), match, folder, progress)
    progress.close()
    print(to_json(judgement.model_dump()) if as_json else "\n".join(judgement.sentences))
    print(f"verdicts: {folder}", file=sys.stderr)


def report(
    run_directory: RunArgument,
    open_page: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
) -> None:
    """Write the report of a run: one self-contained HTML page."""
    from selfinstruct_train.report.page import write_report
    from selfinstruct_train.run.directory import RunDirectory

    page = write_report(RunDirectory(run_directory))
    print(f"report: {page.resolve()}")
    if open_page:
        typer.launch(str(page))


def status(
    run_directory: RunArgument,
    as_json: AsJson = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again every two seconds while it works.")
    ] = False,
) -> None:
    """What a run is at, from any terminal: stage, figures, time left, warnings, who works on it."""
    import time

    from rich.console import Console

    from selfinstruct_train.run.directory import RunDirectory
    from selfinstruct_train.run.status import read_status
    from selfinstruct_train.text.characters import printable

    run = RunDirectory(run_directory)
    while True:
        found = read_status(run)
        if watch and not as_json:
            Console().clear()  # on a terminal alone
        if as_json:
            print(to_json(found.model_dump()), flush=True)
        else:
            print("\n".join(printable(line) for line in found.lines), flush=True)
        if not watch or found.state != "working":
            break
        time.sleep(2)


def explain(
    run_directory: RunArgument,
    row: Annotated[
        str, typer.Argument(metavar="ID", help="Of an instruction, instance, seed or request.")
    ],
) -> None:
    """Tell where a row comes from, what filters saw in it, and what it trained."""
    from selfinstruct_train.report.explain import explain as tell
    from selfinstruct_train.run.directory import RunDirectory
    from selfinstruct_train.text.characters import printable

    for line in tell(RunDirectory(run_directory), row):
        print(printable(line))


def stats(run_directory: RunArgument, as_json: AsJson = False) -> None:
    """What a run wrote, in figures: the paper's Table 1 and what was dropped, per round."""
    from selfinstruct_train.report.stats import data_stats
    from selfinstruct_train.run.directory import RunDirectory

    for found in data_stats(RunDirectory(run_directory)):
        print(to_json(found.model_dump()) if as_json else "\n".join(found.lines))


def rounds(run_directory: RunArgument, as_json: AsJson = False) -> None:
    """The rounds of a run: rows kept, score, gain over the best before, decision and reason."""
    from selfinstruct_train.rounds.table import rounds_of, table_lines
    from selfinstruct_train.run.directory import RunDirectory

    found = rounds_of(RunDirectory(run_directory))
    lines = [to_json(row.model_dump()) for row in found] if as_json else table_lines(found)
    print("\n".join(lines))


def rate(
    run_directory: RunArgument,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    rater: Annotated[str | None, typer.Option(help="Name; by default the page asks.")] = None,
) -> None:
    """Grade the answers of a run by hand, blinded, on a page of this machine."""
    from selfinstruct_train.rating.server import rate as serve
    from selfinstruct_train.run.directory import RunDirectory

    serve(RunDirectory(run_directory), port, rater)


def ratings(run_directory: RunArgument, as_json: AsJson = False) -> None:
    """What raters said: grades of each model, agreement. Renews the report where there is one."""
    from selfinstruct_train.rating.agreement import describe, summarise_ratings
    from selfinstruct_train.rating.store import read_ratings
    from selfinstruct_train.run.directory import RunDirectory

    run = RunDirectory(run_directory)
    summary = summarise_ratings(read_ratings(run))
    print(to_json(summary.model_dump()) if as_json else describe(summary))
    if run.report.exists():
        from selfinstruct_train.report.page import write_report

        print(f"report: {write_report(run).resolve()}", file=sys.stderr)
