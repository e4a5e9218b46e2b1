# SPDX-License-Identifier: BSD-3-Clause
# sed -E: what has to go from freebsd-net/tcp-testsuite before google's packetdrill can run its scripts against a stack that is not FreeBSD's.
# Programs of FreeBSD's that look into its kernel.
/`[^`]*(sockstat|tcpdrop)/d
# How large its buffers are by default.
/getsockopt.*SO_(RCV|SND)BUF/d
# Where it departs from the standard both ways are written down.
/^#ifdef FreeBSD/,/^#endif/d
/^#(ifdef|endif)/d
# Its order of options in a SYN, and its windows.
s/^([ \t]*[-+*~0-9.]+[ \t]*>[ \t]*S[^<]*)<[^>]*>/\1<...>/
s/^([ \t]*[-+*~0-9.]+[ \t]*>.*)\bwin +[0-9]+/\1/
# Its names of states in TCP_INFO; google's packetdrill has the numbers' names without the I.
s/\bTCPI_CLOSED\b/TCP_CLOSE/g
s/\bTCPI_SYN_RECEIVED\b/TCP_SYN_RECV/g
s/\bTCPI_FIN_WAIT_([12])\b/TCP_FIN_WAIT\1/g
s/\bTCPI_(ESTABLISHED|SYN_SENT|CLOSE_WAIT|CLOSING|LAST_ACK|LISTEN|TIME_WAIT)\b/TCP_\1/g
# Codes of ICMP that google's packetdrill knows by number alone.
s/ttl_exceeded_in_transit/code_0/
s/frag_reass_exceeded/code_1/
# The ACK of a FIN may wait 40 ms here, as Linux's does.
s/^--tolerance_usecs=10000$/--tolerance_usecs=50000/
