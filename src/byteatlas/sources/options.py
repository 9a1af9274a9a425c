"""Storage options in fsspec's words, translated for the clients used here.

Every option is either translated, or known to be about fsspec's own caches and without effect on
the bytes, or refused. None is dropped in silence.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlencode

from byteatlas.errors import Unsupported

__all__ = ["HttpOptions", "azure_config", "gcs_config", "http_options", "s3_config"]

Config: TypeAlias = dict[str, Any]  # Any: the values are the client's own
Translate: TypeAlias = Callable[[Any], Config]

# About fsspec's file objects, caches and event loops, which are not used for these schemes.
_WITHOUT_EFFECT = frozenset(
    {
        "asynchronous",
        "block_size",
        "cache_options",
        "cache_regions",
        "cache_type",
        "default_block_size",
        "default_cache_type",
        "default_fill_cache",
        "fill_cache",
        "listings_expiry_time",
        "loop",
        "max_concurrency",
        "max_paths",
        "same_scheme",
        "simple_links",
        "size_policy",
        "skip_instance_cache",
        "use_listings_cache",
        "use_ssl",
    }
)


def _translate(
    scheme: str, given: Mapping[str, Any], table: Mapping[str, Translate], prefix: str = ""
) -> Config:
    config: Config = {}
    for name, value in given.items():
        if name in table:
            config |= table[name](value)
        elif prefix or name not in _WITHOUT_EFFECT:
            close = get_close_matches(name, table, n=1)
            raise Unsupported(
                f"storage option {prefix + name!r} is not known for {scheme}",
                hint=f"did you mean {prefix + close[0]!r}?"
                if close
                else "known are " + ", ".join(sorted(prefix + known for known in table)),
            )
    return config


def _as(name: str) -> Translate:
    return lambda value: {} if value is None else {name: value}


def _flag(name: str) -> Translate:
    return lambda value: {name: True} if value else {}


def _nested(scheme: str, outer: str, table: Mapping[str, Translate]) -> Translate:
    return lambda value: _translate(scheme, value or {}, table, f"{outer}.")


# --- HTTP ---


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How to talk to a web server. Two sources with equal options share connections."""

    headers: tuple[tuple[str, str], ...] = ()
    """Sent to the URL's own origin and to no other."""
    trust_env: bool = False
    """Take proxies from the environment and logins from ``~/.netrc``."""
    proxy: str | None = None
    ssl: Any = True
    """As aiohttp takes it: False to check nothing, an ssl.SSLContext, a Fingerprint."""
    timeout: Any = None
    """An aiohttp.ClientTimeout in place of the one that `Policy` gives."""
    params: str = ""
    """Added to the query string of the URL, and of no other that a redirect names."""
    allow_full_download: int = 0
    """A server without ranges may send files of at most so many bytes whole."""

    def __repr__(self) -> str:  # headers may hold secrets
        return f"HttpOptions(headers={[name for name, _ in self.headers]})"

    def with_login(self, user_info: str) -> HttpOptions:
        """Return the options with a login ("user:password"), unless they have another."""
        if "authorization" in (name.lower() for name, _ in self.headers):
            return self
        return replace(self, headers=(*self.headers, *_login(user_info)["headers"]))


def http_options(storage_options: Mapping[str, Any]) -> HttpOptions:
    """Translate options of fsspec's HTTPFileSystem.

    Raises
    ------
    Unsupported
        An option is not known.
    """
    plain: dict[str, Translate] = {
        "headers": lambda value: {"headers": tuple(map(tuple, dict(value or {}).items()))},
        "auth": _login,
        "cookies": _cookies,
        "ssl": _as("ssl"),
        "verify_ssl": _as("ssl"),
        "proxy": _as("proxy"),
        "timeout": _timeout,
        "trust_env": _flag("trust_env"),
        "params": _params,
        "allow_full_download": lambda value: {"allow_full_download": int(value or 0)},
        "encoded": lambda _: {},  # what is encoded is kept so anyway
    }
    headers: list[tuple[str, str]] = []
    config: Config = {}
    nested = storage_options.get("client_kwargs") or {}
    outer = {name: value for name, value in storage_options.items() if name != "client_kwargs"}
    for given, prefix in ((nested, "client_kwargs."), (outer, "")):
        for name, value in given.items():
            part = _translate("http", {name: value}, plain, prefix)
            headers += part.pop("headers", ())
            config |= part
    return HttpOptions(headers=tuple(dict(headers).items()), **config)


def _login(value: Any) -> Config:
    if not value:
        return {}
    if hasattr(value, "encode") and not isinstance(value, str):  # aiohttp.BasicAuth
        return {"headers": (("Authorization", value.encode()),)}
    pair = value if isinstance(value, str) else ":".join(value)
    return {"headers": (("Authorization", "Basic " + b64encode(pair.encode()).decode()),)}


def _cookies(value: Any) -> Config:
    text = "; ".join(f"{name}={content}" for name, content in dict(value or {}).items())
    return {"headers": (("Cookie", text),)} if text else {}


def _params(value: Any) -> Config:
    text = value.lstrip("?") if isinstance(value, str) else urlencode(dict(value or {}))
    return {"params": text}


def _timeout(value: Any) -> Config:
    if value is None or not isinstance(value, int | float):
        return _as("timeout")(value)
    import aiohttp  # noqa: PLC0415  # not needed before there is a timeout

    return {"timeout": aiohttp.ClientTimeout(total=value)}


# --- object stores: the configuration keys are obstore's ---


def s3_config(storage_options: Mapping[str, Any]) -> Config:
    """Translate options of s3fs's S3FileSystem to those of obstore's S3Store."""
    client = {
        "endpoint_url": _endpoint,
        "region_name": _as("region"),
        "aws_access_key_id": _as("access_key_id"),
        "aws_secret_access_key": _as("secret_access_key"),
        "aws_session_token": _as("session_token"),
        "use_ssl": lambda _: {},
        "verify": _verify,
    }
    addressing = {
        "addressing_style": lambda style: {"virtual_hosted_style_request": style == "virtual"}
    }
    config = {
        "s3": _nested("s3", "config_kwargs.s3", addressing),
        "signature_version": _signature,
        "max_pool_connections": lambda _: {},
    }
    return _translate(
        "s3",
        storage_options,
        {
            "key": _as("access_key_id"),
            "username": _as("access_key_id"),
            "secret": _as("secret_access_key"),
            "password": _as("secret_access_key"),
            "token": _as("session_token"),
            "anon": _flag("skip_signature"),
            "endpoint_url": _endpoint,
            "region": _as("region"),
            "requester_pays": _flag("request_payer"),
            "profile": _as("profile"),
            "client_kwargs": _nested("s3", "client_kwargs", client),
            "config_kwargs": _nested("s3", "config_kwargs", config),
        },
    )


def _endpoint(value: str | None) -> Config:
    if not value:
        return {}
    plain = {"allow_http": True} if value.startswith("http://") else {}
    return {"endpoint": value.rstrip("/"), **plain}


def _verify(value: Any) -> Config:
    if isinstance(value, str):
        raise Unsupported("storage option 'client_kwargs.verify' takes no file here")
    return {} if value or value is None else {"allow_invalid_certificates": True}


def _signature(value: Any) -> Config:
    # botocore.UNSIGNED is an object without a name of its own
    return {} if value in (None, "s3v4") else {"skip_signature": True}


def gcs_config(storage_options: Mapping[str, Any]) -> Config:
    """Translate options of gcsfs's GCSFileSystem to those of obstore's GCSStore."""
    return _translate(
        "gs",
        storage_options,
        {
            "token": _gcs_token,
            "anon": _flag("skip_signature"),
            "endpoint_url": _gcs_endpoint,
            "project": lambda _: {},  # only listing buckets needs it
            "access": lambda _: {},  # nothing is written
        },
    )


def _gcs_token(value: Any) -> Config:
    if value in (None, "google_default", "cloud"):
        return {}
    if value == "anon":
        return {"skip_signature": True}
    if isinstance(value, Mapping):
        return {"service_account_key": json.dumps(dict(value))}
    if isinstance(value, str) and Path(value).is_file():
        return {"application_credentials": value}
    raise Unsupported(
        "storage option 'token' is neither 'anon', 'google_default', a dict nor a file",
        hint="give the path of a JSON file with credentials",
    )


def _gcs_endpoint(value: str | None) -> Config:
    config = _endpoint(value)
    return {"base_url" if name == "endpoint" else name: item for name, item in config.items()}


def azure_config(storage_options: Mapping[str, Any]) -> Config:
    """Translate options of adlfs's AzureBlobFileSystem to those of obstore's AzureStore."""
    config = _translate(
        "az",
        storage_options,
        {
            "account_name": _as("account_name"),
            "account_key": _as("account_key"),
            "sas_token": lambda value: _as("sas_key")(value and value.lstrip("?")),
            "credential": _azure_credential,
            "connection_string": _connection_string,
            "tenant_id": _as("tenant_id"),
            "client_id": _as("client_id"),
            "client_secret": _as("client_secret"),
            "anon": _flag("skip_signature"),
            "account_host": lambda value: _endpoint(value and f"https://{value}"),
        },
    )
    if storage_options.get("anon") is None and not config.keys() - {"account_name", "endpoint"}:
        # adlfs reads public data of a named account without being told to
        config["skip_signature"] = True
    return config


def _azure_credential(value: Any) -> Config:
    if value is None:
        return {}
    if not isinstance(value, str):
        raise Unsupported("storage option 'credential' must be a key or a signature, as text")
    return {"sas_key": value.lstrip("?")} if "sig=" in value else {"account_key": value}


def _connection_string(value: str | None) -> Config:
    parts = dict(part.partition("=")[::2] for part in (value or "").split(";") if part)
    known = {
        "AccountName": "account_name",
        "AccountKey": "account_key",
        "SharedAccessSignature": "sas_key",
        "BlobEndpoint": "endpoint",
    }
    config: Config = {known[name]: text for name, text in parts.items() if name in known}
    if config.get("endpoint", "").startswith("http://"):
        config["allow_http"] = True
    return config
