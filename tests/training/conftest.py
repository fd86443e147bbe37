from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from types import ModuleType

import pytest

from tests.helpers import small_models


@pytest.fixture(scope="session")
def small() -> ModuleType:
    """The module of small models."""
    return small_models
