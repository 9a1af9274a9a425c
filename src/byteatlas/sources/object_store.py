"""S3, Google Cloud Storage and Azure Blob Storage, with obstore."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import obstore
from obstore.exceptions import (
    BaseError,
    NotSupportedError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, GCSStore, S3Store

from byteatlas.errors import (
    MissingDependency,
    RangeIgnored,
    ShortRead,
    SourceDenied,
    SourceError,
    SourceMissing,
)
from byteatlas.model import Source
from byteatlas.sources.options import azure_config, gcs_config, s3_config
from byteatlas.sources.remote import Fetch, Policy
from byteatlas.sources.urls import redact
from byteatlas.version import __version__

__all__ = ["SCHEMES", "ObjectStoreTransport"]

_S3 = frozenset({"s3", "s3a"})
_GCS = frozenset({"gs", "gcs"})
_AZURE = frozenset({"az", "abfs", "abfss"})
SCHEMES = _S3 | _GCS | _AZURE

_CLIENT_OPTIONS = frozenset({"allow_http", "allow_invalid_certificates"})


class ObjectStoreTransport:
    """One object in a bucket. Retries are obstore's own."""

    def __init__(self, url: str, storage_options: Mapping[str, Any], policy: Policy) -> None:
        self._url = url
        scheme, _, rest = url.partition("://")
        bucket, _, self._key = rest.partition("/")
        if not bucket or not self._key:
            raise SourceError("the URL does not name an object in a bucket", url=url)
        self._store = _store(scheme.lower(), bucket, storage_options, policy)

    async def get(self, fetch: Fetch) -> memoryview:
        """Fetch one range; obstore compares Content-Range with it."""
        fetch.tries = 1
        offset, length = fetch.offset, fetch.length
        asked: Any = {"offset": offset} if length is None else (offset, offset + length)
        try:
            answer = await obstore.get_async(self._store, self._key, options={"range": asked})
            fetch.meet(self._identity(answer.meta))
            first, end = answer.range
            size = answer.meta["size"]
            wanted = size if length is None else offset + length
            if fetch.may_end:
                wanted = min(wanted, size)
            if (first, end) != (offset, wanted):
                raise ShortRead(
                    f"asked for bytes {offset}-{wanted - 1}, {first}-{end - 1} came",
                    length=length,
                )
            data = memoryview(await answer.bytes_async())
        except (BaseError, OSError) as error:
            if isinstance(error, SourceError):
                raise
            if fetch.may_end and offset == 0 and _is_empty(error):
                fetch.meet(Source(self._url, 0))
                return memoryview(b"")
            raise _translated(error) from None
        if len(data) != end - first:
            raise ShortRead(f"{len(data)} of {end - first} bytes came", length=length)
        return data

    async def head(self) -> Source:
        """Return how the object looks now."""
        try:
            return self._identity(await obstore.head_async(self._store, self._key))
        except (BaseError, OSError) as error:
            raise _translated(error) from None

    def _identity(self, meta: Mapping[str, Any]) -> Source:
        modified = format_datetime(meta["last_modified"], usegmt=True)
        return Source(self._url, meta["size"], meta["e_tag"], modified)


def _store(
    scheme: str, bucket: str, storage_options: Mapping[str, Any], policy: Policy
) -> S3Store | GCSStore | AzureStore:
    if scheme in _S3:
        config = s3_config(storage_options)
    elif scheme in _GCS:
        config = gcs_config(storage_options)
    else:
        config = azure_config(storage_options)
        bucket, _, host = bucket.partition("@")  # abfss://container@account.dfs.core.windows.net
        if host:
            config.setdefault("account_name", host.partition(".")[0])
    client: dict[str, Any] = {name: config.pop(name) for name in _CLIENT_OPTIONS if name in config}
    client |= {
        "connect_timeout": timedelta(seconds=policy.idle_s),
        "user_agent": f"byteatlas/{__version__}",
    }
    client["timeout"] = timedelta(seconds=3 * policy.idle_s)
    shared: dict[str, Any] = {  # Any: typed by obstore as dictionaries of literal keys
        "config": config,
        "client_options": client,
        "retry_config": {
            "max_retries": policy.tries - 1,
            "retry_timeout": timedelta(seconds=policy.patience_s),
            "backoff": {
                "init_backoff": timedelta(seconds=0.1),
                "max_backoff": timedelta(seconds=5),
                "base": 2,
            },
        },
    }
    if scheme in _S3:
        if profile := config.pop("profile", None):
            shared["credential_provider"] = _profile(profile)
        return S3Store(bucket, **shared)
    if scheme in _GCS:
        return GCSStore(bucket, **shared)
    return AzureStore(bucket, **shared)


def _profile(name: str) -> Any:
    try:
        from boto3 import (  # type: ignore[import-not-found]  # noqa: PLC0415  # optional
            Session,
        )
        from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415  # optional
    except ImportError as error:
        raise MissingDependency(
            "storage option 'profile' needs boto3", hint="pip install boto3"
        ) from error
    return Boto3CredentialProvider(Session(profile_name=name))


def _is_empty(error: Exception) -> bool:
    return "416" in str(error)


def _translated(error: Exception) -> SourceError:
    """Return our error for one of obstore's, with the first line of its text."""
    text = redact(re.split(r"\s*Debug source", str(error))[0])
    text = " ".join(text.split())[:300]
    if isinstance(error, FileNotFoundError):
        return SourceMissing("no such object", hint="check the URL")
    if isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError):
        return SourceDenied(text, hint="check the credentials, or pass anon=True for public data")
    if isinstance(error, NotSupportedError) or "non-partial" in text or ", got " in text:
        return RangeIgnored(text)
    if "416" in text:
        return ShortRead(text)
    if "301" in text or "redirect" in text.lower():
        return SourceError(text, hint="name the bucket's region: client_kwargs={'region_name': …}")
    return SourceError(text)
