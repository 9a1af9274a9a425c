"""S3, Google Cloud Storage and Azure Blob Storage, with obstore.

obstore signs and sends; when to try again is decided here, as for web servers, for a host's
patience is shared by all its sources.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any, TypeAlias

import obstore
from obstore.exceptions import (
    BaseError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, GCSStore, S3Store

from byteatlas.errors import (
    MissingDependency,
    RangeIgnored,
    ShortRead,
    SourceChanged,
    SourceDenied,
    SourceError,
    SourceMissing,
)
from byteatlas.model import Source
from byteatlas.sources import loop
from byteatlas.sources.credentials import Options, Renewable
from byteatlas.sources.fetch import Fetch, given_up
from byteatlas.sources.hosts import Host
from byteatlas.sources.http_answers import conditions_for
from byteatlas.sources.line import LARGE, Line
from byteatlas.sources.options import azure_config, gcs_config, s3_config
from byteatlas.sources.remote import Policy
from byteatlas.sources.urls import redact
from byteatlas.version import __version__

__all__ = ["SCHEMES", "ObjectStoreTransport"]

Store: TypeAlias = S3Store | GCSStore | AzureStore

_S3 = frozenset({"s3", "s3a"})
_GCS = frozenset({"gs", "gcs"})
_AZURE = frozenset({"az", "abfs", "abfss"})
SCHEMES = _S3 | _GCS | _AZURE

_CLIENT_OPTIONS = frozenset({"allow_http", "allow_invalid_certificates"})
_BUCKET = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._-]*(@[A-Za-z0-9.-]+)?$")
_STATUS = re.compile(r"status code: (\d{3})")
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, *range(506, 600)})
_ENDPOINTS = ("endpoint", "base_url", "account_name")
_NO_CONDITIONS = frozenset({400, 501})
_PART = 256 * 2**10
"""A body that breaks off is resumed after the last whole part of it."""


class ObjectStoreTransport:
    """One object in a bucket."""

    def __init__(self, url: str, storage_options: Options, policy: Policy) -> None:
        self._url = url
        scheme, _, rest = url.partition("://")
        self._scheme = scheme.lower()
        self._bucket, _, self._key = rest.partition("/")
        if not self._bucket or not self._key:
            raise SourceError("the URL does not name an object in a bucket", url=url)
        if not _BUCKET.match(self._bucket):  # it becomes part of a host's name
            raise SourceError("the URL does not name an object in a bucket", url=url)
        self._policy = policy
        self._renewable = storage_options if isinstance(storage_options, Renewable) else None
        self._given: Mapping[str, Any] | None = None  # Any: the caller's options
        self._store: Store | None = None
        self._endpoint: tuple[str, ...] = ()
        if isinstance(storage_options, Mapping):
            self._use(storage_options)

    def _use(self, given: Mapping[str, Any]) -> None:
        self._store = _store(self._scheme, self._bucket, given, self._policy)
        config: Mapping[str, Any] = self._store.config
        self._endpoint = tuple(str(config.get(name)) for name in _ENDPOINTS)
        self._given = given

    async def _ready(self) -> Store:
        if self._renewable is not None and self._given is None:
            self._use(await asyncio.to_thread(self._renewable.current))
        assert self._store is not None
        return self._store

    @property
    def _host_key(self) -> tuple[object, ...]:
        return ("host", self._scheme, self._bucket, self._endpoint)

    @property
    def line(self) -> Line | None:
        """What answers of its bucket have shown of the way there."""
        host: Host | None = loop.peek(self._host_key)
        return None if host is None else host.line

    async def get(self, fetch: Fetch) -> None:
        """Fetch one range, trying again as `Policy` allows; obstore compares Content-Range."""
        await self._ready()
        host = loop.shared(self._host_key, Host)
        patience = self._policy.patience
        began = time.monotonic()
        failures, had = 0, 0
        while True:
            turn = await host.turn()
            if turn is None:
                raise given_up(fetch, host.problem, time.monotonic() - began)
            fetch.tries += 1
            try:
                await self._receive(fetch, host)
            except (BaseError, OSError) as error:
                seconds = time.monotonic() - began
                if isinstance(error, SourceError) or not _may_pass(error):
                    host.succeeded()  # it answered
                    if await self._is_renewed(fetch, error):
                        continue
                    raise _translated(error) from None
                problem, have = _first_words(error), fetch.have
                if have > had:  # who gets on may be resumed again and again
                    failures, began = 0, time.monotonic()
                    host.succeeded()
                failures, had = failures + 1, have
                is_out = host.failed(turn, problem, None, patience)
                if is_out or failures >= patience.tries or seconds > patience.total_s:
                    raise given_up(fetch, problem, seconds, type(_translated(error))) from None
            else:
                host.succeeded()
                if self._renewable is not None and self._given is not None:
                    self._renewable.worked(self._given)
                return
            finally:
                host.end(turn)
            await asyncio.sleep(patience.pause(failures))

    async def _receive(self, fetch: Fetch, host: Host) -> None:
        """Send one request for what is still missing, and put what arrives in its place."""
        have = fetch.have
        offset = fetch.offset + have
        length = None if fetch.length is None else fetch.length - have
        asked_at = time.monotonic()
        try:
            answer = await self._ask_for(fetch, offset, length, host)
            host.line.first_byte(time.monotonic() - asked_at)
        except (BaseError, OSError) as error:
            if fetch.may_end and offset == 0 and _status(error) == 416:
                fetch.meet(Source(self._url, 0))
                return
            raise
        fetch.known = fetch.meet(self._identity(answer.meta))
        first, end = answer.range
        size = answer.meta["size"]
        wanted = size if length is None else offset + length
        if fetch.may_end:
            wanted = min(wanted, size)
        if (first, end) != (offset, wanted):
            raise ShortRead(
                f"asked for bytes {offset}-{wanted - 1}, {first}-{end - 1} came", length=length
            )
        fetch.length, fetch.may_end = have + end - first, False
        await fetch.make_room()
        left = end - first
        line = host.line if left >= LARGE else Line()
        line.begin(asked_at)
        try:
            async for part in answer.stream(min_chunk_size=_PART):
                left -= len(part)
                if left < 0:
                    break
                fetch.take(part)  # what came before a failure is kept
                line.came(len(part))
        finally:
            line.end()
        if left:
            raise ShortRead(f"{end - first - left} of {end - first} bytes came", length=length)

    async def _ask_for(
        self, fetch: Fetch, offset: int, length: int | None, host: Host
    ) -> obstore.GetResult:
        """Send one request, for the object that is known and no other."""
        store = await self._ready()
        plain: obstore.GetOptions = {"range": {"offset": offset}}
        if length is not None:
            plain = {"range": (offset, offset + length)}
        conditions = _conditions(fetch.known) if host.takes_conditions else {}
        try:
            return await obstore.get_async(store, self._key, options={**plain, **conditions})
        except (BaseError, OSError) as error:
            is_failed = isinstance(error, PreconditionError)
            if not conditions or not (is_failed or _status(error) in _NO_CONDITIONS):
                raise
        fetch.tries += 1
        known = fetch.known
        if is_failed:
            # What it is now decides, for not every service understands conditions.
            seen = await self.head()
            fetch.known = fetch.meet(seen)
            if known.etag != seen.etag:
                raise _changed(known, seen)
        answer = await obstore.get_async(store, self._key, options=plain)
        host.takes_conditions = False
        return answer

    async def _is_renewed(self, fetch: Fetch, error: Exception) -> bool:
        """Get other credentials where these were refused, once for each range."""
        is_refused = isinstance(error, PermissionDeniedError | UnauthenticatedError)
        if not is_refused or self._renewable is None or self._given is None or fetch.is_renewed:
            return False
        fetch.is_renewed = True
        given = await asyncio.to_thread(self._renewable.renewed, self._given)
        if given is None:
            return False
        if given is not self._given:
            self._use(given)
        return True

    async def head(self) -> Source:
        """Return how the object looks now."""
        try:
            return self._identity(await obstore.head_async(await self._ready(), self._key))
        except (BaseError, OSError) as error:
            raise _translated(error) from None

    def _identity(self, meta: Mapping[str, Any]) -> Source:
        modified = format_datetime(meta["last_modified"], usegmt=True)
        return Source(self._url, meta["size"], meta["e_tag"], modified)


def _changed(recorded: Source, seen: Source) -> SourceChanged:
    error = SourceChanged("the source changed: it fails the condition", hint="scan it again")
    error.recorded, error.seen = recorded, seen
    return error


def _conditions(known: Source) -> obstore.GetOptions:
    """Return the options of a request that succeeds only for the object that is known."""
    headers = conditions_for(known)
    if "If-Match" in headers:
        return {"if_match": headers["If-Match"]}
    if "If-Unmodified-Since" in headers:
        with suppress(ValueError):  # no such day or hour: the answer is compared with it as text
            return {"if_unmodified_since": parsedate_to_datetime(headers["If-Unmodified-Since"])}
    return {}


def _store(scheme: str, bucket: str, storage_options: Mapping[str, Any], policy: Policy) -> Store:
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
        "retry_config": {"max_retries": 0},
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


def _status(error: Exception) -> int | None:
    match = _STATUS.search(str(error))
    return int(match[1]) if match else None


def _may_pass(error: Exception) -> bool:
    """Tell whether another try may succeed: by the status, or where the connection failed."""
    status = _status(error)
    if status is not None:
        return status in _PASSING
    return type(error).__name__ == "GenericError" and "HTTP error" in str(error)


def _first_words(error: Exception) -> str:
    """Return what obstore says, without the body of the answer, which may hold a signature."""
    text = re.split(r"\s*Debug source", str(error))[0]
    text = re.sub(r"(status code: \d{3}[\w ]*).*", r"\1", text, flags=re.DOTALL)
    return " ".join(redact(text).split())[:300]


def _translated(error: Exception) -> SourceError:
    """Return our error for one of obstore's."""
    if isinstance(error, SourceError):
        return error
    text = _first_words(error)
    if isinstance(error, FileNotFoundError):
        return SourceMissing("no such object", hint="check the URL")
    if isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError):
        return SourceDenied(text, hint="check the credentials, or pass anon=True for public data")
    if isinstance(error, NotSupportedError) or "non-partial" in text or ", got " in text:
        return RangeIgnored(text)
    status = _status(error)
    if status == 416 or "body error" in text:
        return ShortRead(text)
    if status == 301 or "redirect" in text.lower():
        return SourceError(text, hint="name the bucket's region: client_kwargs={'region_name': …}")
    return SourceError(text)
