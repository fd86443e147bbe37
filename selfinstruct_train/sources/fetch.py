"""The file that a data set is on this machine: found, or brought here and held against its hash."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from selfinstruct_train.errors import DataError
from selfinstruct_train.sources.registry import SOURCES, Source, SourceFile, find_source

_TIMEOUT_SECONDS = 30.0
_PIECE = 1 << 16


def cache_folder() -> Path:
    """Where pulled files are kept: ``$SELFINSTRUCT_CACHE``, else ``~/.cache/selfinstruct``."""
    named = os.environ.get("SELFINSTRUCT_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "selfinstruct"


def resolve(name_or_path: str, cache: Path | None = None) -> Path:
    """The file that a name or a path stands for; a file of that path comes first.

    Args:
        name_or_path: a path, or a name of `SOURCES` that is pulled already or the project's own.
        cache: where pulled files are kept, if not in `cache_folder`.

    Returns:
        The file, or the folder where the data set is several files.

    Raises:
        DataError: there is neither such a file nor such a name, or the data set is not pulled yet.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    if path.suffix in (".jsonl", ".json", ".gz") or len(path.parts) > 1:
        raise DataError(
            f"{path}: no such file; check the path, or use a name of 'selfinstruct data list'"
        )
    source = find_source(name_or_path)
    if source.own_file is not None:
        return _own_path(source)
    here = _pulled(source, cache or cache_folder())
    if not here:
        raise DataError(
            f"'{source.name}' is not on this machine yet; run 'selfinstruct data pull "
            f"{source.name}', or 'selfinstruct data pull {source.name} --from PATH' for a copy "
            "that you have"
        )
    return here[0].parent if source.is_folder else here[0]


def find_pulled(name: str, cache: Path | None = None) -> Path | None:
    """The file or folder of a data set that was pulled; None where nothing of it is here.

    Raises:
        DataError: no data set has this name.
    """
    source = find_source(name)
    here = _pulled(source, cache or cache_folder())
    if not here:
        return None
    return here[0].parent if source.is_folder else here[0]


def pull(name: str, source: str | None = None, cache: Path | None = None) -> Path:
    """Fetch a data set once, check it and keep it.

    Args:
        name: a name of `SOURCES`.
        source: a local file or folder, or an ``http(s)`` address, to take it from instead. Of a
            data set of several files, a local folder may hold some only.
        cache: where to keep it, if not in `cache_folder`.

    Returns:
        The file, or the folder where the data set is several files.

    Raises:
        DataError: the name is unknown, the place cannot be reached, or what came is not the file.
    """
    return pull_source(find_source(name), source, cache)


def pull_source(source: Source, origin: str | None = None, cache: Path | None = None) -> Path:
    """`pull` for a data set that is given itself."""
    if source.own_file is not None:
        return _own_path(source)
    folder = (cache or cache_folder()) / source.name
    files = source.files
    if origin is not None and "://" not in origin and Path(origin).is_dir():
        files = tuple(file for file in files if (Path(origin) / file.name).is_file())
        if not files:
            wanted = ", ".join(file.name for file in source.files)
            raise DataError(f"{origin}: the folder holds no file of '{source.name}' ({wanted})")
    elif origin is not None and "://" not in origin and len(files) > 1:
        raise DataError(
            f"{origin}: '{source.name}' is {len(files)} files; name a folder that holds them"
        )
    for file in files:
        _fetch(source, file, origin, folder / file.name)
    return folder if source.is_folder else folder / files[0].name


def identify(path: Path) -> Source | None:
    """The data set that a file is, wherever it lies; None if it is none of them."""
    for source in SOURCES:
        own = _find_own(source)
        if own is not None and own.samefile(path):
            return source
    digest = _sha256(path)
    for source in SOURCES:
        if digest in {file.sha256 for file in source.files} and not source.is_folder:
            return source
    return None


def describe_sources(cache: Path | None = None) -> list[str]:
    """A line for each data set: name, kind, whether it is here, and where it comes from."""
    lines = []
    for source in SOURCES:
        if source.own_file is not None:
            state = "here" if _find_own(source) else "not here"
        else:
            here, total = len(_pulled(source, cache or cache_folder())), len(source.files)
            state = "not pulled" if not here else "here" if here == total else f"{here} of {total}"
        lines.append(f"{source.name:<26} {source.kind:<12} {state:<11} {source.note}")
    return lines


def find_own(path: str) -> Path | None:
    """A file or folder that ships with the project, in a clone or in the installed package.

    Args:
        path: relative to the repository root, such as ``data/microworld/prompts``.
    """
    # In a clone ``selfinstruct_train/data`` is a link, which not every checkout can make.
    package = Path(__file__).parents[1]
    found = (root / path for root in (package, package.parent))
    return next((place for place in found if place.exists()), None)


def _own_path(source: Source) -> Path:
    found = _find_own(source)
    if found is None:
        raise DataError(
            f"'{source.name}': the installed package lacks {source.own_file}; install it again, or "
            "give the path of the file"
        )
    return found


def _find_own(source: Source) -> Path | None:
    return find_own(source.own_file) if source.own_file is not None else None


def _pulled(source: Source, cache: Path) -> list[Path]:
    paths = (cache / source.name / file.name for file in source.files)
    return [path for path in paths if path.is_file()]


def _fetch(source: Source, file: SourceFile, origin: str | None, target: Path) -> None:
    if origin is None and target.is_file() and file.sha256 in (None, _sha256(target)):
        return
    place = _place(source, file, origin)
    if "://" in place:
        fix = f"pass a local file: selfinstruct data pull {source.name} --from PATH"
        _keep(target, file, place, fix, lambda out: _download(place, out, fix))
    else:
        fix = "pass the official file, or use this one by its path instead of by the name"
        _keep(target, file, place, fix, lambda out: _copy(Path(place), out))


def _place(source: Source, file: SourceFile, origin: str | None) -> str:
    if origin is None:
        return file.url
    if "://" in origin:
        return f"{origin.rstrip('/')}/{file.name}" if source.is_folder else origin
    path = Path(origin)
    return str(path / file.name if path.is_dir() else path)


def _keep(
    target: Path, file: SourceFile, place: str, fix: str, write: Callable[[IO[bytes]], None]
) -> None:
    """Write beside the target, check the hash, then put it in place: never a half file."""
    scratch: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=target.parent, prefix=target.name, suffix=".partial", delete=False
        ) as out:
            scratch = Path(out.name)
            write(out.file)
        digest = _sha256(scratch)
        if file.sha256 is not None and digest != file.sha256:
            raise DataError(
                f"{place}: is not the file that was asked for (sha256 {digest}, expected "
                f"{file.sha256}); {fix}"
            )
        scratch.replace(target)
    except OSError as error:
        raise DataError(
            f"{target.parent}: cannot be written ({error.strerror}); name another cache folder "
            "in SELFINSTRUCT_CACHE"
        ) from None
    finally:
        if scratch is not None:
            scratch.unlink(missing_ok=True)


def _download(url: str, out: IO[bytes], fix: str) -> None:
    if not url.startswith(("http://", "https://")):
        raise DataError(f"{url}: only http and https addresses are fetched; {fix}")
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
            promised, received = response.headers.get("Content-Length"), 0
            for piece in _pieces(response.read):
                received += len(piece)
                out.write(piece)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(f"{url}: cannot be fetched ({error}); {fix}") from None
    # A reader of pieces is not told that the connection broke before the end.
    if promised is not None and received != int(promised):
        raise DataError(f"{url}: broke off after {received} of {promised} bytes; {fix}")


def _copy(path: Path, out: IO[bytes]) -> None:
    try:
        with path.open("rb") as file:
            shutil.copyfileobj(file, out)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for piece in _pieces(file.read):
                digest.update(piece)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()


def _pieces(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while piece := read(_PIECE):
        yield piece
