"""The command line. Heavy imports stay inside the commands, so that help is instant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from selfinstruct_train.cli.program import finish_run, guard

app = typer.Typer(
    name="selfinstruct",
    no_args_is_help=True,
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Seed tasks, suites and published predictions.", no_args_is_help=True)
app.add_typer(data_app, name="data")

ConfigArgument = Annotated[
    Path, typer.Argument(help="YAML file with the settings of the run; --config FILE too.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings to change, as key.sub=value.", show_default=False),
]
OutputDir = Annotated[Path | None, typer.Option(help="Run directory, instead of the config's.")]
Redo = Annotated[
    str | None,
    typer.Option(
        help="Stage to make again, with all that depends on it: instructions, classification, "
        "instances, train, seeds-only, evaluate or judge. Old results are moved to replaced/."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print figures as JSON.")]
SuiteOption = Annotated[
    str, typer.Option(help="Suite: a name that 'data list' shows, or a JSONL file.")
]
RunArgument = Annotated[Path, typer.Argument(help="Run directory.")]


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False,
) -> None:
    """A language model teaches itself.

    It writes its own instruction data, is fine-tuned on it, is measured against the model it was,
    and goes round again.
    """
    if version:
        from importlib.metadata import version as installed

        print(f"selfinstruct-train {installed('selfinstruct-train')}")
        raise typer.Exit


def main() -> None:
    """Run the command line: user faults end in one sentence and exit code 2."""
    arguments = _config_first(_spread(sys.argv[1:], ("--pool", "--candidates")))
    guard(lambda: app(args=arguments))


def _config_first(arguments: list[str]) -> list[str]:
    """Let ``--config FILE`` stand for the first argument, as the recipes name it."""
    for place, argument in enumerate(arguments):
        option, mark, file = argument.partition("=")
        if option == "--config" and mark:
            return [arguments[0], file, *arguments[1:place], *arguments[place + 1 :]]
        if option == "--config" and place + 1 < len(arguments):
            file = arguments[place + 1]
            return [arguments[0], file, *arguments[1:place], *arguments[place + 2 :]]
    return arguments


def _spread(arguments: list[str], options: tuple[str, ...]) -> list[str]:
    """Let ``--pool a b`` stand for ``--pool a --pool b``, as shells expand a pattern."""
    spread: list[str] = []
    option = None
    for argument in arguments:
        if argument.startswith("-"):
            option = argument if argument in options else None
        elif option and spread[-1] != option:
            spread.append(option)
        spread.append(argument)
    return spread


@app.command()
def run(
    config: ConfigArgument,
    overrides: Overrides = None,
    output_dir: OutputDir = None,
    redo: Redo = None,
) -> None:
    """The whole loop: generate, train, evaluate, round after round. Resumes what is there."""
    _stages(config, overrides, output_dir, redo, ("generate", "train", "evaluate"))


@app.command()
def generate(
    config: ConfigArgument,
    overrides: Overrides = None,
    output_dir: OutputDir = None,
    redo: Redo = None,
) -> None:
    """Steps 1 to 4 alone: instructions, classification, instances, filters."""
    _stages(config, overrides, output_dir, redo, ("generate",))


@app.command()
def train(
    config: ConfigArgument,
    overrides: Overrides = None,
    output_dir: OutputDir = None,
    redo: Redo = None,
) -> None:
    """Step 5 alone: LoRA on what has been generated."""
    _stages(config, overrides, output_dir, redo, ("train",))


@app.command()
def evaluate(
    config: ConfigArgument,
    overrides: Overrides = None,
    output_dir: OutputDir = None,
    redo: Redo = None,
) -> None:
    """The comparison alone: base, seeds-only and tuned on every suite."""
    _stages(config, overrides, output_dir, redo, ("evaluate",))


def _stages(
    config: Path,
    overrides: list[str] | None,
    output_dir: Path | None,
    redo: str | None,
    stages: tuple[Literal["generate", "train", "evaluate"], ...],
) -> None:
    from selfinstruct_train.config import load_config
    from selfinstruct_train.rounds.loop import Loop

    loop = Loop(load_config(config, overrides or (), output_dir), stages, redo)
    steps = {
        "generate": (loop.generate,),
        "train": (loop.train,),
        "evaluate": (loop.evaluate, loop.judge),
    }
    loop.go_round(*(step for stage in stages for step in steps[stage]))
    if "evaluate" in stages:
        finish_run(loop)


@app.command()
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
        print(_json({"suite": loaded.name} | result.model_dump()))
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


@app.command()
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
        print(_json(result.model_dump()))
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


@app.command()
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
    from selfinstruct_train.evaluation.win_rate import judge_match, open_judge, read_match
    from selfinstruct_train.progress import Progress

    settings = load_config(config, overrides or ())
    match = read_match(a, b, suite)
    asked = open_judge(settings)
    folder = output or b.absolute().parent / match.folder_name
    progress = Progress()
    judgement = judge_match(settings, asked, match, folder, progress)
    progress.close()
    print(_json(judgement.model_dump()) if as_json else "\n".join(judgement.sentences))
    print(f"verdicts: {folder}", file=sys.stderr)


@app.command()
def dedup(
    pool: Annotated[list[Path], typer.Option(help="Instructions already known; may be repeated.")],
    candidates: Annotated[list[Path], typer.Option(help="Instructions that ask to join.")],
    threshold: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Highest ROUGE-L F1 that is new.")
    ] = 0.7,
    tokenizer: Annotated[
        Literal["auto", "rouge", "unicode"],
        typer.Option(help="rouge (ASCII, as the paper), unicode, or auto: by the script."),
    ] = "auto",
) -> None:
    """Exact ROUGE-L novelty test: a JSON line per candidate, in order."""
    from selfinstruct_train.generation.dedup import dedup as stream

    for row in stream(pool, candidates, threshold, tokenizer):
        print(row.model_dump_json(), flush=True)


@app.command()
def validate(config: ConfigArgument, overrides: Overrides = None) -> None:
    """Check all that a run needs, as it would itself, without loading the weights of a model."""
    from selfinstruct_train.config import load_config
    from selfinstruct_train.rounds.preflight import preflight

    checked = preflight(load_config(config, overrides or ()))
    print(
        f"{config}: valid; {len(checked.seeds)} seed tasks, "
        + ", ".join(f"{len(suite.tasks)} tasks in {suite.name}" for suite in checked.suites)
    )


@app.command()
def doctor(
    config: Annotated[
        Path | None, typer.Argument(help="Also check what this config needs.", show_default=False)
    ] = None,
    overrides: Overrides = None,
) -> None:
    """What is installed and here: versions, devices, memory, disk, compiler, extras, the Hub."""
    from selfinstruct_train.cli.doctor import describe_config, describe_machine

    for line in describe_machine():
        print(line)
    if config is not None:
        for line in describe_config(config, overrides or ()):
            print(line)


@app.command()
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


@app.command()
def rate(
    run_directory: RunArgument,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    rater: Annotated[str | None, typer.Option(help="Name; by default the page asks.")] = None,
) -> None:
    """Grade the answers of a run by hand, blinded, on a page of this machine."""
    from selfinstruct_train.rating.server import rate as serve
    from selfinstruct_train.run.directory import RunDirectory

    serve(RunDirectory(run_directory), port, rater)


@app.command()
def ratings(run_directory: RunArgument, as_json: AsJson = False) -> None:
    """What raters said: grades of each model, agreement. Renews the report where there is one."""
    from selfinstruct_train.rating.agreement import describe, summarise_ratings
    from selfinstruct_train.rating.store import read_ratings
    from selfinstruct_train.run.directory import RunDirectory

    run = RunDirectory(run_directory)
    summary = summarise_ratings(read_ratings(run))
    print(_json(summary.model_dump()) if as_json else describe(summary))
    if run.report.exists():
        from selfinstruct_train.report.page import write_report

        print(f"report: {write_report(run).resolve()}", file=sys.stderr)


@data_app.command("list")
def data_list() -> None:
    """Show what can be pulled or is here."""
    from selfinstruct_train.sources.registry import describe_sources

    for line in describe_sources():
        print(line)


@data_app.command("pull")
def data_pull(
    name: Annotated[str, typer.Argument(help="A name that 'data list' shows.")],
    source: Annotated[
        str | None, typer.Option("--from", help="Local file or folder, or another address.")
    ] = None,
) -> None:
    """Fetch a data set once, check its hash and keep it."""
    from selfinstruct_train.sources.registry import pull

    print(pull(name, source))


def _json(row: dict[str, object]) -> str:
    import json

    return json.dumps(row, ensure_ascii=False)


if __name__ == "__main__":
    main()
