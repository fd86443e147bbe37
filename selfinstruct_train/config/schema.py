"""The JSON schema of config files, for editors."""

from __future__ import annotations

from selfinstruct_train.config.load import Config


def config_schema() -> dict[str, object]:
    """The schema of a config file, each setting with the docstring under its field.

    Editors follow it where a file names it: ``# yaml-language-server: $schema=schema.json``.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Config.model_json_schema(),
        "title": "Settings of a selfinstruct-train run",
    }
