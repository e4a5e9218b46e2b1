# SPDX-License-Identifier: BSD-3-Clause
# A server in the manner of the oldest ones: accept, fork, and the child answers on what it inherited. Arguments: address, port, connections.
import os
import socket
import sys

listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((sys.argv[1], int(sys.argv[2])))
listener.listen(64)
for _ in range(int(sys.argv[3])):
    conn, _ = listener.accept()
    if os.fork() == 0:
        listener.close()
        data = conn.recv(100)
        conn.sendall(b"child " + data)
        conn.close()
        os._exit(0)
    conn.close()
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
