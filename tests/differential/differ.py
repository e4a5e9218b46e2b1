#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The same seeded scripts of socket calls on two stacks, and a comparison of what the programs saw.

    differ.py run --seeds 1:40 [--server "PREFIX" --client "PREFIX" --address ADDR --client-address ADDR] > transcript
    differ.py compare REFERENCE TRANSCRIPT

`run` drives two actors (actor.py), a server and a client, each started behind its prefix: nothing for the kernel,
`isosock --control PATH run --` for a stack. They take turns, so that every answer is determined: after a call that reaches the peer, the peer waits
until it has arrived, however bad the wire. Scripts are drawn from the seed and from the answers so far; two runs differ
at first where an answer does.
"""
import argparse
import json
import os
import random
import select
import shlex
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
HANG_S = 40
PEEK_ARRIVALS = 8  # as far as one can look ahead
OUTSTANDING_MAX = 20000  # bytes on their way: less than any buffer
SHUT_RD, SHUT_WR, SHUT_RDWR = 0, 1, 2
NOSIGNAL, DONTWAIT, MORE, PEEK, WAITALL, EOR = 0x4000, 0x40, 0x8000, 2, 0x100, 0x80
ERRQUEUE, OOB = 0x2000, 1
RECV_FLAGS = [0, 0, DONTWAIT, PEEK, PEEK | DONTWAIT, PEEK | WAITALL, WAITALL, WAITALL | DONTWAIT]
POLL_MASKS = [0, select.POLLIN, select.POLLOUT, select.POLLPRI, select.POLLRDHUP, select.POLLIN | select.POLLOUT]
NONBLOCK, CLOEXEC = 0o4000, 0o2000000
EPOLL_SETS = [select.EPOLLIN, select.EPOLLOUT, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP, select.EPOLLIN | select.EPOLLRDHUP]
EPOLLET = 1 << 31
EPOLL_HOWS = [0, 0, EPOLLET, select.EPOLLONESHOT, EPOLLET | select.EPOLLONESHOT]
LOOKS = ["poll", "poll", "poll_for", "select", "error", "inq", "outq", "outqnsd", "atmark", "state", "getfl", "setfl", "peername", "names"]
LOOKS += ["dup_close", "dup_swap", "child_close"]
# Those whose values any socket may be asked for and given, and what to give.
OPTIONS = [
    ("TCP_NODELAY", 6, 1, [0, 1]),
    ("TCP_CORK", 6, 3, [0, 1]),
    ("TCP_KEEPIDLE", 6, 4, [1, 600, 0]),
    ("TCP_KEEPINTVL", 6, 5, [2, 0]),
    ("TCP_KEEPCNT", 6, 6, [3, 128]),
    ("TCP_SYNCNT", 6, 7, [3, 0]),
    ("TCP_LINGER2", 6, 8, [-1, 5, 500]),
    ("TCP_DEFER_ACCEPT", 6, 9, [0, 5]),
    ("TCP_USER_TIMEOUT", 6, 18, [0, 30000, -1]),
    ("TCP_NOTSENT_LOWAT", 6, 25, [100000]),
    ("TCP_FASTOPEN", 6, 23, [5]),
    ("SO_KEEPALIVE", 1, 9, [0, 1]),
    ("SO_OOBINLINE", 1, 10, [1]),
    ("IP_TOS", 0, 1, [0, 16]),
    ("SO_TYPE", 1, 3, [1]),
    ("SO_ACCEPTCONN", 1, 30, [0]),
]


class Pos(int):
    """A place in a stream, whose bytes have a period: what is shown of it."""

    def __str__(self):
        return str(int(self) % 65536)


class Unsaid(int):
    """A number that two stacks need not agree on."""

    def __str__(self):
        return "N"


class Hang(Exception):
    pass


class Actor:
    def __init__(self, prefix):
        self.process = subprocess.Popen(
            shlex.split(prefix) + [sys.executable, os.path.join(HERE, "actor.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def begin(self, *request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def answer(self):
        ready, _, _ = select.select([self.process.stdout], [], [], HANG_S)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            raise Hang("no answer" if ready == [] else "the program has ended")
        return json.loads(line)

    def end(self):
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class End:
    """What is known of one end of a connection: enough to know what its peer is to wait for."""

    def __init__(self, who, actor, name):
        self.who, self.actor, self.name = who, actor, name
        self.sent = self.received = 0
        self.arrivals = 0  # since there was nothing to read
        self.fin = self.shut_rd = self.closed = self.dead = self.abortive = self.nonblock = False
        self.lowat = 1
        self.peer = None

    def pending(self):
        return self.peer.sent - self.received


class Script:
    def __init__(self, seed, actors, args, out):
        self.rng, self.actors, self.args, self.out = random.Random(seed), actors, args, out
        self.port = 21000 + seed % 4000
        self.addresses = {"server": args.address, "client": args.client_address or args.address}
        self.shut_early = set()  # before there was a connection
        self.had_bulk = self.had_epoll = False
        self.out.append("seed %d" % seed)

    def say(self, who, request, answer):
        shown = [("ADDR" if a in (self.args.address, self.args.client_address) else "PORT" if a == self.port else a) for a in request]
        self.out.append("%s %s -> %s" % (who, " ".join(str(a) for a in shown), json.dumps(answer)))

    def call(self, who, *request):
        self.actors[who].begin(*request)
        answer = self.actors[who].answer()
        if isinstance(answer, dict):
            self.say(who, request, answer["said"])
            return answer["unsaid"]
        self.say(who, request, answer)
        return answer

    # ---- connections ----

    def listen(self):
        self.call("server", "socket", "l")
        self.call("server", "bind", "l", self.args.address, self.port)
        self.call("server", "listen", "l", self.rng.choice([1, 5, 128]))

    def connect(self):
        self.call("client", "socket", "c")
        if self.rng.random() < 0.4:
            self.before_connection("client", "c")
        if self.rng.random() < 0.5:
            self.call("client", "connect", "c", self.args.address, self.port)
        else:
            self.call("client", "connect_nowait", "c", self.args.address, self.port)
        self.call("server", "await_accept", "l")
        self.call("server", "accept", "l", "s")
        a, b = self.actors["client"], self.actors["server"]
        ends = End("client", a, "c"), End("server", b, "s")
        ends[0].peer, ends[1].peer = ends[1], ends[0]
        ends[0].shut_rd = SHUT_RD in self.shut_early
        ports = self.call("client", "ports", "c"), self.call("server", "ports", "s")
        self.out.append("each other's ports: %s" % (list(ports[0]) == list(reversed(ports[1]))))
        return ends

    def before_connection(self, who, name):
        """Calls on a socket of the stack's that has no connection."""
        addr = self.addresses[who]
        self.call(who, "bind", name, addr, 0)
        for _ in range(self.rng.randint(1, 4)):
            pick = self.rng.choice(["bind", "send", "recv", "poll", "shutdown", "peername", "option", "state", "refused", "accept", "inq", "error"])
            if pick == "bind":
                self.call(who, "bind", name, addr, 0)
            elif pick == "send":
                self.call(who, "send", name, 0, 10, NOSIGNAL)
            elif pick == "recv":
                self.call(who, "recv", name, 10, self.rng.choice([0, DONTWAIT]))
            elif pick == "shutdown":
                how = self.rng.choice([SHUT_RD, SHUT_WR])
                self.call(who, "shutdown", name, how)
                self.shut_early.add(how)
            elif pick == "option":
                self.option(who, name)
            elif pick == "refused":
                self.call(who, "socket", "r")
                self.call(who, self.rng.choice(["connect", "connect_nowait"]), "r", self.args.address, 19999)
                self.call(who, "poll", "r")
                self.call(who, "send", "r", 0, 1, NOSIGNAL)
                self.call(who, "recv", "r", 1, 0)
                self.call(who, "close", "r")
            elif pick == "accept":
                self.call(who, "accept", name, "x")
            elif pick == "inq":
                self.call(who, "inq", name)
            else:
                self.call(who, pick, name)

    # ---- calls on a connection ----

    def option(self, who, name):
        _, level, opt, values = self.rng.choice(OPTIONS)
        pick = self.rng.random()
        if pick < 0.3:
            self.call(who, "getopt", name, level, opt)
        elif pick < 0.4:
            self.call(who, "optlen", name, level, opt, self.rng.choice([1, 2, 3, 4, 8, 100]))
        elif pick < 0.45:
            self.call(who, "setshort", name, level, opt, self.rng.choice([1, 2, 3]))
        else:
            self.call(who, "setopt", name, level, opt, self.rng.choice(values))

    def arrive(self, e):
        """Let everything that e was sent reach it."""
        if e.closed:
            return
        if e.dead:
            self.call(e.who, "await_error", e.name)
            return
        if e.pending() > 0 and not e.shut_rd:
            self.call(e.who, "await_in", e.name, e.pending())
        if e.peer.fin:
            self.call(e.who, "await_end", e.name)
        if not e.peer.closed and not e.peer.dead:
            self.call(e.peer.who, "await_acked", e.peer.name)

    def do_send(self, e):
        n = self.rng.choice([0, 1, 10, 100, 1000, 1460, 5000, 9000])
        if e.sent - e.peer.received + n > OUTSTANDING_MAX:
            return
        how = self.rng.choice(["send", "send", "send", "sendmsg", "sendmsg", "write", "sendto", "writev", "sendfile", "splice_in", "child_send"])
        # Data for a socket that will neither read nor write, or that nobody has, is answered by a reset; the first call cannot know.
        refused = e.peer.closed or (e.peer.shut_rd and e.peer.fin)
        if refused and self.args.no_resets:
            return
        if how == "sendto":
            got = self.call(e.who, "sendto", e.name, Pos(e.sent), n, self.args.address, 9)
        elif how not in ("send", "sendmsg"):
            got = self.call(e.who, how, e.name, Pos(e.sent), n)
        else:
            got = self.call(e.who, how, e.name, Pos(e.sent), n, self.rng.choice([NOSIGNAL, NOSIGNAL | DONTWAIT, NOSIGNAL | (0 if refused else MORE), NOSIGNAL | EOR]))
            if got == n and n > 0 and not refused:  # MSG_MORE holds bytes back until a call without it
                more = self.call(e.who, "send", e.name, Pos(e.sent + n), 1, NOSIGNAL)
                got += more if isinstance(more, int) else 0
        if not isinstance(got, int):
            return
        if refused:
            e.dead = e.dead or got > 0
            e.peer.dead = e.peer.dead or (got > 0 and not e.peer.closed)
            self.arrive(e)
        else:
            e.sent += got
            e.peer.arrivals += 2
            self.arrive(e.peer)

    def do_recv(self, e):
        n = self.rng.choice([1, 10, 1000, 3000, 70000])
        have = e.pending()
        over = e.peer.fin or e.dead or e.shut_rd
        how = self.rng.choice(["recv", "recv", "recv", "recvmsg", "recvmsg", "read", "readv", "trunc", "splice_out", "child_recv", "timeout"])
        flags = self.rng.choice(RECV_FLAGS)
        if how == "timeout":
            if have == 0 and not over:
                self.call(e.who, "recv_timeout", e.name, 20)
            return
        if have < min(n, e.lowat) and not over:
            got = self.call(e.who, "recv", e.name, n, DONTWAIT)
            e.received += count_of(got)
            return
        if have == 0:
            e.arrivals = 0
        if flags & WAITALL and not flags & DONTWAIT and have < n and not over:
            flags &= ~WAITALL
        if flags & PEEK and e.arrivals > PEEK_ARRIVALS:
            flags &= ~PEEK
        if how == "trunc":
            flags &= PEEK
            got = self.call(e.who, "recv_trunc", e.name, n, flags)
        elif how in ("recv", "recvmsg"):
            got = self.call(e.who, how, e.name, n, flags)
        else:
            flags = 0
            got = self.call(e.who, how, e.name, n if over or how != "splice_out" else min(n, have))
        if not flags & PEEK:
            e.received += count_of(got)

    def do_lowat(self, e):
        """Without epoll sets: an edge that came early stays."""
        if self.had_epoll:
            return
        e.lowat = self.rng.choice([1, 2, 100, 3000])
        self.call(e.who, "setopt", e.name, 1, 18, e.lowat)
        self.call(e.who, "poll", e.name)

    def do_shutdown(self, e):
        how = self.rng.choice([SHUT_WR, SHUT_WR, SHUT_RD, SHUT_RDWR])
        if how != SHUT_WR and e.pending() > 0 or e.fin and e.peer.fin and self.args.wire:
            return
        if self.call(e.who, "shutdown", e.name, how) is None:
            e.shut_rd = e.shut_rd or how != SHUT_WR
            if how != SHUT_RD and not e.fin:
                e.fin = True
                self.arrive(e.peer)

    def do_close(self, e):
        if self.args.no_resets and e.pending() > 0:
            e.received += count_of(self.call(e.who, "drain", e.name, e.pending()))
        elif self.rng.random() < 0.3 and not self.args.no_resets:
            seconds = self.rng.choice([0, 0, 5])
            self.call(e.who, "linger", e.name, 1, seconds)
            e.abortive = seconds == 0
        reset = e.abortive or (e.pending() > 0 and not e.dead)
        self.call(e.who, "close", e.name)
        e.closed = True
        if e.dead:
            return
        if reset:
            e.peer.dead = not e.peer.closed
            # Both ends may have finished by themselves: then there is nobody to reset.
            if e.fin and e.peer.fin and not e.pending():
                e.peer.dead = False
        e.fin = True
        self.arrive(e.peer)

    def do_look(self, e):
        pick = self.rng.choice(LOOKS)
        if e.fin and self.args.wire and pick in ("state", "peername", "names"):
            return
        if pick in ("outq", "outqnsd") and (e.peer.closed or e.dead):
            return
        if pick == "dup_swap" and self.had_epoll:
            return  # an epoll set goes on to tell of the descriptor that was closed
        if pick == "poll_for":
            self.call(e.who, pick, e.name, self.rng.choice(POLL_MASKS))
        elif pick == "names":
            self.call(e.who, pick, e.name, self.addresses[e.who], self.addresses[e.peer.who], self.port)
        elif pick == "setfl":
            e.nonblock = self.rng.random() < 0.5
            self.call(e.who, pick, e.name, int(e.nonblock), self.rng.choice(["fcntl", "ioctl"]))
        else:
            self.call(e.who, pick, e.name)

    def do_misuse(self, e):
        pick = self.rng.choice(["connect", "listen", "accept", "bind", "errqueue", "oob"])
        addr = self.addresses[e.who]
        if pick == "connect":
            self.call(e.who, "connect", e.name, self.args.address, self.port)
        elif pick == "listen":
            self.call(e.who, "listen", e.name, 5)
        elif pick == "accept":
            self.call(e.who, "accept", e.name, "x")
        elif pick == "bind" and not e.dead and not (e.fin and e.peer.fin):
            self.call(e.who, "bind", e.name, addr, 0)
        elif pick == "errqueue":
            self.call(e.who, "recv", e.name, 10, ERRQUEUE | DONTWAIT)
        elif pick == "oob":
            self.call(e.who, "recv", e.name, 10, OOB | DONTWAIT)

    def do_epoll(self, e):
        self.had_epoll = True
        pick = self.rng.choice(["add", "add", "mod", "del", "nest", "wait", "wait", "wait"])
        events = self.rng.choice(EPOLL_SETS) | self.rng.choice(EPOLL_HOWS)
        # A writer that has waited is told of space by an edge of its own, at a time of its own.
        if self.had_bulk or e.lowat > 1 or not events & select.EPOLLIN:
            events &= ~EPOLLET  # and one that asks for output alone may be told of input by the way
        if pick in ("add", "mod"):
            self.call(e.who, "epoll_" + pick, "e", e.name, events)
        elif pick == "del":
            self.call(e.who, "epoll_del", "e", e.name)
        elif pick == "nest":
            self.call(e.who, "epoll_nest", "f", "e")
            self.call(e.who, "epoll_wait", "f")
        self.call(e.who, "epoll_wait", "e")

    def do_option(self, e):
        self.option(e.who, e.name)

    def is_quiet(self, e):
        """Nothing under way, nothing finished, and nobody who is told of edges."""
        ends = e, e.peer
        return not (self.had_epoll or self.shut_early or any(x.pending() or x.fin or x.shut_rd or x.nonblock or x.lowat > 1 for x in ends))

    def both(self, e, request, peer_request):
        """Two calls at once, each of which may have to wait for the other."""
        e.actor.begin(*request)
        e.peer.actor.begin(*peer_request)
        self.say(e.who, request, e.actor.answer())
        self.say(e.peer.who, peer_request, e.peer.actor.answer())

    def do_bulk(self, e):
        """Much data both ways at once, in pieces of all sizes."""
        if not self.is_quiet(e):
            return
        self.had_bulk = True
        n = self.rng.choice([50000, 300000]) // self.args.bulk_divisor
        self.both(e, ["pump", e.name, Pos(e.sent), n], ["drain", e.peer.name, n])
        e.sent += n
        e.peer.received += n
        self.arrive(e.peer)

    def do_fill(self, e):
        """What a writer is told when nothing more goes in, and once there is space again. Then on to where the pattern begins anew."""
        if not self.is_quiet(e) or self.args.bulk_divisor > 1:
            return
        self.had_bulk = True
        n = self.call(e.who, "fill", e.name, Pos(e.sent))
        self.call(e.peer.who, "exact", e.peer.name, Pos(e.sent), Unsaid(n))
        self.call(e.who, "await_out", e.name)
        self.call(e.who, "poll", e.name)
        rest = -n % 65536
        self.both(e, ["fill_up", e.name, Pos(0), Unsaid(rest)], ["exact", e.peer.name, Pos(0), Unsaid(rest)])
        e.sent += n + rest
        e.peer.received += n + rest
        self.arrive(e.peer)

    # ---- beside the connection ----

    def do_second(self, e):
        """Another connection to the same listener, and what accept4 makes of its flags."""
        self.call("client", "socket", "c2")
        self.call("client", self.rng.choice(["connect", "connect_nowait"]), "c2", self.args.address, self.port)
        self.call("server", "await_accept", "l")
        self.call("server", "poll", "l")
        self.call("server", "accept4", "l", "s2", self.rng.choice([0, NONBLOCK, CLOEXEC, NONBLOCK | CLOEXEC]))
        self.call("client", "send", "c2", 0, 5, NOSIGNAL)
        self.call("server", "await_in", "s2", 5)
        self.call("server", "recv", "s2", 100, 0)
        ends = self.rng.sample([("client", "c2"), ("server", "s2")], 2)
        self.call(*ends[0][:1], "close", ends[0][1])
        self.call(ends[1][0], "await_end", ends[1][1])
        self.call(ends[1][0], "recv", ends[1][1], 100, 0)
        self.call(ends[1][0], "close", ends[1][1])

    def do_listener(self, e):
        pick = self.rng.choice(["listen", "recv", "send", "connect", "option", "poll", "peername", "taken", "inq"])
        if pick == "listen":
            self.call("server", "listen", "l", self.rng.choice([1, 5, 128]))
        elif pick == "recv":
            self.call("server", "recv", "l", 10, 0)
        elif pick == "send":
            self.call("server", "send", "l", 0, 10, NOSIGNAL)
        elif pick == "connect":
            self.call("server", "connect", "l", self.args.address, self.port)
        elif pick == "option":
            self.option("server", "l")
        elif pick == "taken":
            self.call("server", "socket", "x")
            self.call("server", "bind", "x", self.args.address, self.port)
            self.call("server", "listen", "x", 5)
            self.call("server", "close", "x")
        else:
            self.call("server", pick, "l")

    def end_listener(self):
        """The listener goes, with a connection that nobody took, or shuts first."""
        pick = self.rng.choice(["leave", "close", "shutdown"])
        if pick == "leave" or self.args.no_resets:
            return
        self.call("client", "socket", "o")
        if pick == "close":
            self.call("client", "connect", "o", self.args.address, self.port)
            self.call("server", "await_accept", "l")
            self.call("server", "close", "l")
            self.call("client", "await_error", "o")
            self.call("client", "poll", "o")
        else:
            self.call("server", "shutdown", "l", SHUT_RD)
            self.call("server", "poll", "l")
            self.call("server", "accept", "l", "x")
            self.call("client", "connect", "o", self.args.address, self.port)
        self.call("client", "recv", "o", 10, 0)
        self.call("client", "close", "o")

    def run(self):
        self.listen()
        ends = self.connect()
        todo = [self.do_send] * 6 + [self.do_recv] * 6 + [self.do_look] * 5 + [self.do_epoll] * 4 + [self.do_option] * 2
        todo += [self.do_misuse] * 2 + [self.do_shutdown, self.do_bulk, self.do_fill, self.do_lowat, self.do_second, self.do_listener]
        for _ in range(self.rng.randint(10, 45)):
            e = self.rng.choice(ends)
            if e.closed:
                e = e.peer
            if e.closed:
                break
            if self.rng.random() < 0.03:
                self.do_close(e)
            else:
                self.rng.choice(todo)(e)
        for e in self.rng.sample(ends, 2):
            if not e.closed:
                self.do_look(e)
                self.do_close(e)
        self.call("server", "try_accept", "l")
        self.end_listener()
        for who in ("client", "server"):
            self.call(who, "forget")


def count_of(answer):
    """How many bytes a receiving call has taken."""
    if isinstance(answer, list):
        answer = answer[0]
    if isinstance(answer, str):
        return int(answer.split(":")[0]) if ":" in answer else 0
    return answer if isinstance(answer, int) else 0


def seeds_of(text):
    first, _, last = text.partition(":")
    return range(int(first), int(last or first) + 1)


def run(args):
    status = 0
    actors = {}
    for seed in seeds_of(args.seeds):
        out = []
        try:
            if not actors:
                actors = {"server": Actor(args.server), "client": Actor(args.client)}
            Script(seed, actors, args, out).run()
        except (Hang, BrokenPipeError) as e:
            out.append("hang: %s" % e)
            status = 1
            for a in actors.values():
                a.process.kill()
                a.end()
            actors = {}
        print("\n".join(out), flush=True)
    for a in actors.values():
        a.end()
    return status


def by_seed(path):
    scripts, seed = {}, None
    with open(path) as f:
        for line in f.read().splitlines():
            if line.startswith("seed "):
                seed = line
                scripts[seed] = []
            else:
                scripts[seed].append(line)
    return scripts


def compare(args):
    reference, got = by_seed(args.reference), by_seed(args.transcript)
    calls = differing = 0
    for seed, lines in reference.items():
        other = got.get(seed, [])
        calls += len(lines)
        if lines == other:
            continue
        differing += 1
        at = next((i for i, (a, b) in enumerate(zip(lines, other)) if a != b), min(len(lines), len(other)))
        print("%s differs at call %d:" % (seed, at + 1))
        for line in lines[max(at - args.context, 0) : at]:
            print("    " + line)
        print("  - " + (lines[at] if at < len(lines) else "(ended)"))
        print("  + " + (other[at] if at < len(other) else "(ended)"))
    print("%d scripts, %d calls, %d scripts differ" % (len(reference), calls, differing))
    return 1 if differing or len(got) < len(reference) else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    r = commands.add_parser("run")
    r.add_argument("--seeds", required=True, metavar="FIRST:LAST")
    r.add_argument("--server", default="", metavar="PREFIX")
    r.add_argument("--client", default="", metavar="PREFIX")
    r.add_argument("--address", default="127.0.0.1", help="of the server")
    r.add_argument("--client-address", default="", help="of the client, if it is another")
    r.add_argument("--wire", action="store_true", help="scripts that do not ask what a FIN's acknowledgement changes: over a wire it comes when it comes")
    r.add_argument("--no-resets", action="store_true", help="scripts without them, for wires that may lose one")
    r.add_argument("--bulk-divisor", type=int, default=1, help="send less at a time, on a bad wire")
    c = commands.add_parser("compare")
    c.add_argument("reference")
    c.add_argument("transcript")
    c.add_argument("--context", type=int, default=12, help="calls to show before the one that differs")
    args = parser.parse_args()
    sys.exit(run(args) if args.command == "run" else compare(args))


main()
