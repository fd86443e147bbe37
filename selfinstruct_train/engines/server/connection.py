"""The connection to a server: past the proxies for this machine, through them elsewhere."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit

import httpx2

from selfinstruct_train.errors import ConfigError

_PROXIES = tuple(
    name for lower in ("http_proxy", "https_proxy", "all_proxy") for name in (lower, lower.upper())
)
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


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
        return host == "localhost" or host.endswith(".localhost")
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    return address.is_loopback or address.is_unspecified


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
