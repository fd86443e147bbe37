"""The order of the suite."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs first: the longest files at the end would leave all cores but one idle."""
    items.sort(key=lambda item: "/recipes/" not in item.nodeid)
