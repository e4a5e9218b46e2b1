# SPDX-License-Identifier: BSD-3-Clause
# The client of front_fork.py: each connection is answered by a child of its own, and ended by it.
import socket
import sys

for i in range(int(sys.argv[3])):
    conn = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
    conn.sendall(b"%d" % i)
    data = b""
    while True:
        part = conn.recv(100)
        if not part:
            break
        data += part
    if data != b"child %d" % i:
        sys.exit(f"connection {i}: {data!r}")
