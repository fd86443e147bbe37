"""What a user can fix in settings and files is told before anything slow is loaded."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from selfinstruct_train.config import dump_config, load_config

ROOT = Path(__file__).parent.parent
QUICKSTART = "configs/quickstart.yaml"
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "scipy", "sklearn", "nltk")
# All faults in one process, for a start takes longer than they do.
PROGRAM = f"""
import contextlib, io, json, runpy, sys
from selfinstruct_train.cli.app import main
heavy = set({HEAVY!r})
for arguments in json.load(sys.stdin):
    sys.argv = arguments
    code, said = None, io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            if arguments[0] == "selfinstruct":
                main()
            else:
                runpy.run_module(arguments[0], run_name="__main__")
    except SystemExit as end:
        code = end.code
    loaded = sorted(heavy & sys.modules.keys())
    heavy -= sys.modules.keys()
    print(json.dumps([code, said.getvalue(), loaded]), flush=True)
"""


class Fault(NamedTuple):
    arguments: str
    """Of the command, or of the program whose name they begin with; {folder} is the test's."""
    says: str


NO_RUN = "data: not a run directory"
SEEDS = "seeds.jsonl, line 2: "
FAULTS = (
    Fault("run none.yaml", "none.yaml: no such config file"),
    Fault("generate none.yaml", "none.yaml: no such config file"),
    Fault("evaluate none.yaml", "none.yaml: no such config file"),
    Fault("validate none.yaml", "none.yaml: no such config file"),
    Fault("preview none.yaml", "none.yaml: no such config file"),
    Fault("doctor none.yaml", "none.yaml: no such config file"),
    Fault("plan none.yaml", "none.yaml: no such config file"),
    Fault("judge none.yaml a b --suite everyday-dev", "none.yaml: no such config file"),
    Fault("seeds check everyday-seeds none.yaml", "none.yaml: no such config file"),
    Fault(f"run {QUICKSTART} training.lerning_rate=1", "did you mean 'training.learning_rate'"),
    Fault(f"run {QUICKSTART} seeds.path=none.jsonl", "none.jsonl: no such file"),
    Fault(f"preview {QUICKSTART} seeds.path=none.jsonl", "none.jsonl: no such file"),
    Fault(f"plan {QUICKSTART} seeds.path=none.jsonl", "none.jsonl: no such file"),
    Fault(f"plan {QUICKSTART} seeds.path=none.jsonl --probe 2m", "none.jsonl: no such file"),
    Fault(f"validate {QUICKSTART} seeds.path={{folder}}/seeds.jsonl", SEEDS),
    Fault(f"validate {QUICKSTART} seeds.path={{folder}}/keys.jsonl", "keys.jsonl, line 2: "),
    Fault(f"validate {QUICKSTART} seeds.path={{folder}}/empty.jsonl", "empty.jsonl: "),
    Fault("seeds check {folder}/seeds.jsonl", "1 faults, the first on line 2"),
    Fault(f"validate {QUICKSTART} evaluation.suites=[nonee]", "'nonee' is neither a file nor"),
    Fault(f"plan {QUICKSTART} evaluation.suites=[nonee]", "'nonee' is neither a file nor"),
    Fault(f"validate {QUICKSTART} generation.prompts=nonee", "nonee"),
    Fault(f"validate {QUICKSTART} evaluation.held_out_text=none.txt", "none.txt"),
    Fault(f"validate {QUICKSTART} evaluation.published=./none", "evaluation.published"),
    Fault(f"run {QUICKSTART} model.name_or_path=./none", "no folder './none'"),
    Fault(f"run {QUICKSTART} model.name_or_path=none.gguf", "the file 'none.gguf' does not exist"),
    Fault(f"run {QUICKSTART} --output-dir data", "data: holds files but no run"),
    Fault(f"run {QUICKSTART} --output-dir README.md/run", "README.md is a file; give a folder"),
    Fault(f"run {QUICKSTART} --output-dir {{folder}}/link", "a link to what is not there; give"),
    Fault(f"train {QUICKSTART} --output-dir {{folder}}/run", "run 'selfinstruct generate' first"),
    Fault("report data", NO_RUN),
    Fault("stats data", NO_RUN),
    Fault("status data", NO_RUN),
    Fault("rounds data", NO_RUN),
    Fault("explain data r0-1", NO_RUN),
    Fault("prune data --ids r0-1", NO_RUN),
    Fault("rate data", NO_RUN),
    Fault("ratings data", NO_RUN),
    Fault("chat data", NO_RUN),
    Fault("export data data", NO_RUN),
    Fault("export model data", NO_RUN),
    Fault("chat {folder}/run", "no model is tuned yet"),
    Fault("export model {folder}/run --merge", "no model is tuned yet"),
    Fault("export data {folder}/run", "no row is finished"),
    Fault("report {folder}/run", "no stage of this run is finished"),
    Fault("plan --from {folder}/run", "no round has been evaluated"),
    Fault(f"plan {QUICKSTART} --from data", "no round has finished its instances"),
    Fault(f"plan {QUICKSTART} --probe soon", "'soon' is not a time"),
    Fault("score --suite nonee --predictions p.jsonl", "'nonee' is neither a file nor"),
    Fault("score --suite everyday-dev --predictions none.jsonl", "none.jsonl"),
    Fault("compare data data --suite everyday-dev", NO_RUN),
    Fault("compare none.jsonl data --suite everyday-dev --html {folder}/p.html", "none.jsonl"),
    Fault(f"judge {QUICKSTART} data data --suite everyday-dev", NO_RUN),
    Fault("pack check ./none", "none"),
    Fault("dedup --pool none.jsonl --candidates none.jsonl", "none.jsonl"),
    Fault("data pull nonee", "nonee"),
    Fault("recipes.self_instruct --config none.yaml", "none.yaml: no such config file"),
    Fault(f"recipes.generate --config {QUICKSTART} seeds.path=no.jsonl", "no.jsonl: no such file"),
    Fault("recipes.serve_and_generate --config none.yaml", "none.yaml: no such config file"),
)


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[Fault, tuple[int, str, list[str]]]:
    """For each fault the exit code, what was said, and what was loaded by then."""
    folder = tmp_path_factory.mktemp("faults")
    (folder / "link").symlink_to(folder / "gone")
    good = (ROOT / "data/microworld/seed_tasks.jsonl").read_text().splitlines()[0]
    for name, line in (("seeds", "{not json"), ("keys", '{"id": "x"}')):
        (folder / f"{name}.jsonl").write_text(f"{good}\n{line}\n")
    (folder / "empty.jsonl").write_text("")
    config = load_config(ROOT / QUICKSTART, output_dir=folder / "run")
    (folder / "run").mkdir()
    (folder / "run/config.yaml").write_text(dump_config(config))
    given = []
    for fault in FAULTS:
        arguments = fault.arguments.format(folder=folder).split()
        is_recipe = arguments[0].startswith("recipes.")
        given.append(
            [f"selfinstruct_train.{arguments[0]}", *arguments[1:]]
            if is_recipe
            else ["selfinstruct", *arguments]
        )
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        input=json.dumps(given),
        capture_output=True,
        text=True,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(FAULTS), done.stderr
    return {fault: tuple(row) for fault, row in zip(FAULTS, rows, strict=True)}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.arguments)
def test_a_fault_of_settings_or_files_is_one_sentence_told_before_torch_is_loaded(
    fault: Fault, ends: dict[Fault, tuple[int, str, list[str]]]
) -> None:
    code, said, loaded = ends[fault]
    assert code == 2, said
    assert fault.says in said and "Traceback" not in said
    assert len([line for line in said.splitlines() if line.startswith("error:")]) == 1
    assert loaded == []
