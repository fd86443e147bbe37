"""The whole loop beside a server of its own: start it, generate, stop it, train, evaluate.

python recipes/serve_and_generate.py --config configs/qwen2.5-1.5b-server.yaml [key.sub=value ...]
python recipes/serve_and_generate.py --serve "llama-server -m q.gguf --port {port}" --config ...

The server has the memory while the model writes, the training while it learns: each step is a
process of its own.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

from selfinstruct_train.cli.options import shipped_config
from selfinstruct_train.cli.program import guard

SERVE = "vllm serve {model} --served-model-name {name} --host {host} --port {port}"
PACKAGE = "selfinstruct_train.recipes"
LOOK_SECONDS = 0.2


def main(arguments: argparse.Namespace) -> None:
    """The steps of each round."""
    # Imported here, because torch must find the environment that guard() prepares.
    from selfinstruct_train.config import explaining_paths, load_config
    from selfinstruct_train.engines.server.serving import serve_command, serving
    from selfinstruct_train.errors import ConfigError
    from selfinstruct_train.models.source import model_source
    from selfinstruct_train.rounds.inputs import read_inputs
    from selfinstruct_train.run.decisions import is_last
    from selfinstruct_train.run.directory import RunDirectory

    file = shipped_config(arguments.config)
    config = load_config(file, arguments.overrides, arguments.output_dir)
    engine = config.generation.engine
    if engine.kind != "server" or engine.base_urls:
        raise ConfigError(
            f"{file}: this recipe starts one server, so set generation.engine.kind to server and "
            "its address as generation.engine.base_url"
        )
    # What the steps would object to is told before the server is started.
    with explaining_paths(file, config.model_dump(mode="json")):
        read_inputs(config)
    source, name = str(model_source(config.model)), config.model.name_or_path
    command = serve_command(arguments.serve, engine, source, name)
    run = RunDirectory(config.output_dir)
    # Beside the run, for a run begins in an empty folder.
    log = config.output_dir.with_name(f"{config.output_dir.name}.server.log")
    patience = arguments.ready_minutes * 60
    for number in range(config.rounds):
        rounds = f"rounds={number + 1}"
        if run.round(number).read_mark("instances") is None:
            with serving(command, engine, log, patience, say):
                take("generate", [sys.executable], arguments, rounds)
        for step in ("train", "evaluate"):
            take(step, shlex.split(arguments.launch), arguments, rounds)
        if is_last(run.round(number).decision):
            break


def take(step: str, launcher: list[str], arguments: argparse.Namespace, rounds: str) -> None:
    """One step in a process of its own, which is ended and waited for whatever happens here."""
    command = [*launcher, "-m", f"{PACKAGE}.{step}", "--config", str(arguments.config)]
    if arguments.output_dir is not None:
        command += ["--output-dir", str(arguments.output_dir)]
    with subprocess.Popen([*command, *arguments.overrides, rounds]) as process:
        try:
            # Whoever sleeps until the end sees a signal that arrived just before at the end.
            while (code := process.poll()) is None:
                time.sleep(LOOK_SECONDS)
        except BaseException:
            process.terminate()  # Ctrl-C has reached it already, SIGTERM has not
            raise
    if code:
        sys.exit(code if code > 0 else 128 - code)


def say(text: str) -> None:
    """Tell the user, beside what the steps print."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, help="YAML file with the settings")
    parser.add_argument("--output-dir", type=Path, help="run directory, instead of the config's")
    parser.add_argument("--serve", default=SERVE, help=f"command of the server (default: {SERVE})")
    parser.add_argument("--ready-minutes", type=float, default=20.0, help="longest start of it")
    parser.add_argument(
        "--launch",
        default=shlex.quote(sys.executable),
        help='what starts training and evaluation, such as "accelerate launch --multi_gpu"',
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change")
    given = parser.parse_args()
    guard(lambda: main(given))
