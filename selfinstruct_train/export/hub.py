"""Sending an export to the Hugging Face Hub, with a token that only the environment holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled

from selfinstruct_train.errors import EngineError

TOKEN_VARIABLE = "HF_TOKEN"


def check_push(repo: str) -> None:
    """See, before anything is written, that a push can begin.

    Raises:
        EngineError: there is no token, or the repository cannot have this name.
    """
    _token()
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise EngineError(
            f"--push-to-hub: '{repo}' is not the name of a repository; give USER/NAME"
        )


def push(folder: Path, repo: str, kind: Literal["dataset", "model"], public: bool = False) -> str:
    """Send a folder to a repository of the Hub, which is made if it is not there.

    Args:
        folder: the export, with its card.
        repo: ``USER/NAME``.
        kind: of repository.
        public: whether everybody may see a repository that is made.

    Returns:
        The address of the repository.

    Raises:
        EngineError: the Hub cannot be reached or refuses; the folder stays as it is.
    """
    api = HfApi(token=_token(), library_name="selfinstruct-train")
    try:
        made = api.create_repo(repo, repo_type=kind, private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id,
            folder_path=folder,
            repo_type=kind,
            commit_message="Export of selfinstruct-train",
        )
    except OfflineModeIsEnabled:
        raise EngineError(
            f"--push-to-hub: HF_HUB_OFFLINE is set; unset it, or send {folder} yourself: hf upload "
            f"{repo} {folder} --repo-type {kind}"
        ) from None
    except Exception as error:  # faults of hub and network come as a dozen unrelated classes
        detail = " ".join(str(error).split())[:300]
        raise EngineError(
            f"--push-to-hub: the Hub did not take {repo} ({type(error).__name__}: {detail}); see "
            f"that {TOKEN_VARIABLE} may write there and run the command again: {folder} is kept"
        ) from None
    return str(made)


def _token() -> str:
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        raise EngineError(
            f"--push-to-hub: there is no token; put one that may write into the environment "
            f"variable {TOKEN_VARIABLE}"
        )
    return token
