#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""options.py ADDRESS: give every socket option right and wrong values and lengths, in every state of a socket, and print what comes of it.

The same run on the kernel and on the stack must print the same. Left out is what docs/sockets.md names as different, and
values that are the machine's and not the option's: default sizes of buffers, the default congestion control, the MSS of a path.
"""
import errno
import socket
import struct
import sys

TCP, IP, SOL = socket.IPPROTO_TCP, socket.IPPROTO_IP, socket.SOL_SOCKET

NUMBERS = (-2147483648, -1, 0, 1, 2, 3, 7, 30, 87, 88, 120, 121, 127, 128, 255, 256, 1000, 4096, 32767, 32768, 65535,
           70000, 2147483647)
LENGTHS = (0, 1, 2, 3, 4, 5, 8, 16, 300)

OPTIONS = (
    ('TCP_NODELAY', TCP, 1), ('TCP_MAXSEG', TCP, 2), ('TCP_CORK', TCP, 3), ('TCP_KEEPIDLE', TCP, 4),
    ('TCP_KEEPINTVL', TCP, 5), ('TCP_KEEPCNT', TCP, 6), ('TCP_SYNCNT', TCP, 7), ('TCP_LINGER2', TCP, 8),
    ('TCP_DEFER_ACCEPT', TCP, 9), ('TCP_WINDOW_CLAMP', TCP, 10), ('TCP_QUICKACK', TCP, 12),
    ('TCP_USER_TIMEOUT', TCP, 18), ('TCP_FASTOPEN', TCP, 23), ('TCP_NOTSENT_LOWAT', TCP, 25),
    ('TCP_FASTOPEN_CONNECT', TCP, 30), ('TCP_FASTOPEN_NO_COOKIE', TCP, 34),
    ('SO_REUSEADDR', SOL, 2), ('SO_BROADCAST', SOL, 6), ('SO_SNDBUF', SOL, 7), ('SO_RCVBUF', SOL, 8),
    ('SO_KEEPALIVE', SOL, 9), ('SO_OOBINLINE', SOL, 10), ('SO_REUSEPORT', SOL, 15), ('SO_RCVLOWAT', SOL, 18),
    ('SO_MAX_PACING_RATE', SOL, 47), ('SO_ZEROCOPY', SOL, 60),
    ('SO_TIMESTAMP', SOL, 29), ('SO_TIMESTAMPNS', SOL, 35), ('SO_TIMESTAMPING', SOL, 37),
    ('SO_TIMESTAMP_NEW', SOL, 63), ('SO_TIMESTAMPNS_NEW', SOL, 64), ('SO_TIMESTAMPING_NEW', SOL, 65), ('IP_TOS', IP, 1),
    ('IP_BIND_ADDRESS_NO_PORT', IP, 24),
)
READ_ONLY = (('SO_TYPE', SOL, 3), ('SO_ERROR', SOL, 4), ('SO_ACCEPTCONN', SOL, 30), ('SO_PROTOCOL', SOL, 38),
             ('SO_DOMAIN', SOL, 39), ('TCP_INFO', TCP, 11))
PAIRS = (('SO_LINGER', SOL, 13, 'ii', ((0, 0), (1, 0), (1, 5), (5, 7), (0, 9))),
         ('SO_RCVTIMEO', SOL, 20, 'll', ((0, 0), (1, 0), (0, 500000), (0, 1000000), (0, -1))),
         ('SO_SNDTIMEO', SOL, 21, 'll', ((0, 0), (2, 0), (0, 1000000))))
NAMES = (b'cubic', b'cubic\0', b'cubic\0junk', b'nosuch', b'cubiccubiccubiccubic', b'', b'\0')


def name_of(error):
    return errno.errorcode.get(error.errno, str(error.errno))


def set_to(sock, level, option, value):
    try:
        if isinstance(value, int) and value < 0:
            value = struct.pack('i', value)
        sock.setsockopt(level, option, value)
        return 'ok'
    except OSError as error:
        return name_of(error)


def get(sock, level, option, length=4):
    """Python gives 0 and no bytes a meaning of its own; so length is at least 1."""
    try:
        return sock.getsockopt(level, option, length).hex()
    except OSError as error:
        return name_of(error)


# ---- states ------------------------------------------------------------------------------------------------------



def bound(address):
    sock = socket.socket()
    sock.setsockopt(SOL, socket.SO_REUSEADDR, 1)
    sock.bind((address, 0))
    return [sock]


def listening(address):
    sock = bound(address)[0]
    sock.listen(5)
    return [sock]


def connected(address):
    listener = listening(address)[0]
    client = socket.create_connection(listener.getsockname(), 10)
    client.settimeout(None)
    accepted = listener.accept()[0]
    return [client, accepted, listener]


def accepted(address):
    client, server, listener = connected(address)
    return [server, client, listener]


def half_closed(address):
    socks = connected(address)
    socks[0].shutdown(socket.SHUT_WR)
    socks[1].recv(1)
    return socks


def reset(address):
    socks = connected(address)
    socks[1].setsockopt(SOL, socket.SO_LINGER, struct.pack('ii', 1, 0))
    socks[1].close()
    try:
        socks[0].recv(1)
    except OSError:
        pass
    return socks


STATES = (bound, listening, connected, accepted, half_closed, reset)


def bounded_by_machine(name, value):
    return name in ('SO_SNDBUF', 'SO_RCVBUF', 'SO_RCVLOWAT') and not 0 <= value < 100000


def machine_specific(state, name):
    """Read back without having been set."""
    return name in ('SO_SNDBUF', 'SO_RCVBUF', 'TCP_WINDOW_CLAMP') or (name == 'TCP_MAXSEG' and state not in (bound, listening))


# ---- what is tried -----------------------------------------------------------------------------------------------


def each_number(address, state, row):
    name, level, option = row
    for value in NUMBERS:
        socks = state(address)
        what = set_to(socks[0], level, option, value)
        after = get(socks[0], level, option)
        if bounded_by_machine(name, value) or machine_specific(state, name) and (what != 'ok' or name == 'TCP_MAXSEG'):
            after = '-'
        print(f'{state.__name__} {name} = {value}: {what}, then {after}')
        for sock in socks:
            sock.close()


def each_length(address, state, row):
    name, level, option = row
    socks = state(address)
    for length in LENGTHS:
        what = set_to(socks[0], level, option, (b'\1' + bytes(299))[:length])
        print(f'{state.__name__} {name} with {length} bytes: {what}')
    for length in LENGTHS[1:]:
        answer = get(socks[0], level, option, length)
        if machine_specific(state, name) or name == 'TCP_INFO':
            answer = answer if answer.startswith('E') else str(min(len(answer) // 2, 232))
        print(f'{state.__name__} {name} into {length} bytes: {answer}')
    for sock in socks:
        sock.close()


def each_pair(address, state, row):
    name, level, option, form, values = row
    socks = state(address)
    for pair in values:
        what = set_to(socks[0], level, option, struct.pack(form, *pair))
        print(f'{state.__name__} {name} = {pair}: {what}, then {get(socks[0], level, option, struct.calcsize(form))}')
    set_to(socks[0], level, option, bytes(struct.calcsize(form)))
    for sock in socks:
        sock.close()


def each_name(address, state):
    for value in NAMES:
        socks = state(address)
        what = set_to(socks[0], TCP, socket.TCP_CONGESTION, value)
        after = [get(socks[0], TCP, socket.TCP_CONGESTION, n) if what == 'ok' else '-' for n in (1, 4, 16, 64)]
        print(f'{state.__name__} TCP_CONGESTION = {value!r}: {what}, then {after}')
        for sock in socks:
            sock.close()


def main():
    address = sys.argv[1]
    for state in STATES:
        for row in OPTIONS:
            each_number(address, state, row)
            each_length(address, state, row)
        for row in READ_ONLY:
            each_length(address, state, row)
        for row in PAIRS:
            each_length(address, state, row[:3])
            each_pair(address, state, row)
        each_name(address, state)


main()
