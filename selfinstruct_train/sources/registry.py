"""Data sets known by name: what there is, and where each comes from."""

from __future__ import annotations

import difflib
from typing import Literal, NamedTuple

from selfinstruct_train.errors import DataError

_OFFICIAL = (
    "https://raw.githubusercontent.com/yizhongw/self-instruct/"
    "0b26ccaa415992100fa32df62d41b994cf928e23"
)


class SourceFile(NamedTuple):
    """One file of a data set."""

    name: str
    """File name in the cache."""
    url: str
    sha256: str | None
    """64 hex digits; None where only the commit in the address pins the file."""


class Source(NamedTuple):
    """A data set known by name."""

    name: str
    kind: Literal["seeds", "suite", "predictions"]
    note: str
    """Origin, licence and what its authors ask."""
    files: tuple[SourceFile, ...] = ()
    """What is fetched; empty where the data are the project's own."""
    own_file: str | None = None
    """Path of the project's own file, relative to the repository root."""
    is_microworld: bool = False
    """Whether the microworld's oracle can judge answers to it."""
    is_folder: bool = False
    """Whether it is used as a folder of files."""


def _published(name: str, sha256: str | None = None) -> SourceFile:
    file = f"{name}_predictions.jsonl"
    return SourceFile(file, f"{_OFFICIAL}/human_eval/predictions/{file}", sha256)


SOURCES: tuple[Source, ...] = (
    Source(
        "self-instruct-seeds",
        "seeds",
        "the paper's 175 seed tasks; github yizhongw/self-instruct, Apache-2.0",
        (
            SourceFile(
                "seed_tasks.jsonl",
                f"{_OFFICIAL}/data/seed_tasks.jsonl",
                "7779004fa198fdf27cf70a159363879d8a26c53329e11b436af17b3941875f48",
            ),
        ),
    ),
    Source(
        "user-oriented-252",
        "suite",
        "the paper's 252 user-oriented tasks; github yizhongw/self-instruct, Apache-2.0; its "
        "authors ask that it is never trained on",
        (
            SourceFile(
                "user_oriented_instructions.jsonl",
                f"{_OFFICIAL}/human_eval/user_oriented_instructions.jsonl",
                "81d60a117db495cecedecd9193504fd07c5b5a42f6699ef6b0f9da10fc22f42e",
            ),
        ),
    ),
    Source(
        "published-predictions",
        "predictions",
        "eight models' published answers to the 252 tasks; github yizhongw/self-instruct, "
        "Apache-2.0; five files are pinned by the commit alone, without a hash of our own",
        (
            _published(
                "davinci", "29ebefae64941a53d296021d191462e7f1ec87c3112d5bf4971d62ba61b30730"
            ),
            _published(
                "davinci-self-instruct",
                "d454d989d16567ba9ed2898940beb3bfced2887b8014a5b6f5fa7955e499a4b8",
            ),
            _published(
                "text-davinci-001",
                "0e5486cb74260ed10dfc43d6c26343c4bb98251401003b46ae3fca498305a94d",
            ),
            _published("text-davinci-002"),
            _published("text-davinci-003"),
            _published("davinci-t0-ft"),
            _published("davinci-superni-ft"),
            _published("davinci-self-instruct-and-superni-ft"),
        ),
        is_folder=True,
    ),
    Source(
        "super-natural-instructions",
        "suite",
        "11,810 instances of 119 test tasks; Hub yizhongw/self_instruct, Apache-2.0; one reference "
        "each and no categories: a checkout of github allenai/natural-instructions, named by its "
        "path, has both; not pinned by a hash of our own",
        (
            SourceFile(
                "super_natural_instructions_test.parquet",
                "https://huggingface.co/datasets/yizhongw/self_instruct/resolve/"
                "refs%2Fconvert%2Fparquet/super_natural_instructions/test/0000.parquet",
                None,
            ),
        ),
    ),
    Source(
        "microworld-seeds",
        "seeds",
        "175 seed tasks of the microworld; written by this project, Apache-2.0",
        own_file="data/microworld/seed_tasks.jsonl",
    ),
    Source(
        "microworld",
        "suite",
        "252 test tasks of the microworld; written by this project, Apache-2.0",
        own_file="data/microworld/test.jsonl",
        is_microworld=True,
    ),
    Source(
        "microworld-dev",
        "suite",
        "development tasks of the microworld, for every choice; written by this project, "
        "Apache-2.0",
        own_file="data/microworld/dev.jsonl",
        is_microworld=True,
    ),
    Source(
        "microworld-seen",
        "suite",
        "microworld tasks on problems that the embedded model saw in pretraining; written by "
        "this project, Apache-2.0",
        own_file="data/microworld/seen.jsonl",
        is_microworld=True,
    ),
    Source(
        "everyday-seeds",
        "seeds",
        "175 everyday seed tasks; written by a language model for this project, Apache-2.0",
        own_file="data/everyday/seeds.jsonl",
    ),
    Source(
        "everyday-test",
        "suite",
        "150 everyday tasks of ten kinds, scored by accepted answers and constraints; written by a "
        "language model for this project, Apache-2.0",
        own_file="data/everyday/test.jsonl",
    ),
    Source(
        "everyday-dev",
        "suite",
        "75 more tasks of the same ten kinds, for every choice; written by a language model for "
        "this project, Apache-2.0",
        own_file="data/everyday/dev.jsonl",
    ),
    Source(
        "orders-seeds",
        "seeds",
        "20 orders to a bakery, noted as JSON by four house rules; written by a language model for "
        "this project, Apache-2.0",
        own_file="data/orders/seeds.jsonl",
    ),
    Source(
        "orders-test",
        "suite",
        "100 orders to note by the same rules, scored by the whole note; written by a language "
        "model for this project, Apache-2.0",
        own_file="data/orders/test.jsonl",
    ),
    Source(
        "orders-dev",
        "suite",
        "75 more orders, for every choice; written by a language model for this project, "
        "Apache-2.0",
        own_file="data/orders/dev.jsonl",
    ),
    Source(
        "code-seeds",
        "seeds",
        "32 tasks of programming; written by a language model for this project, Apache-2.0",
        own_file="data/seeds/code.jsonl",
    ),
    Source(
        "medical-seeds",
        "seeds",
        "29 tasks of medicine and care; written by a language model for this project, Apache-2.0",
        own_file="data/seeds/medical.jsonl",
    ),
    Source(
        "legal-seeds",
        "seeds",
        "29 tasks of law; written by a language model for this project, Apache-2.0",
        own_file="data/seeds/legal.jsonl",
    ),
    Source(
        "zh-seeds",
        "seeds",
        "100 Chinese tasks, for the pack zh; written by a language model for this project, "
        "Apache-2.0",
        own_file="data/seeds/zh.jsonl",
    ),
    Source(
        "pt-seeds",
        "seeds",
        "60 Brazilian Portuguese tasks, for the pack pt; written by a language model for this "
        "project, Apache-2.0",
        own_file="data/seeds/pt.jsonl",
    ),
)


def find_source(name: str) -> Source:
    """The data set of a name.

    Raises:
        DataError: no data set has this name; the nearest is named.
    """
    for source in SOURCES:
        if source.name == name:
            return source
    known = [source.name for source in SOURCES]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"the names are {', '.join(known)}"
    raise DataError(f"'{name}' is neither a file nor the name of a data set; {hint}")
