# SPDX-License-Identifier: BSD-3-Clause
# Threads that share epoll sets as the event loops of Rust, Go and Java do: one waits while another adds, changes and arms members again.
# serve ADDRESS PORT: an echo server for CONNECTIONS connections. ask ADDRESS PORT: its client, which fails if an answer takes SECONDS.
import os
import select
import socket
import sys
import threading

CONNECTIONS, ROUNDS, SECONDS = 6, 50, 5
what, address = sys.argv[1], (sys.argv[2], int(sys.argv[3]))


def ask():
    conns = [socket.create_connection(address, SECONDS) for _ in range(CONNECTIONS)]
    for number in range(ROUNDS):
        for conn in conns:
            conn.sendall(b"%08d" % number)
        for conn in conns:
            if conn.recv(8, socket.MSG_WAITALL) != b"%08d" % number:
                sys.exit(f"round {number}: no answer")


def echo(conn):
    data = conn.recv(100)
    conn.sendall(data)
    return len(data) > 0


class Loop:
    """A set on which threads wait from the beginning; the connections come from another one."""

    def __init__(self, events, main, threads):
        self.set, self.events, self.conns, self.left = select.epoll(), events, {}, threading.Semaphore(0)
        self.quit = os.pipe()[0]
        self.set.register(self.quit, select.EPOLLIN)  # the kernel's: at first the wait is the kernel's alone
        for _ in range(threads):
            threading.Thread(target=main, args=(self,), daemon=True).start()

    def add(self, conn):
        self.conns[conn.fileno()] = conn
        self.set.register(conn, self.events)

    def answer(self, fd):
        if echo(self.conns[fd]):
            return True
        self.set.unregister(fd)
        self.left.release()
        return False


def level(loop):
    while True:
        for fd, _ in loop.set.poll():
            loop.answer(fd)


def oneshot(loop):
    while True:
        for fd, _ in loop.set.poll(-1, 1):
            if loop.answer(fd):
                loop.set.modify(fd, loop.events)


def by_poll(loop):
    outer = select.poll()
    outer.register(loop.set, select.POLLIN)
    while True:
        outer.poll()
        for fd, _ in loop.set.poll(0):
            loop.answer(fd)


def serve():
    loops = [Loop(select.EPOLLIN, level, 1), Loop(select.EPOLLIN | select.EPOLLONESHOT, oneshot, 3), Loop(select.EPOLLIN, by_poll, 1)]
    listener = socket.create_server(address)
    print("listening", flush=True)
    for number in range(CONNECTIONS):
        conn = listener.accept()[0]
        conn.recv(1, socket.MSG_PEEK)  # readable before it is a member
        loops[number % len(loops)].add(conn)
    for number in range(CONNECTIONS):
        loops[number % len(loops)].left.acquire()


serve() if what == "serve" else ask()
os._exit(0)
