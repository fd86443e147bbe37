"""The data of a run as a folder that `datasets` reads, with its card."""

from __future__ import annotations

from pathlib import Path

from selfinstruct_train.errors import RunError
from selfinstruct_train.export.card import data_card
from selfinstruct_train.export.folder import CARD, whole_folder
from selfinstruct_train.export.rows import DataFormat, Split, read_data, split_rows, write_rows
from selfinstruct_train.packs.pack import load_answers
from selfinstruct_train.run.directory import RunDirectory


def export_data(
    run: RunDirectory, format: DataFormat, share: float, folder: Path, licence: str | None = None
) -> Split:
    """Write the rows of a run and their card.

    Args:
        run: where they were made.
        format: the columns.
        share: of the instructions that are held out as ``test``, 0 to 1.
        folder: where to; an earlier export there is replaced.
        licence: what the user gives the data out under, for the card.

    Returns:
        The rows as they were written.

    Raises:
        RunError: nothing is finished, nothing is left to train on, or the folder cannot be written.
        DataError: seeds, suites or rows cannot be read.
    """
    data = read_data(run)
    split = split_rows(data.rows, share, data.config.seed)
    if not split.train:
        raise RunError(f"--split {share:g} holds out all {len(split.test)} rows; lower it")
    answers = load_answers(data.config.generation.prompts)
    with whole_folder(folder) as scratch:
        for name, rows in split._asdict().items():
            if rows:
                write_rows(scratch / name, rows, format, data, answers)
        data_card(run, data, split, format, licence).save(scratch / CARD)
    return split
