"""The one reader of YAML: what it takes can be written, tokenized, and means what it looks like."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from selfinstruct_train.errors import ConfigError
from selfinstruct_train.text.characters import BYTE_ORDER_MARK, find_bad_character


class _Careful(yaml.constructor.SafeConstructor):
    """Refuses a key that is given twice and numbers that are not what they look like."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping, each key of which is given once."""
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and not key.tag.endswith(":merge"):
                if (line := lines.get(key.value)) is not None:
                    what = f"the key '{key.value}' is on line {line} already; keep one of them"
                    raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
                lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """A whole number: YAML 1.1 reads ``010`` as 8 and ``1:30`` as 90."""
        if re.match(r"[-+]?0[0-9]|.*:", node.value):
            what = f"'{node.value}' is another number than it looks; write it in plain digits"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark)
        return int(super().construct_yaml_int(node))

    yaml_constructors = {
        **yaml.SafeLoader.yaml_constructors,
        "tag:yaml.org,2002:int": construct_yaml_int,
    }


# Without libyaml a pack takes as long to read as all of a small report; nested too deeply, a text
# of others ends the process in it.
_Fast = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


class Loader(_Careful, yaml.SafeLoader):
    """Reads settings."""


class WordsLoader(Loader):
    """Reads ``yes``, ``no``, ``on`` and ``off`` as the words they are.

    Nothing in a pack is a truth value, and its lists of words hold these in some language.
    """

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":bool")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class OwnWordsLoader(_Careful, _Fast):  # type: ignore[misc, valid-type]
    """The same for files that ship with the package."""

    yaml_implicit_resolvers = WordsLoader.yaml_implicit_resolvers


def read_yaml(path: Path, loader: type[Loader | OwnWordsLoader] = Loader) -> Any:
    """Read a file of settings; byte order marks are left out.

    Raises:
        ConfigError: it cannot be read, is not UTF-8, or see `parse_yaml`.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8, for "
            "example with iconv"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    return parse_yaml(text.replace(BYTE_ORDER_MARK, ""), str(path), loader)


def parse_yaml(text: str, where: str, loader: type[Loader | OwnWordsLoader] = Loader) -> Any:
    """Read settings.

    Args:
        text: one document.
        where: it stands, for messages.
        loader: how to read it.

    Raises:
        ConfigError: it is not YAML, a key is given twice, or a text holds what is no character.
    """
    try:
        data = yaml.load(text, loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply; settings are two or three deep") from None
    except ValueError as error:  # a date that is none, a number of thousands of digits
        raise ConfigError(f"{where}: not YAML: {error}") from None
    if (bad := find_bad_character(data)) is not None:
        place = f"{where}: '{bad.where}'" if bad.where else where
        raise ConfigError(f"{place}: {bad.what}")
    return data
