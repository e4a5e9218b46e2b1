# SPDX-License-Identifier: BSD-3-Clause
"""One end of a differential run: does the socket calls that it is told, one a line, and says what came of each.

It knows nothing of stacks: started plainly it is on the kernel, started by `isosock run` on the stack. A request is a JSON
list [call, argument...] on stdin, the answer a JSON value on stdout: what the call returned, or the name of its errno;
{"unsaid": for the driver alone, "said": the answer} where the driver must know what two stacks need not agree on.
Sockets have names. What depends on how the bytes were cut on their way, on buffer sizes or on time is not in any answer.
"""
import ctypes
import errno
import fcntl
import json
import os
import select
import socket
import struct
import sys
import tempfile
import time
import zlib

SIOCOUTQ, FIONREAD = 0x5411, 0x541B
PATIENCE_S = 15
socks, epolls = {}, {}

POLL_BITS = [(select.POLLIN, "IN"), (select.POLLOUT, "OUT"), (select.POLLRDHUP, "RDHUP"), (select.POLLHUP, "HUP"), (select.POLLERR, "ERR")]


def bits(mask):
    return "|".join(name for bit, name in POLL_BITS if mask & bit)


PERIOD = bytes((i * 131 + (i >> 8) * 17) & 0xFF for i in range(65536))


def pattern(pos, n):
    """Bytes of a stream by their position, so that a byte in the wrong place shows."""
    start = pos % 65536
    return (PERIOD * ((start + n) // 65536 + 1))[start : start + n]


def libc():
    return ctypes.CDLL(None, use_errno=True)


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "libc")
    return result


def in_child(work):
    """What work() comes to, done by a child that has the parent's sockets."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = work()
        except OSError as e:
            answer = errno.errorcode.get(e.errno, str(e))
        os.write(w, json.dumps(answer).encode())
        os._exit(0)
    os.close(w)
    with os.fdopen(r) as f:
        answer = json.load(f)
    os.waitpid(pid, 0)
    return answer


def digest(data):
    return "%d:%08x" % (len(data), zlib.crc32(data))


def ioctl_int(s, request):
    return struct.unpack("i", fcntl.ioctl(s.fileno(), request, b"\0" * 4))[0]


def until(what):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.0005)
    return False


def revents(s, mask=0x2007):
    p = select.poll()
    p.register(s, mask)
    got = p.poll(0)
    return got[0][1] if got else 0


# ---- calls ----


def c_socket(name):
    socks[name] = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    socks[name].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def c_bind(name, addr, port):
    socks[name].bind((addr, port))


def c_listen(name, backlog):
    socks[name].listen(backlog)


def c_accept(name, new):
    socks[new], _ = socks[name].accept()


def c_accept4(name, new, flags):
    fd = checked(libc().accept4(socks[name].fileno(), None, None, flags))
    socks[new] = socket.socket(fileno=fd)
    return [fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK, fcntl.fcntl(fd, fcntl.F_GETFD)]


def c_try_accept(name):
    socks[name].setblocking(False)
    try:
        socks[name].accept()[0].close()
        return "accepted"
    finally:
        socks[name].setblocking(True)


def c_connect(name, addr, port):
    socks[name].connect((addr, port))


def c_connect_nowait(name, addr, port):
    """The whole dance: what the call says, what it says again, when it is over, and what is told then."""
    s = socks[name]
    s.setblocking(False)
    said = []
    for _ in range(2):
        said.append(errno.errorcode.get(s.connect_ex((addr, port)), 0))
        if said[0] == 0 or not until(lambda: revents(s) & (select.POLLOUT | select.POLLERR)):
            break
    ev = bits(revents(s))
    err = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    s.setblocking(True)
    # Whether the first call waits for the peer is a matter of distance; EINPROGRESS and 0 are one answer.
    return ["started" if said[0] in (0, "EINPROGRESS") else said[0], ev, errno.errorcode.get(err, 0)]


def c_send(name, pos, n, flags):
    return socks[name].send(pattern(pos, n), flags)


def c_sendmsg(name, pos, n, flags):
    data = pattern(pos, n)
    return socks[name].sendmsg([data[: n // 3], b"", data[n // 3 :]], [], flags)


def c_sendto(name, pos, n, addr, port):
    return socks[name].sendto(pattern(pos, n), (addr, port))


def c_write(name, pos, n):
    return os.write(socks[name].fileno(), pattern(pos, n))


def c_writev(name, pos, n):
    data = pattern(pos, n)
    return os.writev(socks[name].fileno(), [data[: n // 2], data[n // 2 :], b""])


def c_sendfile(name, pos, n):
    with tempfile.TemporaryFile() as f:
        f.write(b"skipped" + pattern(pos, n))
        f.flush()
        return os.sendfile(socks[name].fileno(), f.fileno(), 7, n)


def c_splice_in(name, pos, n):
    r, w = os.pipe()
    try:
        os.write(w, pattern(pos, n))
        return os.splice(r, socks[name].fileno(), n)
    finally:
        os.close(r)
        os.close(w)


def c_child_send(name, pos, n):
    return in_child(lambda: socks[name].send(pattern(pos, n), socket.MSG_NOSIGNAL))


def c_fill(name, pos):
    """Send until nothing more is taken: how much that is is nobody's business, but what a writer is told then is."""
    s, n = socks[name], 0
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 30000)
    end = time.monotonic() + PATIENCE_S
    idle = 0
    while idle < 20 and time.monotonic() < end:
        try:
            n += s.send(pattern(pos + n, 60000), socket.MSG_DONTWAIT)
            idle = 0
        except BlockingIOError:
            idle += 1
            time.sleep(0.01)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 20000))
    said = "taken"
    while said == "taken" and time.monotonic() < end:
        try:
            n += s.send(pattern(pos + n, 60000))
        except OSError as e:
            said = errno.errorcode[e.errno]
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 0))
    said = [said, bits(revents(s) & select.POLLOUT)]
    return {"unsaid": n, "said": said}


def c_fill_up(name, pos, n):
    socks[name].sendall(pattern(pos, n))


def c_exact(name, pos, n):
    """Receive n bytes, which are those of their positions."""
    got = 0
    while got < n:
        data = socks[name].recv(min(n - got, 65536))
        if data != pattern(pos + got, len(data)) or not data:
            return "wrong"
        got += len(data)
    return "exact"


def c_recv(name, n, flags):
    return digest(socks[name].recv(n, flags))


def c_recv_trunc(name, n, flags):
    """MSG_TRUNC drops the bytes: how many, and that the buffer is untouched."""
    buf = bytearray(n)
    got = socks[name].recv_into(buf, n, socket.MSG_TRUNC | flags)
    return [got, any(buf)]


def c_recvmsg(name, n, flags):
    head, tail = bytearray(n // 2), bytearray(n - n // 2)
    got, anc, msg_flags, addr = socks[name].recvmsg_into([head, tail], 100, flags)
    return [digest(bytes(head + tail)[:got]), len(anc), msg_flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC | socket.MSG_OOB | socket.MSG_ERRQUEUE), addr]


def c_read(name, n):
    return digest(os.read(socks[name].fileno(), n))


def c_readv(name, n):
    head, tail = bytearray(n // 3), bytearray(n - n // 3)
    got = os.readv(socks[name].fileno(), [head, tail])
    return digest(bytes(head + tail)[:got])


def c_splice_out(name, n):
    """Until n bytes have come or no more are there: how much one call takes depends on how they lie."""
    r, w = os.pipe()
    data = b""
    try:
        while len(data) < n:
            got = os.splice(socks[name].fileno(), w, n - len(data), flags=2)
            if got == 0:
                break
            data += os.read(r, got)
    except BlockingIOError:
        if not data:
            raise
    finally:
        os.close(r)
        os.close(w)
    return digest(data)


def c_child_recv(name, n):
    return in_child(lambda: digest(socks[name].recv(n)))


def c_recv_timeout(name, ms):
    s = socks[name]
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, ms * 1000))
    try:
        return digest(s.recv(10))
    finally:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 0))


def c_shutdown(name, how):
    socks[name].shutdown(how)


def c_close(name):
    socks.pop(name).close()


def c_dup_close(name):
    socks[name].dup().close()


def c_dup_swap(name):
    """The socket lives on under its other descriptor."""
    other = socks[name].dup()
    socks[name].close()
    socks[name] = other


def c_child_close(name):
    return in_child(lambda: socks[name].close())


def c_linger(name, on, seconds):
    socks[name].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", on, seconds))


def c_setopt(name, level, opt, value):
    socks[name].setsockopt(level, opt, value)
    return socks[name].getsockopt(level, opt)


def c_getopt(name, level, opt):
    return socks[name].getsockopt(level, opt)


def c_optlen(name, level, opt, length):
    """The first bytes of an option; what lies beyond its own length nobody touches."""
    value = socks[name].getsockopt(level, opt, length)
    return [len(value), value[:4].hex()]


def c_setshort(name, level, opt, length):
    socks[name].setsockopt(level, opt, b"\1" + b"\0" * (length - 1))


def c_error(name):
    return errno.errorcode.get(socks[name].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0)


def c_state(name):
    return socks[name].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def c_names(name, own, peer, port):
    """Addresses differ from stack to stack, and one port is chosen: whether they are what they should be."""
    s = socks[name]
    a, b = s.getsockname(), s.getpeername()
    return [a[0] == own, a[1] == port, b[0] == peer, b[1] == port]


def c_ports(name):
    s = socks[name]
    return {"unsaid": [s.getsockname()[1], s.getpeername()[1]], "said": None}


def c_peername(name):
    socks[name].getpeername()


def c_poll(name):
    return bits(revents(socks[name]))


def c_poll_for(name, mask):
    return bits(revents(socks[name], mask))


def c_select(name):
    s = socks[name]
    return [len(part) for part in select.select([s], [s], [s], 0)]


def c_setfl(name, nonblock, how):
    fd = socks[name].fileno()
    if how == "ioctl":
        fcntl.ioctl(fd, 0x5421, struct.pack("i", nonblock))
    else:
        flags = fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_NONBLOCK
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | (os.O_NONBLOCK if nonblock else 0))
    return fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_ACCMODE | os.O_NONBLOCK)


def c_atmark(name):
    return ioctl_int(socks[name], 0x8905)


def c_outqnsd(name):
    return ioctl_int(socks[name], 0x894B)


def c_inq(name):
    return ioctl_int(socks[name], FIONREAD)


def c_outq(name):
    return ioctl_int(socks[name], SIOCOUTQ)


def c_getfl(name):
    return fcntl.fcntl(socks[name].fileno(), fcntl.F_GETFL) & (os.O_ACCMODE | os.O_NONBLOCK)


def c_disconnect(name):
    """connect() with AF_UNSPEC, which the socket module has no words for."""
    checked(libc().connect(socks[name].fileno(), bytes(16), 16))


def c_epoll_add(ep, name, events):
    epolls.setdefault(ep, select.epoll()).register(socks[name], events)


def c_epoll_mod(ep, name, events):
    epolls.setdefault(ep, select.epoll()).modify(socks[name], events)


def c_epoll_del(ep, name):
    epolls.setdefault(ep, select.epoll()).unregister(socks[name])


def c_epoll_nest(outer, inner):
    if inner not in epolls:
        return None
    epolls.setdefault(outer, select.epoll()).register(epolls[inner].fileno(), select.EPOLLIN)


def c_epoll_wait(ep):
    if ep not in epolls:
        return []
    names = {s.fileno(): name for name, s in {**socks, **epolls}.items()}
    return [[names.get(fd, "?"), bits(ev)] for fd, ev in epolls[ep].poll(0.03)]


# ---- waiting for what was sent ----


def arrived(name, what):
    """The last call is answered by the stack itself: by then it has told epoll sets too what it was at."""
    result = until(lambda: what(socks[name]))
    c_state(name)
    return result


def c_await_in(name, n):
    return arrived(name, lambda s: ioctl_int(s, FIONREAD) >= n)


def c_await_acked(name):
    return arrived(name, lambda s: ioctl_int(s, SIOCOUTQ) == 0)


def c_await_out(name):
    return arrived(name, lambda s: revents(s) & select.POLLOUT)


def c_await_end(name):
    return arrived(name, lambda s: revents(s) & (select.POLLRDHUP | select.POLLHUP | select.POLLERR))


def c_await_error(name):
    return arrived(name, lambda s: revents(s) & (select.POLLHUP | select.POLLERR))


def c_await_accept(name):
    return arrived(name, lambda s: revents(s) & select.POLLIN)


# ---- much of it ----


def c_pump(name, pos, n):
    """Send it all, however long the peer takes."""
    socks[name].sendall(pattern(pos, n))
    return n


def c_drain(name, n):
    """Receive n bytes in pieces of many sizes."""
    crc, left, step = 0, n, 1
    while left > 0:
        data = socks[name].recv(min(left, step))
        if not data:
            break
        crc, left, step = zlib.crc32(data, crc), left - len(data), step * 7 % 65521
    return "%d:%08x" % (n - left, crc)


def c_forget():
    for s in socks.values():
        s.close()
    for e in epolls.values():
        e.close()
    socks.clear()
    epolls.clear()


def main():
    for line in sys.stdin:
        call, *args = json.loads(line)
        try:
            answer = globals()["c_" + call](*args)
        except OSError as e:
            answer = errno.errorcode.get(e.errno, str(e))
        print(json.dumps(answer), flush=True)


main()
