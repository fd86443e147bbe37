"""What must be decided before torch is imported, in the one place where a program starts."""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping


def prepare_environment(environment: MutableMapping[str, str] | None = None) -> None:
    """Set what libraries read from the environment, without overruling the user.

    Idle OpenMP threads that spin make two threads slower than one on a busy machine, so they sleep;
    nothing is reported to anyone; tokenizers' threads would only warn about forks. Keys and values
    in huge pages spare the faults of small ones: a tenth of the time of a small model. In a log
    file the libraries' progress bars would be one endless line.
    """
    target = os.environ if environment is None else environment
    target.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    target.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    target.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    target.setdefault("TOKENIZERS_PARALLELISM", "false")
    target.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.stderr.isatty():
        target.setdefault("TQDM_DISABLE", "1")
        target.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
