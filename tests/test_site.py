"""The documentation as a site: every page is in its menu, every link and anchor leads somewhere."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
_FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")


class _SiteLoader(yaml.SafeLoader):
    """Reads names of Python functions as text."""


_SiteLoader.add_multi_constructor(
    "tag:yaml.org,2002:python/name:", lambda loader, suffix, node: suffix
)


def menu(entry: object) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [page for part in parts for page in menu(part)]  # type: ignore[union-attr]


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as the site and GitHub make them."""
    text = _FENCE.sub("", page.read_text("utf-8"))
    titles = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    bare = (re.sub(r"[^\w\s-]", "", title.lower()).strip() for title in titles)
    return {re.sub(r"\s+", "-", title) for title in bare}


def test_every_page_stands_once_in_the_menu_and_the_first_is_home() -> None:
    site = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), _SiteLoader)
    listed = menu(site["nav"])
    assert listed[0] == "index.md"
    assert sorted(listed) == [page.name for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_within_the_pages_leads_to_a_heading_that_is_there(page: Path) -> None:
    for target in _LINK.findall(_FENCE.sub("", page.read_text("utf-8"))):
        file, mark, anchor = target.partition("#")
        if "://" in target:
            continue
        there = (page.parent / file) if file else page
        assert there.exists(), target
        if mark and there.suffix == ".md":
            assert anchor in anchors(there), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_page_has_one_title(page: Path) -> None:
    text = _FENCE.sub("", page.read_text("utf-8"))
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1
