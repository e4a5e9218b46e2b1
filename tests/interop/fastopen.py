#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Fast Open (RFC 7413), one end: fastopen.py server ADDRESS PORT COUNT | client ADDRESS PORT HOW...

The server takes COUNT connections, one after the other, answers each with what it sent and how, "syn" if data came with the SYN, else "later". The client
makes a connection for each HOW and prints the answer and what the calls returned; a HOW is sendto, connect, nonblock, or no_cookie."""
import errno
import socket
import struct
import sys

FASTOPEN_CONNECT, FASTOPEN_NO_COOKIE = 30, 34
SYN_DATA = 32  # TCPI_OPT_SYN_DATA
REQUEST = b"r" * 100 + b"\n"


def has_syn_data(s):
    return s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)[5] & SYN_DATA != 0


def serve(address, count):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
    listener.bind(address)
    listener.listen(16)
    print("listening", flush=True)
    for _ in range(count):
        s, _ = listener.accept()
        got = b""
        while not got.endswith(b"\n"):
            piece = s.recv(65536)
            if not piece:
                break
            got += piece
        how = "syn" if has_syn_data(s) else "later"
        s.sendall(f"{len(got)} {how}\n".encode())
        s.close()


def answer_of(s):
    s.setblocking(True)
    s.settimeout(10)
    text = b""
    while piece := s.recv(100):
        text += piece
    return text.decode().strip()


def attempt(address, how):
    s = socket.socket()
    tcp = socket.IPPROTO_TCP
    if how == "no_cookie":
        s.setsockopt(tcp, FASTOPEN_NO_COOKIE, 1)
    if how == "connect":
        s.setsockopt(tcp, FASTOPEN_CONNECT, 1)
        s.connect(address)
        told = s.send(REQUEST)
    elif how == "nonblock":
        s.setblocking(False)
        try:
            told = s.sendto(REQUEST, socket.MSG_FASTOPEN, address)
        except OSError as e:
            told = errno.errorcode[e.errno]
            s.setblocking(True)
            s.connect(address)  # waits for what is under way
            s.sendall(REQUEST)
    else:
        told = s.sendto(REQUEST, socket.MSG_FASTOPEN, address)
    result = answer_of(s)
    try:
        s.sendto(REQUEST, socket.MSG_FASTOPEN, address)
        again = "sent"
    except OSError as e:
        again = errno.errorcode[e.errno]
    s.close()
    return f"{how}: {told}, {result}, again {again}"


def main():
    address = (sys.argv[2], int(sys.argv[3]))
    if sys.argv[1] == "server":
        serve(address, int(sys.argv[4]))
    else:
        for how in sys.argv[4:]:
            print(attempt(address, how), flush=True)


main()
