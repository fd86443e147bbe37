"""How the programs end: one printable sentence, and a signal is no disaster."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from selfinstruct_train.cli.app import _config_first, main
from selfinstruct_train.cli.steps import say_end
from selfinstruct_train.config import load_config
from selfinstruct_train.distributed import ALONE, join_world
from selfinstruct_train.errors import ConfigError
from selfinstruct_train.progress import Progress
from selfinstruct_train.run.directory import RunDirectory
from selfinstruct_train.text.characters import printable

ROOT = Path(__file__).parent.parent
GUARDED = """
import sys, time
from selfinstruct_train.cli.program import guard

def program():
    try:
        print("begun", flush=True)
        for _ in range(2000):
            time.sleep(0.01)
    finally:
        {finally_}

guard(program)
"""


def begin(finally_: str = "pass", **settings: object) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", GUARDED.format(finally_=finally_)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,  # type: ignore[call-overload]
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize(
    ("sent", "code", "says"),
    [
        (signal.SIGTERM, 143, "stopped by SIGTERM; run the same command to go on"),
        (signal.SIGHUP, 129, "stopped by SIGHUP; run the same command to go on"),
        (signal.SIGINT, 130, "stopped; run the same command to go on"),
    ],
)
def test_a_signal_ends_a_program_with_a_sentence_and_its_code(
    sent: signal.Signals, code: int, says: str
) -> None:
    process = begin()
    process.send_signal(sent)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors.strip()) == (code, says)


WRITING = """
import os, signal
from pydantic import BaseModel, field_serializer
from selfinstruct_train.cli.program import guard

class Row(BaseModel):
    text: str

    @field_serializer("text")
    def interrupted(self, text: str) -> str:
        os.kill(os.getpid(), {sent})
        return text

def program():
    try:
        Row(text="a").model_dump()
    except {caught} as error:
        raise RuntimeError("cannot be written") {cause}

guard(program)
"""


@pytest.mark.parametrize(("caught", "cause"), [("OSError", ""), ("Exception", "from error"),
                                               ("Exception", "")])  # fmt: skip
@pytest.mark.parametrize(
    ("sent", "code", "says"),
    [(signal.SIGTERM, 143, "stopped by SIGTERM; "), (signal.SIGINT, 130, "stopped; ")],
)
def test_a_stop_that_a_library_makes_an_error_of_its_own_is_a_stop(
    sent: int, code: int, says: str, caught: str, cause: str
) -> None:
    text = WRITING.format(sent=int(sent), caught=caught, cause=cause)
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, f"\n{says}run the same command to go on\n")


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_leaves_at_once(second: signal.Signals) -> None:
    process = begin("print('ending', flush=True); time.sleep(60)")
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None and process.stdout.readline() == "ending\n"
    process.send_signal(second)
    process.communicate(timeout=5)
    assert process.returncode == -second


def test_a_launcher_that_stops_who_is_leaving_hurries_nobody() -> None:
    """It does so as soon as another process has left."""
    leaving = 'print("leaving", flush=True); time.sleep(1); print("left in good order", flush=True)'
    process = begin(leaving, env=os.environ | {"LOCAL_RANK": "0"})
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None and process.stdout.readline() == "leaving\n"
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=20)
    assert (process.returncode, said) == (143, "left in good order\n")


def test_a_hangup_that_nohup_ignores_stays_ignored() -> None:
    process = begin(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 143


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        ("RuntimeError('[tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:9')", True),
        ("RuntimeError('Read error [127.0.0.1]:9: Connection reset by peer')", True),
        ("RuntimeError('[gloo/x.cc:71] Timed out waiting 120000ms for recv')", True),
        ("type('DistBackendError', (RuntimeError,), {})('NCCL error')", True),
        ("RuntimeError('shape mismatch')", False),
    ],
)
def test_the_end_of_another_process_is_a_sentence(error: str, is_lost: bool) -> None:
    program = f"""
from selfinstruct_train.cli.program import guard

def program():
    raise {error}

guard(program)
"""
    for variables in ({"LOCAL_RANK": "1"}, {}):
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=os.environ | variables,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) == (not (is_lost and variables))
        if is_lost and variables:
            said = "error: another process of this run has ended or cannot be reached, so this one"
            assert done.stderr.strip() == f"{said} ends; run the same command again"


LAUNCHER = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1]], env=os.environ | {"LOCAL_RANK": "0"})
time.sleep(60)
"""


@pytest.mark.parametrize("finally_", ["pass", "time.sleep(60)"], ids=["orderly", "hanging"])
def test_a_process_does_not_outlive_its_launcher(finally_: str) -> None:
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, GUARDED.format(finally_=finally_)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert launcher.stdout is not None
    assert launcher.stdout.readline() == "begun\n"
    launcher.kill()
    # The worker has the pipe too: the end of both is the end of the worker.
    _, said = launcher.communicate(timeout=19)
    assert f"the launcher (process {launcher.pid}) has ended" in said


def cli(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "selfinstruct_train.cli.app", *arguments],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )


def test_control_characters_of_files_do_not_reach_the_terminal(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    quickstart = (ROOT / "configs/quickstart.yaml").read_text()
    config.write_text(quickstart + '"bad\\e[31m\\a\\u202ekey": 1\n')
    done = cli("validate", str(config))
    assert done.returncode == 2
    assert r"bad\x1b[31m\x07\u202ekey" in done.stderr
    assert all(c == "\n" or c.isprintable() for c in done.stderr)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("é 猫 😀 \u3000\n", "é 猫 😀 \u3000\n"),
        ("\x1b[2J\r\x9b\x00\t", r"\x1b[2J\r\x9b\x00\t"),
        ("\u202e\ud83d\ufeff", r"\u202e\ud83d\ufeff"),
    ],
)
def test_what_is_not_printable_is_spelled_out(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_warnings_that_quote_a_server_are_escaped() -> None:
    code = (
        "import logging; from selfinstruct_train.cli.program import guard; "
        r"guard(lambda: logging.getLogger('x').warning('it said %s', '\x1b[31mred'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "it said \\x1b[31mred\n"


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"WORLD_SIZE": ""}, "WORLD_SIZE: '' is not a number"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE: 'two' is not a number"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE: '0' is not a number"),
        ({"WORLD_SIZE": "-1"}, "WORLD_SIZE: '-1' is not a number"),
        ({"WORLD_SIZE": "4"}, "without RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT"),
        ({"WORLD_SIZE": "4", "RANK": "0", "LOCAL_RANK": "0"}, "without MASTER_ADDR, MASTER_PORT"),
        (
            {"WORLD_SIZE": "2", "RANK": "5", "LOCAL_RANK": "0"}
            | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
            "RANK: is 5, but WORLD_SIZE is 2",
        ),
    ],
)
def test_variables_of_another_job_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], says: str
) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert join_world() == ALONE
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"environment variable .*{says}.*unset"):
        join_world()
    for name in variables:
        monkeypatch.delenv(name)
    assert join_world() == ALONE


@pytest.mark.parametrize(
    "given",
    [
        ["run", "--config", "c.yaml", "a=b", "--output-dir", "x"],
        ["run", "a=b", "--config=c.yaml", "--output-dir", "x"],
        ["run", "a=b", "--output-dir", "x", "--config", "c.yaml"],
    ],
)
def test_config_may_be_named_as_the_recipes_name_it(given: list[str]) -> None:
    assert _config_first(given) == ["run", "c.yaml", "a=b", "--output-dir", "x"]


@pytest.mark.parametrize("command", ["run", "generate", "train", "evaluate"])
def test_every_command_with_a_config_takes_it_as_an_option(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["selfinstruct", command, "--config", "no-such.yaml"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: no-such.yaml: no such config file\n"


PROGRESS = """
from collections import Counter
from selfinstruct_train.cli.program import guard

def program():
    from selfinstruct_train.models.load import load_model
    from selfinstruct_train.config import ModelConfig
    from selfinstruct_train.progress import Progress, ProgressUpdate
    load_model(ModelConfig(name_or_path="embedded"))
    progress = Progress(every_seconds=0)
    for done in range(3):
        progress(ProgressUpdate("stage", done, 3, 0, Counter(), 0, 1.0))
    progress.close()

guard(program)
"""


def test_progress_in_a_log_file_is_lines_without_bars_of_libraries() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRESS], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"\r" not in done.stderr and b"\x1b" not in done.stderr
    assert [line.split(b" ")[0] for line in done.stderr.splitlines()] == [b"stage:"] * 3


def test_on_a_terminal_the_weights_bar_of_transformers_is_off() -> None:
    main, secondary = pty.openpty()
    done = subprocess.run([sys.executable, "-c", PROGRESS], cwd=ROOT, stderr=secondary)
    os.close(secondary)
    shown = os.read(main, 100_000)
    assert done.returncode == 0
    assert b"stage: 2/3" in shown and b"oading weights" not in shown


def test_a_command_says_what_it_does_before_anything_slow_is_loaded() -> None:
    code = """
import sys
from selfinstruct_train.cli import program
from selfinstruct_train.cli.app import main
said = program.say_begin
def begin(*given):
    said(*given)
    sys.exit(10 + len({"torch", "transformers", "datasets"} & sys.modules.keys()))
program.say_begin = begin
sys.argv = ["selfinstruct", "run", "configs/quickstart.yaml"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 10, done.stderr
    assert done.stderr == (
        "generate, train, evaluate: loading libraries, then checking the model of "
        "configs/quickstart.yaml\n"
    )


@pytest.mark.parametrize(
    ("program", "step", "follows"),
    [
        ("/bin/selfinstruct generate", "generate", "selfinstruct train c.yaml 'a b=1'"),
        ("/bin/selfinstruct train", "train", "selfinstruct evaluate c.yaml 'a b=1'"),
        ("app.py generate", "generate", "selfinstruct train c.yaml 'a b=1'"),
        ("recipes/generate.py", "generate", "accelerate launch recipes/train.py c.yaml 'a b=1'"),
        ("recipes/train.py", "train", "accelerate launch recipes/evaluate.py c.yaml 'a b=1'"),
    ],
)
def test_the_last_lines_name_what_was_written_and_the_next_command(
    program: str,
    step: Literal["generate", "train"],
    follows: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = RunDirectory(tmp_path)
    run.round(1).finish("instances", 1.0, kept=12)
    config = load_config(ROOT / "configs/quickstart.yaml")
    loop: Any = SimpleNamespace(run=run, world=ALONE, config=config, progress=Progress())
    redo = ["--redo", step] if step == "train" else [f"--redo={step}"]
    monkeypatch.setattr(sys, "argv", [*program.split(), "c.yaml", *redo, "a b=1"])
    say_end(loop, step)
    written, following = capsys.readouterr().out.splitlines()
    wrote = "instances.jsonl (12 rows)" if step == "generate" else "adapter"
    assert written == f"written: {tmp_path}/round-1/{wrote}"
    assert following == f"next: {follows}"


def test_the_shell_completes_commands() -> None:
    done = cli(
        _SELFINSTRUCT_COMPLETE="complete_bash", COMP_WORDS="selfinstruct statu", COMP_CWORD="1"
    )
    assert done.stdout.strip() == "status", done.stderr
