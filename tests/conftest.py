"""The order of the suite."""

import pytest

LONGEST = ("recipes", "training", "report", "generation")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: at the end they would leave all cores but one idle."""
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    folder = item.path.parent.name
    return LONGEST.index(folder) if folder in LONGEST else len(LONGEST)
