"""What must be decided before torch is imported, in the one place where a program starts."""

from __future__ import annotations

import os
from collections.abc import MutableMapping


def prepare_environment(environment: MutableMapping[str, str] | None = None) -> None:
    """Set what libraries read from the environment, without overruling the user.

    Idle OpenMP threads that spin make two threads slower than one on a busy machine, so they sleep;
    nothing is reported to anyone; tokenizers' threads would only warn about forks. Keys and values
    in huge pages spare the faults of small ones: a tenth of the time of a small model.
    """
    target = os.environ if environment is None else environment
    target.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    target.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    target.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    target.setdefault("TOKENIZERS_PARALLELISM", "false")
    target.setdefault("TRANSFORMERS_VERBOSITY", "error")
