"""The connection to a server: past the proxies for this machine, through them elsewhere."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Coroutine, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from threading import Thread
from typing import Any
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

import httpx2

from selfinstruct_train.config import EngineConfig
from selfinstruct_train.errors import ConfigError

_PROXIES = tuple(
    name for lower in ("http_proxy", "https_proxy", "all_proxy") for name in (lower, lower.upper())
)
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_LONGEST_CLEAN_UP = 1.0
"""Seconds that open connections get to close."""


_NO_KEY = "none"
"""Servers on this machine take any key, and some insist on one."""


def key_of(config: EngineConfig) -> str:
    """The server's key from the environment; empty where there is none.

    Raises:
        ConfigError: it cannot be one.
    """
    key = os.environ.get(config.api_key_variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"environment variable {config.api_key_variable}: holds characters that no key has; "
            "set it again"
        )
    return key


def authorization(key: str) -> dict[str, str]:
    """The headers that show a key."""
    return {"Authorization": f"Bearer {key or _NO_KEY}"}


class Connector:
    """Makes clients for a server."""

    def __init__(self, base_url: str) -> None:
        """Read the environment; nothing is sent yet.

        Raises:
            ConfigError: a variable that says how to reach servers cannot be used.
        """
        host = urlsplit(base_url).hostname or ""
        # A proxy of the environment cannot reach a server on this machine.
        self._elsewhere = not is_this_machine(host)
        if self._elsewhere:
            _require_proxies(host)
        try:
            # Reading the certificates takes longer than a request: once is enough.
            self._certificates = httpx2.create_ssl_context(trust_env=self._elsewhere)
        except OSError as error:
            raise ConfigError(
                f"environment variable {' or '.join(_CERTIFICATES)}: no certificates can be read "
                f"there ({error.strerror or error}); correct it or unset it"
            ) from None

    def connect_and_wait(self, timeout_seconds: float) -> httpx2.Client:
        """A client for one call at a time."""
        return httpx2.Client(
            trust_env=self._elsewhere,
            verify=self._certificates,
            timeout=timeout_seconds,
            follow_redirects=True,
            headers={"Accept-Encoding": "identity"},
        )

    def connect(self) -> httpx2.AsyncClient:
        """A client with connections of its own."""
        return httpx2.AsyncClient(
            trust_env=self._elsewhere,
            verify=self._certificates,
            timeout=None,  # whole requests are bounded, not single reads
            follow_redirects=True,
            # A compressed reply could be far larger than what is received of it.
            headers={"Accept-Encoding": "identity"},
            limits=httpx2.Limits(max_connections=None),
        )


def is_this_machine(host: str) -> bool:
    """Whether a host name is this machine; servers print 0.0.0.0 where they listen everywhere."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f".{host.rstrip('.')}".endswith(".localhost")
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    return address.is_loopback or address.is_unspecified


def proxy_variable(base_url: str) -> str | None:
    """The variable of the environment that sends requests to a server through a proxy, if any."""
    parts = urlsplit(base_url)
    if is_this_machine(parts.hostname or "") or proxy_bypass(parts.netloc):
        return None
    names = (f"{parts.scheme}_proxy", "all_proxy")
    return next((n for low in names for n in (low, low.upper()) if os.environ.get(n)), None)


def _require_proxies(host: str) -> None:
    for name in _PROXIES:
        value = os.environ.get(name, "")
        if value and (reason := _unusable(value)) is not None:
            # The value is not repeated: it may hold a password.
            raise ConfigError(
                f"environment variable {name}: cannot be used as a proxy ({reason}); set it to an "
                f"address such as http://proxy.example:3128, or unset it to reach {host} directly"
            )


def _unusable(value: str) -> str | None:
    """Why a value cannot be a proxy; None where it can."""
    address = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(address)
        if not parts.hostname or parts.port == 0 or not address.isprintable() or " " in address:
            return "not an address"
        httpx2.AsyncClient(proxy=address, trust_env=False, verify=False)
    except ImportError:
        return "the package socksio, which SOCKS proxies need, is not installed"
    except (ValueError, httpx2.InvalidURL):
        return "not an address with http:// or https://"
    return None


@contextmanager
def background_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own: only there can a whole request be given up in time."""
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    def work() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(ended.wait())  # and then cancels what is left

    thread = Thread(target=work, name="completions", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(_LONGEST_CLEAN_UP)


def finish(work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> None:
    """Wait a little for some work of a loop."""
    wait([asyncio.run_coroutine_threadsafe(work, loop)], _LONGEST_CLEAN_UP)
