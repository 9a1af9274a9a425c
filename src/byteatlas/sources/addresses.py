"""Names of hosts become addresses that were judged, and no others are connected to."""

from __future__ import annotations

import socket

from aiohttp import ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult

from byteatlas.sources import loop
from byteatlas.sources.places import is_internal_address

__all__ = ["InternalAddress", "Resolver", "internal_addresses"]


class InternalAddress(OSError):
    """A host's name resolves to an address that may not be reached for it."""

    def __init__(self, host: str, address: str) -> None:
        super().__init__(f"{host} has the address {address}")
        self.host = host
        self.address = address


class Resolver(AbstractResolver):
    """Resolves as the system does, and judges every address.

    The connector connects to what is returned here, without resolving again: a name that
    resolves otherwise a moment later gains nothing.

    Parameters
    ----------
    reach
        Internal addresses that are let pass; None lets all pass.
    """

    def __init__(self, reach: frozenset[str] | None) -> None:
        self._reach = reach
        self._system = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a host.

        Raises
        ------
        InternalAddress
            One of them may not be reached.
        socket.gaierror
            There is no such host, or no such name: "a..b".
        """
        try:
            found = await self._system.resolve(host, port, family)
        except UnicodeError as error:
            raise socket.gaierror(socket.EAI_NONAME, "no name of a host") from error
        internal = {one["host"] for one in found if is_internal_address(one["host"])}
        if self._reach is None:
            if len(internal) == len({one["host"] for one in found}):
                _seen_internal()[host.lower().rstrip(".")] = frozenset(internal)
        elif internal - self._reach:
            raise InternalAddress(host, min(internal - self._reach))
        return found

    async def close(self) -> None:
        """Release nothing: the system resolves."""


def _seen_internal() -> dict[str, frozenset[str]]:
    # Hosts that the caller named, and that have internal addresses only.
    return loop.shared("internal hosts", dict[str, frozenset[str]])


async def internal_addresses(host: str) -> frozenset[str]:
    """Return the addresses of a host that the caller named, where they are internal."""
    return _seen_internal().get(host, frozenset())
