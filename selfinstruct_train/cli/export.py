"""Commands that take data and models out of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from selfinstruct_train.cli.options import RunArgument

PushOption = Annotated[
    str | None,
    typer.Option(
        "--push-to-hub",
        metavar="USER/NAME",
        help="Also send it to this repository of the Hub; the token is read from HF_TOKEN.",
    ),
]
PublicOption = Annotated[bool, typer.Option(help="Let everybody see a repository that is made.")]
LicenceOption = Annotated[
    str | None,
    typer.Option("--license", help="What the card says that it is given out under."),
]
OutputOption = Annotated[
    Path | None, typer.Option(help="Folder to write; by default in the run's export/.")
]


def export_data(
    run_directory: RunArgument,
    format: Annotated[
        Literal["sft", "alpaca", "messages", "sharegpt", "parquet"],
        typer.Option(help="Columns: of TRL, Alpaca, chat messages, ShareGPT; or all, as Parquet."),
    ] = "messages",
    split: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Share of the instructions to hold out.")
    ] = 0.0,
    output: OutputOption = None,
    license: LicenceOption = None,
    push_to_hub: PushOption = None,
    public: PublicOption = False,
) -> None:
    """Write the data of a run for other trainers, with a card."""
    from selfinstruct_train.export.data import export_data as write
    from selfinstruct_train.export.hub import check_push, push
    from selfinstruct_train.run.directory import RunDirectory

    if push_to_hub:
        check_push(push_to_hub)
    folder = output or run_directory / "export" / format
    written = write(RunDirectory(run_directory), format, split, folder, license)
    held_out = f", {len(written.test)} held out" if written.test else ""
    print(f"{len(written.train)} rows{held_out}: {folder}")
    if push_to_hub:
        print(f"sent: {push(folder, push_to_hub, 'dataset', public)}")


def export_model(
    run_directory: RunArgument,
    merge: Annotated[
        bool,
        typer.Option("--merge", help="Whole weights in place of an adapter."),
    ] = False,
    gguf: Annotated[
        Literal["f16", "q8_0"] | None,
        typer.Option(help="Also a GGUF file of the whole weights, with a Modelfile for Ollama."),
    ] = None,
    round_number: Annotated[
        int | None, typer.Option("--round", min=0, help="Which round's; by default the best.")
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(help="Of whole weights; by default what the run computes in."),
    ] = None,
    output: OutputOption = None,
    push_to_hub: PushOption = None,
    public: PublicOption = False,
) -> None:
    """Write the tuned model of a run for other programs, with its scores on a card."""
    from selfinstruct_train.export.choose import choose_trained
    from selfinstruct_train.export.hub import check_push, push
    from selfinstruct_train.run.directory import RunDirectory

    if push_to_hub:
        check_push(push_to_hub)
    name = "-".join(["model", *(["merged"] if merge else []), *([gguf] if gguf else [])])
    folder = output or run_directory / "export" / name
    run = RunDirectory(run_directory)
    trained = choose_trained(run, run.config(), round_number)
    from selfinstruct_train.export.model import export_model as write  # loads torch

    written = write(run, folder, merge=merge, gguf=gguf, trained=trained, dtype=dtype)
    print(f"{written.trained.description}: {folder}")
    if written.difference is not None:
        print(f"merged: logits within {written.difference:.2g} of the largest of the adapter's")
    if push_to_hub:
        print(f"sent: {push(folder, push_to_hub, 'model', public)}")
