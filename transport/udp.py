"""A UDP socket that moves many datagrams in one system call where the kernel can.

Linux segments one large send into datagrams of equal size (UDP_SEGMENT, "GSO") and hands received runs over joined
(UDP_GRO). Elsewhere, and where the kernel refuses, the same socket works a datagram at a time. Sending never waits and
never raises: a datagram that the kernel does not take is a lost datagram, which QUIC repairs.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from collections.abc import Sequence

from .addr import IpAddr
from .socket_address import SocketAddress, ip_addr_of

__all__ = ["UdpSocket"]

logger = logging.getLogger(__name__)

SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104  # linux/udp.h; the socket module does not name them
MAX_SEGMENTS = 64  # the kernel's own limit (UDP_MAX_SEGMENTS)
MAX_SEND = 65_000  # an IP packet holds 65,535 bytes with its headers
BUFFER_SIZE = 4 << 20  # asked for; the kernel gives what its limits allow
_SEGMENT = struct.Struct("=H")
_GRO_SIZE = struct.Struct("=i")
_ANCILLARY = socket.CMSG_SPACE(_GRO_SIZE.size)


class UdpSocket:
    """One bound, non-blocking socket of one address family."""

    def __init__(self, bind: IpAddr) -> None:
        """OSError where the address cannot be bound."""
        self.family = socket.AF_INET if bind.ip.version == 4 else socket.AF_INET6
        self._socket = socket.socket(self.family, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            if self.family == socket.AF_INET6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                self._socket.setsockopt(socket.SOL_SOCKET, option, BUFFER_SIZE)
            self._socket.bind((str(bind.ip), bind.port))
        except OSError:
            self._socket.close()
            raise
        self._gro = self._try_option(UDP_GRO, 1)
        self._gso = self._try_option(UDP_SEGMENT, 0)
        self.local = ip_addr_of(self._socket.getsockname())

    def _try_option(self, option: int, value: int) -> bool:
        try:
            self._socket.setsockopt(SOL_UDP, option, value)
        except OSError:
            return False
        return True

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self, calls: int) -> list[tuple[bytes, SocketAddress]]:
        """What is waiting, after at most ``calls`` system calls: (datagram, where from)."""
        out: list[tuple[bytes, SocketAddress]] = []
        for _ in range(calls):
            try:
                data, ancillary, _flags, addr = self._socket.recvmsg(65_536, _ANCILLARY)
            except BlockingIOError:
                break
            except OSError as error:  # a report about an earlier send (ICMP); the socket itself goes on
                logger.debug("receive on %s: %s", self.local, error)
                continue
            size = _GRO_SIZE.unpack(ancillary[0][2])[0] if self._gro and ancillary else 0
            if 0 < size < len(data):
                out += [(data[at : at + size], addr) for at in range(0, len(data), size)]
            elif data:
                out.append((data, addr))
        return out

    def send(self, datagrams: Sequence[tuple[bytes, SocketAddress]]) -> OSError | None:
        """Send in order; runs to one address, all of one size but the last, go in one call.

        Returns the last refusal of the kernel that says something about the way (no route, message too long), if any.
        """
        problem: OSError | None = None
        at = 0
        while at < len(datagrams):
            data, addr = datagrams[at]
            stop = self._run(datagrams, at) if self._gso else at + 1
            try:
                if stop - at == 1:
                    self._socket.sendto(data, addr)
                else:
                    control = [(SOL_UDP, UDP_SEGMENT, _SEGMENT.pack(len(data)))]
                    self._socket.sendmsg([piece for piece, _ in datagrams[at:stop]], control, 0, addr)
            except OSError as error:
                if self._gso and stop - at > 1 and error.errno in (errno.EIO, errno.EINVAL, errno.EOPNOTSUPP):
                    self._gso = False  # the kernel knows the option but the device does not
                    continue
                if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                    problem = error
                    logger.debug("send from %s: %s", self.local, error)
            at = stop
        return problem

    @staticmethod
    def _run(datagrams: Sequence[tuple[bytes, SocketAddress]], start: int) -> int:
        """The end of the run that starts at ``start``: same address, same size, at most one shorter datagram, last."""
        data, addr = datagrams[start]
        size = total = len(data)
        stop = start + 1
        while stop < min(len(datagrams), start + MAX_SEGMENTS):
            piece, to = datagrams[stop]
            if len(piece) > size or total + len(piece) > MAX_SEND or to != addr:
                break
            total += len(piece)
            stop += 1
            if len(piece) < size:
                break
        return stop

    def rebound(self) -> UdpSocket | None:
        """Close, and open anew: at the same port where it is still free, else at another. None where neither goes."""
        self.close()
        for port in (self.local.port, 0):
            try:
                return UdpSocket(IpAddr(self.local.ip, port))
            except OSError as error:
                logger.info("cannot bind %s anew: %s", IpAddr(self.local.ip, port), error)
        return None

    def close(self) -> None:
        self._socket.close()
