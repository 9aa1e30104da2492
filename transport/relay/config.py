"""The settings of ``tidings relay``: a TOML file with the names that operators of Rust relays know.

    enable_relay = true
    http_bind_addr = "[::]:80"
    access = "everyone"                       # or one of the tables below

    enable_quic_addr_discovery = true

    [tls]
    https_bind_addr = "[::]:443"
    manual_cert_path = "relay.crt"
    manual_key_path = "relay.key"

    [limits.client.rx]
    bytes_per_second = 1_000_000
    max_burst_bytes = 4_000_000

``access`` may also be ``{allowlist = ["id", ...]}``, ``{denylist = ["id", ...]}``, ``{shared_token = ["token", ...]}``
or ``{http = {url = "https://...", bearer_token = "..."}}``. Without ``[tls]``, address discovery is at port 7842 of the
address that plain HTTP is at, and its clients cannot check whom they ask.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from ...errors import UsageError
from ..addr import IpAddr
from ..keys import EndpointId
from .access import Access, AllowList, DenyList, Everyone, HttpAccess, SharedToken
from .server import RateLimit

__all__ = ["BadConfig", "RelayConfig", "load"]

TOKEN_VARIABLE = "IROH_RELAY_ACCESS_TOKEN"  # noqa: S105 - where the token is, not the token
BEARER_VARIABLE = "IROH_RELAY_HTTP_BEARER_TOKEN"


class BadConfig(UsageError):
    """The file, or a value in it, cannot be used."""


class _Strict(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    pass


class Tls(_Strict):
    https_bind_addr: str = "[::]:443"
    quic_bind_addr: str = "[::]:7842"
    cert_mode: Literal["Manual", "Reloading"] = "Manual"
    cert_dir: str = "."
    manual_cert_path: str | None = None
    manual_key_path: str | None = None
    hostname: str | list[str] | None = None

    @property
    def certificate(self) -> Path:
        return Path(self.manual_cert_path or Path(self.cert_dir) / "default.crt")

    @property
    def key(self) -> Path:
        return Path(self.manual_key_path or Path(self.cert_dir) / "default.key")


class Rx(_Strict):
    bytes_per_second: int
    max_burst_bytes: int | None = None


class ClientLimits(_Strict):
    rx: Rx | None = None


class Limits(_Strict):
    client: ClientLimits = msgspec.field(default_factory=ClientLimits)


class Http(_Strict):
    url: str
    bearer_token: str | None = None


class AccessTable(_Strict):
    allowlist: list[str] | None = None
    denylist: list[str] | None = None
    shared_token: list[str] | None = None
    http: Http | None = None


class RelayConfig(_Strict):
    enable_relay: bool = True
    http_bind_addr: str = "[::]:80"
    tls: Tls | None = None
    limits: Limits = msgspec.field(default_factory=Limits)
    access: Literal["everyone"] | AccessTable = "everyone"
    enable_quic_addr_discovery: bool = False
    enable_metrics: bool = True
    metrics_bind_addr: str = "127.0.0.1:9090"

    def rate_limit(self) -> RateLimit | None:
        rx = self.limits.client.rx
        return None if rx is None else RateLimit(rx.bytes_per_second, rx.max_burst_bytes or rx.bytes_per_second)

    def admission(self) -> Access:
        """Raises BadConfig."""
        if isinstance(self.access, str):
            return Everyone()
        given = {
            name: value for name in self.access.__struct_fields__ if (value := getattr(self.access, name)) is not None
        }
        if len(given) != 1:
            raise BadConfig("access is one of everyone, allowlist, denylist, shared_token, http")
        match next(iter(given.items())):
            case "allowlist", ids:
                return AllowList(_ids(ids))
            case "denylist", ids:
                return DenyList(_ids(ids))
            case "shared_token", tokens:
                tokens = [*tokens, *filter(None, [os.environ.get(TOKEN_VARIABLE)])]
                if not all(tokens) or not tokens:
                    raise BadConfig(f"shared_token needs tokens that are not empty, here or in ${TOKEN_VARIABLE}")
                return SharedToken(tokens)
            case _, http:
                try:
                    return HttpAccess(http.url, http.bearer_token or os.environ.get(BEARER_VARIABLE))
                except ValueError as error:
                    raise BadConfig(str(error)) from error


def load(path: Path) -> RelayConfig:
    """Raises BadConfig, with the place in the file where it is wrong."""
    try:
        config = msgspec.convert(tomllib.loads(path.read_text()), RelayConfig)
    except OSError as error:
        raise BadConfig(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path} is not TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise BadConfig(f"{path}: {error}") from error
    return checked(config)


def checked(config: RelayConfig) -> RelayConfig:
    """Raises BadConfig where a value cannot be used; so nothing is found out when it is too late."""
    for text in (
        config.http_bind_addr,
        config.metrics_bind_addr,
        *([config.tls.https_bind_addr, config.tls.quic_bind_addr] if config.tls else []),
    ):
        try:
            IpAddr.parse(text)
        except UsageError as error:
            raise BadConfig(str(error)) from error
    limit = config.rate_limit()
    if limit is not None and min(limit.bytes_per_second, limit.max_burst_bytes) < 1:
        raise BadConfig("a rate limit needs bytes_per_second and max_burst_bytes of at least 1")
    config.admission()
    if not config.enable_relay:
        raise BadConfig("there is nothing to serve: enable_relay is false")
    return config


def _ids(texts: list[str]) -> frozenset[EndpointId]:
    try:
        return frozenset(map(EndpointId.parse, texts))
    except UsageError as error:
        raise BadConfig(str(error)) from error
