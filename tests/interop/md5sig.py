#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""TCP_MD5SIG (RFC 2385), one end: md5sig.py server ADDRESS PORT COUNT PREFIX KEY | client ADDRESS PORT KEY | errors ADDRESS

The server has the key for peers within PREFIX, takes COUNT connections, one after the other, and sends back what it reads. The client makes a connection
with the key ("-": with none), sends 2 MB, and prints what came of it. An ADDRESS or PREFIX with a colon is IPv6's, of v4-mapped addresses too. errors prints what wrong calls get."""
import errno
import os
import socket
import struct
import sys
import threading

MD5SIG, MD5SIG_EXT, FLAG_PREFIX = 14, 32, 1
TCP = socket.IPPROTO_TCP


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def md5sig(address, key, prefix_len=None, flags=None):
    packed = socket.inet_pton(family(address), address)
    if family(address) == socket.AF_INET:
        sockaddr = struct.pack("=HH4s", socket.AF_INET, 0, packed)
    else:
        sockaddr = struct.pack("=HHI16s", socket.AF_INET6, 0, 0, packed)
    if flags is None:
        flags = 0 if prefix_len is None else FLAG_PREFIX
    return struct.pack("=128sBBHi80s", sockaddr, flags, prefix_len or 0, len(key), 0, key)


def serve(address, count, prefix, key):
    s = socket.socket(family(address[0]))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(address)
    # Before listen and after: here it says nothing, where it did it would be for other peers.
    s.setsockopt(TCP, MD5SIG, md5sig("::ffff:192.0.2.9" if ":" in prefix else "192.0.2.9", b"for somebody else"))
    s.listen(8)
    net, _, length = prefix.partition("/")
    if length:
        s.setsockopt(TCP, MD5SIG_EXT, md5sig(net, key, int(length)))
    else:
        s.setsockopt(TCP, MD5SIG, md5sig(net, key))
    print("listening", flush=True)
    for _ in range(count):
        c, _ = s.accept()
        while piece := c.recv(65536):
            c.sendall(piece)
        c.close()


def attempt(address, key):
    s = socket.socket(family(address[0]))
    if key != b"-":
        s.setsockopt(TCP, MD5SIG, md5sig(address[0], key))
    s.settimeout(1)
    try:
        s.connect(address)
    except OSError as e:
        return "no answer" if isinstance(e, TimeoutError) else errno.errorcode[e.errno]
    mss = s.getsockopt(TCP, socket.TCP_MAXSEG)
    s.settimeout(20)
    data = os.urandom(2_000_003)

    def send():
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    back = b""
    while piece := s.recv(65536):
        back += piece
    sender.join()
    return f"{len(back)} bytes, {'equal' if back == data else 'DIFFERENT'}, in segments of {mss}"


def errors(address):
    """Of a socket that is bound: the stack's, if the address is."""
    s = socket.socket()
    s.bind((address, 0))
    key, peer = b"sesame", "10.66.0.7"
    whole = md5sig(peer, key)
    calls = [
        (MD5SIG, whole),
        (MD5SIG, whole[:-1]),
        (MD5SIG, whole[:3]),
        (MD5SIG, md5sig("2001:db8::1", key)),
        (MD5SIG, whole[:132] + struct.pack("=H", 0) + whole[134:]),
        (MD5SIG, struct.pack("=128sBBHi80s", whole[:128], 0, 0, 81, 0, b"x" * 80)),
        (MD5SIG, struct.pack("=128sBBHi80s", whole[:128], 0, 0, 80, 0, b"x" * 80)),
        (MD5SIG, md5sig(peer, b"")),
        (MD5SIG, md5sig(peer, b"")),
        (MD5SIG_EXT, md5sig("10.66.0.0", key, 33)),
        (MD5SIG_EXT, md5sig("10.66.0.0", key, 24)),
        (MD5SIG, md5sig("10.66.0.0", b"")),
        (MD5SIG_EXT, md5sig("10.66.0.0", b"", 23)),
        (MD5SIG_EXT, md5sig("10.66.0.0", b"", 24)),
        (MD5SIG_EXT, md5sig("10.66.0.0", key, 33, 0)),
        (MD5SIG, md5sig("10.66.0.0", key, 33)),
        (MD5SIG, md5sig("0.0.0.0", b"")),
    ]
    for name, value in calls:
        try:
            s.setsockopt(TCP, name, value)
            print("taken")
        except OSError as e:
            print(errno.errorcode[e.errno])
    try:
        s.getsockopt(TCP, MD5SIG, 256)
    except OSError as e:
        print(errno.errorcode[e.errno])


def main():
    if sys.argv[1] == "errors":
        errors(sys.argv[2])
        return
    address = (sys.argv[2], int(sys.argv[3]))
    if sys.argv[1] == "server":
        serve(address, int(sys.argv[4]), sys.argv[5], sys.argv[6].encode())
    else:
        print(attempt(address, sys.argv[4].encode()), flush=True)


main()
