# SPDX-License-Identifier: BSD-3-Clause
# Threads that wait in every way there is; when the stack is killed, each must be told within a few seconds, and a listener of both
# worlds must go on with the kernel. Arguments: the stack's address, a server's address and port.
import os
import select
import socket
import sys
import threading
import time

conn = socket.create_connection((sys.argv[2], int(sys.argv[3])))
timed = socket.create_connection((sys.argv[2], int(sys.argv[3])))
timed.settimeout(60)  # Python then waits in poll
on_stack = socket.socket()
on_stack.bind((sys.argv[1], 0))
on_stack.listen()
both = socket.socket()
both.bind(("0.0.0.0", 0))
both.listen()
epoll = select.epoll()
epoll.register(conn, select.EPOLLIN)
waits = {
    "recv": lambda: conn.recv(10),
    "recv with a timeout": lambda: timed.recv(10),
    "accept": on_stack.accept,
    "select": lambda: select.select([conn], [], [], 60),
    "epoll": lambda: epoll.poll(60),
}


def wait(what):
    try:
        waits[what]()
    except OSError:
        pass


threads = {what: threading.Thread(target=wait, args=(what,), daemon=True) for what in waits}
accepted = threading.Thread(target=both.accept, daemon=True)
for thread in list(threads.values()) + [accepted]:
    thread.start()
time.sleep(0.5)
print("waiting", flush=True)
bad = []
deadline = time.monotonic() + 30
for what, thread in threads.items():
    thread.join(max(0, deadline - time.monotonic()))
    if thread.is_alive():
        bad.append(what)
socket.create_connection(("127.0.0.1", both.getsockname()[1]), 5)
accepted.join(5)
if accepted.is_alive():
    bad.append("accept on both sides")
if bad:
    print("still waiting:", bad, flush=True)
os._exit(1 if bad else 0)
