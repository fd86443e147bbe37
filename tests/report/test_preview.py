"""A preview shows what a run would ask and write, and leaves nothing behind."""

from pathlib import Path

import pytest

from selfinstruct_train.config import load_config
from selfinstruct_train.errors import ConfigError
from selfinstruct_train.report.preview import preview

ROOT = Path(__file__).parents[2]
SMALL = (
    "generation.instructions.max_tokens=120",
    "generation.instances.max_tokens=40",
    "generation.instances.demonstrations=2",
    "evaluation.suites=[microworld-dev]",
)


def test_a_preview_shows_prompts_completions_results_and_a_forecast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    lines = (ROOT / "data/microworld/seed_tasks.jsonl").read_text().splitlines()
    (tmp_path / "seeds.jsonl").write_text("\n".join(lines[:24]) + "\n")
    seeds = f"seeds.path={tmp_path / 'seeds.jsonl'}"
    config = load_config(ROOT / "configs/quickstart.yaml", (*SMALL, seeds))
    said = list(preview(config, 2))
    text = "\n".join(said)
    assert "=== r0-instructions-000000: " in text and "| 1. " in text and "\n--- wrote " in text
    assert "kept: r0-000000: " in text and "=== r0-instances-000000" in text
    rows = said[said.index("=== rows") + 1 : said.index("=== forecast")]
    assert rows and rows[1].startswith("  input:  ") and rows[2].startswith("  output: ")
    assert said[-2].startswith("2 instructions: ")
    assert said[-1].startswith("2 rounds of 400: about ")
    assert [path.name for path in tmp_path.iterdir()] == ["seeds.jsonl"]


def test_settings_by_which_nothing_is_written_are_named() -> None:
    config = load_config(
        ROOT / "configs/quickstart.yaml", ("training.mix={generated: 0}", "rounds=1")
    )
    with pytest.raises(ConfigError, match=r"training\.mix\.generated is 0"):
        next(preview(config, 2))
