from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_the_benchmark_of_size_goes_through_every_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import scale

    measured = scale.measure(150, tmp_path / "run")
    assert measured.instructions == 150
    assert measured.candidates > 150, "the pool found copies"
    assert measured.instances > 0
    assert [stage.name for stage in measured.stages] == [
        "instructions",
        "classification",
        "instances",
        "contamination",
        "training rows",
        "tokens",
        "report",
        "journal",
    ]
