#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Write the seed inputs into corpus/ beside this file: one for each thing that a target can do."""
import os
import struct

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")


def seed(target, name, data):
    folder = os.path.join(HERE, target)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as f:
        f.write(data)


FIN, SYN, RST, PSH, ACK, ECE, CWR = 1, 2, 4, 8, 16, 64, 128


# fuzz_segment: kinds of steps 0 segment, 3 call, 5 unreachable, 6 time.
def seg(to, flags, seq=0, ack=0, window=65535, length=0, options=b"\0"):
    return struct.pack("<BBBhhHBH", 0, to, flags, seq, ack, window, 0, length) + options


def call(user, what, rest=b""):
    return bytes([3, (user - 1) << 5 | what]) + rest


def time(unit, n):
    return bytes([6, unit | (n - 1) << 3])


MSS_TS_SACK = b"\x0d" + struct.pack("<HIb", 1460, 1000, 0)
connect = call(1, 0, b"\x02")
open_active = connect + seg(0, SYN | ACK, 0, 0, options=MSS_TS_SACK)
open_passive = call(1, 0, b"\x40") + seg(8, SYN) + seg(0, ACK, 1) + call(1, 3)
seed("fuzz_segment", "active", open_active + call(1, 0, struct.pack("<H", 5000)) + seg(0, ACK, 1)
     + seg(0, ACK | PSH, 1, length=1000) + call(1, 2, struct.pack("<H", 1000)) + time(2, 8) + call(1, 4)
     + seg(0, FIN | ACK, 1) + time(3, 30))
seed("fuzz_segment", "passive", open_passive + seg(0, ACK, 1, length=100) + seg(0, FIN | ACK, 101) + call(2, 3)
     + call(2, 4) + seg(0, ACK, 102) + time(3, 30))
seed("fuzz_segment", "loss", open_active + call(1, 8, struct.pack("<H", 2000))
     + seg(0, ACK, 1, -20000, options=b"\x1c" + struct.pack("<IbHh", 1001, 0, 2000, 1000)) * 4 + time(2, 30)
     + time(3, 10) + seg(0, ACK, 1))
seed("fuzz_segment", "disorder", open_active + seg(0, ACK, 2000, length=500) + seg(0, ACK, 1000, length=500)
     + seg(0, FIN | ACK, 2500) + seg(0, ACK, 1, length=1000) + seg(0, RST, 1) + time(3, 5))
seed("fuzz_segment", "unreachable", connect + bytes([5, 0, 1, 0, 0, 0]) + open_active + bytes([5, 0x18, 1, 0, 0x58, 2])
     + time(3, 31) * 4)
seed("fuzz_segment", "options", open_active + b"".join(call(1, 6, struct.pack("<Bi", o, 1)) for o in range(19))
     + call(1, 3) + time(3, 31) * 5 + call(1, 5))
seed("fuzz_segment", "flood", call(1, 0, b"\x10") + b"".join(seg(8 | n << 5, SYN) for n in range(8)) + time(3, 31) * 3)
seed("fuzz_segment", "bind", call(1, 0, b"\x01") + call(1, 0, b"\x02") + call(2, 0, b"\x05") + call(2, 0, b"\x00")
     + call(3, 0, b"\x00") + time(0, 1))


# fuzz_frame: 0 raw, 1 segment, 2 IPv4 packet, 3 application; bits 2..4 the time that passes.
def tcp(flags, seq=0, ack=0, window=65535, options=b""):
    words = 5 + len(options) // 4
    return struct.pack(">IIBBHHH", seq & 0xffffffff, ack & 0xffffffff, words << 4, flags, window, 0, 0) + options


def frame_seg(how, flags, seq=0, ack=0, step=1, **more):
    body = tcp(flags, seq, ack, **more)
    return bytes([1 | step << 2, len(body)]) + body + bytes([how])


def packet(proto, body, frag=0, step=1, pad=0):
    whole = struct.pack(">BBHHHBBHII", 0x45, 0, 20 + len(body) + pad * 160, 7, frag, 64, proto, 0, 0x0a000002,
                        0x0a000001) + body
    return bytes([2 | step << 2 | pad << 5, len(whole)]) + whole


def app(how, step=1):
    return bytes([3 | step << 2, how])


arp = bytes.fromhex("020000000001020000000002080600010800060400010200000000020a0000020000000000000a000001")
syn = frame_seg(1, SYN, 99, options=bytes.fromhex("020405b4010303070101040200000000"))
seed("fuzz_frame", "data", frame_seg(80, ACK | PSH) + app(1) + app(0x40) + frame_seg(0, ACK, ack=0, step=3) + app(3, 5)
     + frame_seg(0, FIN | ACK) + app(0x83, 7))
seed("fuzz_frame", "listener", syn + frame_seg(1, ACK, 100) + app(2) + frame_seg(1, RST, 100) + frame_seg(3, SYN, 5)
     + app(2, 6))
seed("fuzz_frame", "disorder", frame_seg(80, ACK, 460) + frame_seg(80, ACK, 920) + frame_seg(80, ACK, 0)
     + frame_seg(0, ACK, -1, -1, options=bytes.fromhex("0101050a0000000100000002")) + app(1))
seed("fuzz_frame", "arp", bytes([4, len(arp)]) + arp + bytes([0, 20]) + arp[:20])
seed("fuzz_frame", "fragments", packet(6, b"\x03\xe8\x00\x50" + tcp(SYN, 9), 0x2000, pad=0) + packet(6, b"x" * 40, 3)
     + packet(6, b"\x03\xe8\x00\x50" + tcp(ACK, 9), 0x2000, pad=2) + packet(6, b"y" * 40, 43, step=6))
seed("fuzz_frame", "icmp", packet(1, b"\x08\0\0\0\0\1\0\1ping")
     + packet(1, b"\x03\x04\0\0\0\0\2\x58" + struct.pack(">BBHHHBBHII", 0x45, 0, 60, 7, 0, 64, 6, 0, 0x0a000001,
                                                       0x0a000002) + b"\x80\0\0\x51\0\0\0\1")
     + packet(1, b"\x03\x01\0\0\0\0\0\0"))


# fuzz_front: 0 scribble, 2 notify, 3 command, 4 stream, 5 family, 6 peer, 7 time.
def front_cmd(slot, op, rest=b""):
    return bytes([0x83, slot, op]) + rest


def scribble(where, off, value):
    return struct.pack("<BBHI", 0x80, where, off, value)


opt = struct.pack("<Ii", 0, 8)
seed("fuzz_front", "calls", front_cmd(1, 1, bytes(8)) + front_cmd(1, 2, b"\x63") + front_cmd(1, 3, opt) + front_cmd(1, 9, bytes(8))
     + front_cmd(2, 1, bytes(8)) + front_cmd(0x42, 4, b"\x50") + b"\x0f" + front_cmd(2, 8, opt) + front_cmd(2, 7, opt)
     + front_cmd(1, 7, opt) + b"\x1f")
seed("fuzz_front", "streams", b"\x04\x00\x00\x10\x0f" + b"\x06\x00\x00\x10\x0f" + b"\x04\x88\x0f" + b"\x06\x01\0\0\x0f"
     + b"\x04\x10\xff\xff\x17")
seed("fuzz_front", "scribble", b"".join(scribble(0x80, o, 0xffffffff) + b"\x82\x00" for o in range(0, 24, 4))
     + scribble(0, 128, 0x7fffffff) + b"\x04\x00\x00\x10\x0f")
seed("fuzz_front", "ring", scribble(2, 128, 5) + scribble(2, 132, 3) + b"\x8f" + scribble(2, 384, 0x99999999) + b"\x1f")
seed("fuzz_front", "family", b"\x85\0" + b"\x85\1" + b"\x85\x08" + front_cmd(0, 10, bytes(8)) + b"\x06\0\x20\0\x0f"
     + b"\x85\0" + b"\x85\x08" + front_cmd(0, 11, bytes(8)) + b"\x1f")

# fuzz_control: a closed client says hello with a kind; an open one by bits 2..3: 0 message, 1 bytes, 2 read, 3 close.
app_hello, fork_hello, tool_hello = b"\x00\x01", b"\x01\x02", b"\x02\x03"
msg = lambda client, op, value=0, text=b"": bytes([client, op, value, len(text)]) + text
seed("fuzz_control", "application", app_hello + msg(0, 1) + b"\x08" + msg(0, 6) + msg(0, 2, 0) + msg(0, 2, 9) + b"\x0c")
seed("fuzz_control", "fork", app_hello + fork_hello + msg(1, 6) + msg(1, 1) + b"\x0c" + msg(1, 2) + b"\x0d")
seed("fuzz_control", "tool", tool_hello + msg(2, 3, 0, b"lines") + b"\x0a\x0a" + msg(2, 3, 0, b"x") + msg(2, 3, 0, b"no"))
seed("fuzz_control", "noise", b"\x10\x09" + app_hello + b"\x14\x05abcde" + b"\x03\x03" + b"\x57\x04wxyz" + b"\x33\x03"
     + msg(0x13, 3, 0, b"q"))

# fuzz_options: 0 file, 1 command line, 2 impairment, 3 knobs.
seed("fuzz_options", "file", b"\0# comment\n[isosock]\naddress = 10.0.0.2/24\ngateway = 10.0.0.1\nmtu = 1500 # bytes\n"
     b"mode = up\nidle = sleep\nrcvbuf = 64k\ntimestamps = off\nport = 0,impair=loss:1%,delay:10ms\n")
seed("fuzz_options", "file_bad", b"\0[isosock]\nnothing here\n[other]\n = \nname = value = value\n")
seed("fuzz_options", "words", b"\1--address\n10.0.0.2/24\n--mode=isostack,queues=percpu,aggregate=on\n--no-timestamps\n"
     b"--rx-buffers\n4096\n--port-min=1024\n--seed=7\n--control\n/run/x")
seed("fuzz_options", "impair", b"\2loss:1%,delay:10ms,reorder:2%,dup:1%,corrupt:0.1%,seed:7")
seed("fuzz_options", "impair_wire", b"\2loss:100%,rate:10M,queue:20ms,delay:10s,seed:0xffffffffffffffff")
seed("fuzz_options", "impair_bad", b"\2rate:1e300k,queue:-1ms,delay:nanms,loss:101%,,seed:-1,")
seed("fuzz_options", "knobs", b"\0030,impair=loss:1%,delay:10ms,on,bytes=64k,number=7,queues=perthread")
