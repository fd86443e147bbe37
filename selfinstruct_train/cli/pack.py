"""Commands for those who write a pack."""

from __future__ import annotations

from typing import Annotated

import typer


# Packs are named by folder or name alike, so this is no Path.
def pack_check(
    pack: Annotated[str, typer.Argument(metavar="DIR", help="Folder of a pack, or en, zh, pt.")],
) -> None:
    """Check a pack against its own rules, and play a round with hostile text without a model."""
    from selfinstruct_train.rounds.pack_check import check_pack

    report = check_pack(pack)
    print(report.summary)
    for line in report.advice:
        print(f"advice: {line}")
