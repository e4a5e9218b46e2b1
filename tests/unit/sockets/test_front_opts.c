/* SPDX-License-Identifier: BSD-3-Clause */
/* Socket options against a stack in memory: each value is given to a socket of the kernel's too, and both must say the same. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/net_tstamp.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <linux/errqueue.h> /* wants struct timespec */

#include <cmocka.h>

#include "front.h"
#include "isosock.h"
#include "tcp/tcp.h"
#include "test_front_stack.h"

/* A socket of the stack's that is neither connected nor a listener. */
static int
bound(void)
{
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(4000) };
    int fd = iso_socket(AF_INET, SOCK_STREAM, 0);

    sa.sin_addr.s_addr = inet_addr(FS_ADDRESS);
    assert_int_equal(iso_bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    return fd;
}

/* ---- as the kernel has it ------------------------------------------------------------------------------------------------------ */

static const struct row {
    const char *what;
    int level, name;
    int values[8];
    unsigned n;
} rows[] = {
    { "SO_REUSEADDR", SOL_SOCKET, SO_REUSEADDR, { 0, 1, 7, -1 }, 4 },
    { "SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE, { 0, 1, 7 }, 3 },
    { "SO_OOBINLINE", SOL_SOCKET, SO_OOBINLINE, { 1, 0 }, 2 },
    { "SO_RCVBUF", SOL_SOCKET, SO_RCVBUF, { 0, 1, 1151, 1152, 5000, 100000 }, 6 },
    { "SO_SNDBUF", SOL_SOCKET, SO_SNDBUF, { 0, 1, 2303, 2304, 5000, 100000 }, 6 },
    { "SO_RCVLOWAT", SOL_SOCKET, SO_RCVLOWAT, { 0, 1, 2, 1000 }, 4 },
    { "SO_PRIORITY", SOL_SOCKET, SO_PRIORITY, { 0, 3, 6 }, 3 },
    { "SO_ZEROCOPY", SOL_SOCKET, SO_ZEROCOPY, { 0, 1, 2, -1 }, 4 },
    { "SO_TIMESTAMP", SOL_SOCKET, SO_TIMESTAMP_OLD, { 0, 1, 7 }, 3 },
    { "SO_TIMESTAMPNS", SOL_SOCKET, SO_TIMESTAMPNS_OLD, { 0, 1, -1 }, 3 },
    { "SO_TIMESTAMP_NEW", SOL_SOCKET, SO_TIMESTAMP_NEW, { 0, 1 }, 2 },
    { "SO_TIMESTAMPNS_NEW", SOL_SOCKET, SO_TIMESTAMPNS_NEW, { 0, 1 }, 2 },
    { "SO_TIMESTAMPING", SOL_SOCKET, SO_TIMESTAMPING_OLD, { 0, 0x18, 0x7f, 1 << 7, 1 << 12, 1 << 16, 1 << 30, -1 }, 8 },
    { "SO_TIMESTAMPING_NEW", SOL_SOCKET, SO_TIMESTAMPING_NEW, { 0, 0x18, 1 << 19 }, 3 },
    { "SO_MAX_PACING_RATE", SOL_SOCKET, SO_MAX_PACING_RATE, { 0, 1000, -1, INT32_MAX }, 4 },
    { "TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY, { 0, 1, 9, -1 }, 4 },
    { "TCP_CORK", IPPROTO_TCP, TCP_CORK, { 0, 1, 9 }, 3 },
    { "TCP_MAXSEG", IPPROTO_TCP, TCP_MAXSEG, { -1, 87, 88, 1000, 32767, 32768, 0 }, 7 },
    { "TCP_KEEPIDLE", IPPROTO_TCP, TCP_KEEPIDLE, { 0, 1, 32767, 32768, -1 }, 5 },
    { "TCP_KEEPINTVL", IPPROTO_TCP, TCP_KEEPINTVL, { 0, 1, 32767, 32768 }, 4 },
    { "TCP_KEEPCNT", IPPROTO_TCP, TCP_KEEPCNT, { 0, 1, 127, 128 }, 4 },
    { "TCP_SYNCNT", IPPROTO_TCP, TCP_SYNCNT, { 0, 1, 127, 128 }, 4 },
    { "TCP_USER_TIMEOUT", IPPROTO_TCP, TCP_USER_TIMEOUT, { -1, 0, 1, 3000000 }, 4 },
    { "TCP_LINGER2", IPPROTO_TCP, TCP_LINGER2, { -5, 0, 1, 30, 120, 121, 100000 }, 7 },
    { "TCP_WINDOW_CLAMP", IPPROTO_TCP, TCP_WINDOW_CLAMP, { 0, 1, 1151, 1152, 70000, -1, INT32_MIN }, 7 },
    { "TCP_DEFER_ACCEPT", IPPROTO_TCP, TCP_DEFER_ACCEPT, { -1, 0, 1, 2, 3, 5, 30, 1000 }, 8 },
    { "TCP_NOTSENT_LOWAT", IPPROTO_TCP, TCP_NOTSENT_LOWAT, { 0, 1, 16384 }, 3 },
    { "TCP_FASTOPEN_CONNECT", IPPROTO_TCP, TCP_FASTOPEN_CONNECT, { 0, 1, 2, -1 }, 4 },
    { "TCP_FASTOPEN_NO_COOKIE", IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, { 0, 1, 2, -1 }, 4 },
    { "TCP_FASTOPEN", IPPROTO_TCP, TCP_FASTOPEN, { 0, 5, 4096, -1 }, 4 },
    { "IP_TOS", IPPROTO_IP, IP_TOS, { 0, 16, 0xb8, 3, 255, 256, -1 }, 7 },
    { "IP_MTU_DISCOVER",
      IPPROTO_IP,
      IP_MTU_DISCOVER,
      { IP_PMTUDISC_WANT, IP_PMTUDISC_DONT, IP_PMTUDISC_PROBE, IP_PMTUDISC_OMIT, -1, 6 },
      6 },
};

struct answer {
    int rc, err, get_rc, value;
    socklen_t len;
};

static struct answer
ask(int fd, const struct row *r, int value, int (*set)(int, int, int, const void *, socklen_t),
    int (*get)(int, int, int, void *, socklen_t *))
{
    struct answer a = { .len = sizeof(a.value) };

    a.rc = set(fd, r->level, r->name, &value, sizeof(value));
    a.err = a.rc < 0 ? errno : 0;
    a.get_rc = get(fd, r->level, r->name, &a.value, &a.len);
    return a;
}

static void
test_values_read_back_as_in_linux(void **state)
{
    unsigned i, k, wrong = 0;

    (void)state;
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct row *r = &rows[i];
        int ours = bound(), theirs = socket(AF_INET, SOCK_STREAM, 0);

        for (k = 0; k < r->n; k++) {
            struct answer a = ask(ours, r, r->values[k], iso_setsockopt, iso_getsockopt);
            struct answer b = ask(theirs, r, r->values[k], setsockopt, getsockopt);

            if (a.rc == b.rc && a.err == b.err && a.get_rc == b.get_rc && a.value == b.value && a.len == b.len)
                continue;
            print_error("%s %d: %d (%s), then %d; the kernel %d (%s), then %d\n", r->what, r->values[k], a.rc,
                        strerror(a.err), a.value, b.rc, strerror(b.err), b.value);
            wrong++;
        }
        iso_close(ours);
        close(theirs);
    }
    assert_int_equal(wrong, 0);
}

/* Whose value, where the program has set none, is the size of something. */
static bool
is_size(const struct row *r)
{
    return r->level == SOL_SOCKET && (r->name == SO_RCVBUF || r->name == SO_SNDBUF);
}

/* The kernel's answer to a value of that length, and to the question for it. */
static void
assert_same_length(int ours, int theirs, const struct row *r, socklen_t set_len, socklen_t get_len)
{
    const char value[16] = { 1 };
    char a[16] = "", b[16] = "";
    socklen_t a_len = get_len, b_len = get_len;
    int rc = iso_setsockopt(ours, r->level, r->name, set_len > 0 ? value : NULL, set_len);
    int err = rc < 0 ? errno : 0;

    if (setsockopt(theirs, r->level, r->name, set_len > 0 ? value : NULL, set_len) != rc || (rc < 0 && errno != err))
        fail_msg("%s, %u bytes: %d (%s)", r->what, set_len, rc, strerror(err));
    rc = iso_getsockopt(ours, r->level, r->name, a, &a_len);
    assert_int_equal(getsockopt(theirs, r->level, r->name, b, &b_len), rc);
    if (a_len != b_len || (!is_size(r) && memcmp(a, b, sizeof(a)) != 0))
        fail_msg("%s into %u bytes: %u bytes, the kernel's %u", r->what, get_len, a_len, b_len);
}

/* Too short and too long ones too; before the socket is the stack's they are noted, and no more is read than there is. */
static void
test_lengths_are_linuxs(void **state)
{
    static const socklen_t lengths[] = { 0, 1, 2, 3, 4, 5, 8, 16 };

    (void)state;
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (unsigned k = 0; k < sizeof(lengths) / sizeof(lengths[0]); k++) {
            /* None is 0, which asks for fragments: refused here. */
            if (rows[i].name == IP_MTU_DISCOVER && rows[i].level == IPPROTO_IP && lengths[k] == 0)
                continue;
            int ours = bound(), undecided = iso_socket(AF_INET, SOCK_STREAM, 0),
                theirs = socket(AF_INET, SOCK_STREAM, 0);

            assert_same_length(ours, theirs, &rows[i], lengths[k], lengths[k]);
            assert_same_length(undecided, theirs, &rows[i], lengths[k], lengths[k]);
            iso_close(ours);
            iso_close(undecided);
            close(theirs);
        }
    }
}

/* Fresh sockets agree too, where the answer is a setting and not the size of something. */
static void
test_defaults_are_linuxs(void **state)
{
    static const int no_setting[] = { SO_RCVBUF, SO_SNDBUF };
    int ours = bound(), theirs = socket(AF_INET, SOCK_STREAM, 0);
    unsigned i;

    (void)state;
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct row *r = &rows[i];
        int a = -1, b = -1;
        socklen_t len = sizeof(a);

        if (r->level == SOL_SOCKET && (r->name == no_setting[0] || r->name == no_setting[1]))
            continue;
        assert_int_equal(iso_getsockopt(ours, r->level, r->name, &a, &len), 0);
        assert_int_equal(getsockopt(theirs, r->level, r->name, &b, &len), 0);
        if (a != b)
            fail_msg("%s: %d, the kernel's %d", r->what, a, b);
    }
    iso_close(ours);
    close(theirs);
}

/* What is not honoured is refused, in both directions. */
static void
test_others_are_refused(void **state)
{
    static const struct {
        int level, name;
    } refused[] = {
        { SOL_SOCKET, SO_MARK },        { SOL_SOCKET, SO_BINDTODEVICE },     { SOL_SOCKET, SO_ATTACH_FILTER },
        { SOL_SOCKET, SO_BUSY_POLL },   { IPPROTO_TCP, TCP_REPAIR },         { IPPROTO_TCP, TCP_ULP },
        { IPPROTO_TCP, TCP_SAVE_SYN },  { IPPROTO_TCP, TCP_TX_DELAY },       { IPPROTO_IP, IP_TTL },
        { IPPROTO_IP, IP_TRANSPARENT }, { IPPROTO_IPV6, IPV6_UNICAST_HOPS }, { 12345, 1 },
    };
    int fd = bound(), v = 1;
    socklen_t len = sizeof(v);
    unsigned i;

    (void)state;
    for (i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        assert_int_equal(iso_setsockopt(fd, refused[i].level, refused[i].name, &v, sizeof(v)), -1);
        assert_int_equal(errno, ENOPROTOOPT);
        assert_int_equal(iso_getsockopt(fd, refused[i].level, refused[i].name, &v, &len), -1);
        assert_int_equal(errno, ENOPROTOOPT);
    }
    v = 7;
    assert_int_equal(iso_setsockopt(fd, SOL_SOCKET, SO_PRIORITY, &v, sizeof(v)), -1);
    assert_int_equal(errno, EPERM);
    iso_close(fd);
}

static void
test_rcvlowat_is_bounded_by_the_buffer(void **state)
{
    int fd = bound(), v = 4000;
    socklen_t len = sizeof(v);

    (void)state;
    assert_int_equal(iso_setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &v, sizeof(v)), 0);
    v = 10000;
    assert_int_equal(iso_setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &v, sizeof(v)), 0);
    assert_int_equal(iso_getsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &v, &len), 0);
    assert_int_equal(v, 4000);
    iso_close(fd);
}

static void
test_linger_keeps_its_time_when_switched_off(void **state)
{
    int fd = bound();
    struct linger lg = { 1, 30 };
    socklen_t len = sizeof(lg);

    (void)state;
    assert_int_equal(iso_setsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, sizeof(lg)), 0);
    lg = (struct linger){ 0, 7 };
    assert_int_equal(iso_setsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, sizeof(lg)), 0);
    assert_int_equal(iso_getsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, &len), 0);
    assert_int_equal(lg.l_onoff, 0);
    assert_int_equal(lg.l_linger, 30);
    assert_int_equal(iso_setsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, sizeof(lg) - 1), -1);
    assert_int_equal(errno, EINVAL);
    iso_close(fd);
}

static void
test_congestion_goes_by_name(void **state)
{
    int fd = bound();

    (void)state;
    assert_int_equal(iso_setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5), 0);
    assert_string_equal(fs_congestion(), "cubic");
    /* Behind a NUL nothing counts; nothing behind the fifteenth byte does either. */
    assert_int_equal(iso_setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "dctcp\0xyz", 9), 0);
    assert_string_equal(fs_congestion(), "dctcp");
    assert_int_equal(iso_setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "nonesuch", 8), -1);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(iso_setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "a name that is far too long", 27), -1);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(iso_setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 0), -1);
    assert_int_equal(errno, EINVAL);
    iso_close(fd);
}

/* ---- keys ------------------------------------------------------------------------------------------------------------------------ */

static struct tcp_md5sig
md5_for(const char *peer, const char *key)
{
    struct sockaddr_in in = { .sin_family = AF_INET };
    struct tcp_md5sig sig = { .tcpm_keylen = (uint16_t)strlen(key) };

    inet_pton(AF_INET, peer, &in.sin_addr);
    memcpy(&sig.tcpm_addr, &in, sizeof(in));
    memcpy(sig.tcpm_key, key, strlen(key));
    return sig;
}

static int
set_md5(int fd, int name, struct tcp_md5sig sig)
{
    return iso_setsockopt(fd, IPPROTO_TCP, name, &sig, sizeof(sig)) == 0 ? 0 : -errno;
}

/* The structure on its way to the stack; what is wrong with it never goes there. */
static void
test_md5_keys(void **state)
{
    struct tcp_md5sig net = md5_for("10.66.0.0", "of a net"), sig = md5_for("10.66.0.7", "sesame");
    int fd = bound();

    (void)state;
    assert_int_equal(set_md5(fd, TCP_MD5SIG, sig), 0);
    assert_int_equal(fs_key()->kind, SHM_KEY_MD5);
    assert_int_equal(fs_key()->prefix_len, 128);
    assert_int_equal(fs_key()->addr[2], htonl(0xffff));
    assert_int_equal(fs_key()->addr[3], htonl(0x0a420007));
    assert_int_equal(fs_key()->n_bytes, 6);
    assert_memory_equal(fs_key()->bytes, "sesame", 6);
    net.tcpm_prefixlen = 24;
    net.tcpm_flags = TCP_MD5SIG_FLAG_PREFIX;
    assert_int_equal(set_md5(fd, TCP_MD5SIG_EXT, net), 0);
    assert_int_equal(fs_key()->prefix_len, 120);
    assert_int_equal(set_md5(fd, TCP_MD5SIG, net), 0); /* which knows nothing of prefixes */
    assert_int_equal(fs_key()->prefix_len, 128);
    assert_int_equal(set_md5(fd, TCP_MD5SIG, md5_for("10.66.0.7", "")), -ENOENT);
    net.tcpm_prefixlen = 33;
    assert_int_equal(set_md5(fd, TCP_MD5SIG_EXT, net), -EINVAL);
    net.tcpm_flags = TCP_MD5SIG_FLAG_IFINDEX;
    net.tcpm_ifindex = 1;
    assert_int_equal(set_md5(fd, TCP_MD5SIG_EXT, net), -EINVAL);
    sig.tcpm_keylen = TCP_MD5SIG_MAXKEYLEN + 1;
    assert_int_equal(set_md5(fd, TCP_MD5SIG, sig), -EINVAL);
    sig = md5_for("10.66.0.7", "sesame");
    sig.tcpm_addr.ss_family = AF_INET6;
    assert_int_equal(set_md5(fd, TCP_MD5SIG, sig), -EINVAL);
    assert_int_equal(iso_setsockopt(fd, IPPROTO_TCP, TCP_MD5SIG, &sig, sizeof(sig) - 1), -1);
    assert_int_equal(errno, EINVAL);
    iso_close(fd);
}

/* Set while the socket is the kernel's, they go with it; those that were taken away do not. */
static void
test_keys_change_sides(void **state)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = inet_addr(FS_ADDRESS), .sin_port = htons(7000) };
    int fd = iso_socket(AF_INET, SOCK_STREAM, 0);

    (void)state;
    if (set_md5(fd, TCP_MD5SIG, md5_for("10.66.0.7", "once")) != 0)
        skip(); /* a kernel without it */
    assert_int_equal(set_md5(fd, TCP_MD5SIG, md5_for("10.66.0.7", "")), 0);
    assert_int_equal(set_md5(fd, TCP_MD5SIG, md5_for("10.66.0.8", "before")), 0);
    assert_int_equal(set_md5(fd, TCP_MD5SIG, md5_for("10.66.0.8", "after")), 0);
    assert_int_equal(iso_bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(fs_key()->addr[3], htonl(0x0a420008));
    assert_int_equal(fs_key()->n_bytes, 5);
    assert_memory_equal(fs_key()->bytes, "after", 5);
    iso_close(fd);
}

static void
test_fastopen_keys(void **state)
{
    char keys[33] = "0123456789abcdeffedcba9876543210";
    int fd = bound();

    (void)state;
    assert_int_equal(iso_setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_KEY, keys, 32), 0);
    assert_int_equal(fs_key()->kind, SHM_KEY_FASTOPEN);
    assert_int_equal(fs_key()->n_bytes, 32);
    assert_memory_equal(fs_key()->bytes, keys, 32);
    assert_int_equal(iso_setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_KEY, keys, 16), 0);
    assert_int_equal(fs_key()->n_bytes, 16);
    for (socklen_t len = 0; len <= sizeof(keys); len++) {
        if (len == 16 || len == 32)
            continue;
        assert_int_equal(iso_setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_KEY, keys, len), -1);
        assert_int_equal(errno, EINVAL);
    }
    iso_close(fd);
}

/* ---- marks ------------------------------------------------------------------------------------------------------------------------ */

static short
polled(int fd, short events)
{
    struct pollfd p = { .fd = fd, .events = events };

    assert_true(iso_poll(&p, 1, 0) >= 0);
    return p.revents;
}

static void
test_rcvlowat_holds_readers(void **state)
{
    int fd = fs_connected(0), v = 10, i;
    uint32_t slot = fs_slot(fd);
    struct timeval tv = { 0, 20000 };
    char buf[100];

    (void)state;
    assert_int_equal(iso_setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &v, sizeof(v)), 0);
    assert_int_equal(fs_option(SHM_OPT_RCVLOWAT), 10);
    fs_deliver(slot, "12345", 5, 100);
    assert_int_equal(polled(fd, POLLIN), 0);
    /* A call that does not wait takes what is there, one that waits goes on until the mark, or its own size. */
    assert_int_equal(iso_recv(fd, buf, sizeof(buf), MSG_DONTWAIT), 5);
    fs_deliver(slot, "1234567890", 10, 100);
    assert_int_equal(polled(fd, POLLIN), POLLIN);
    assert_int_equal(iso_recv(fd, buf, 4, 0), 4);
    assert_int_equal(polled(fd, POLLIN), 0);
    assert_int_equal(iso_setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)), 0);
    assert_int_equal(iso_recv(fd, buf, sizeof(buf), 0), 6); /* after 20 ms */
    /* All trains are in use: no more bytes would ever be shown. */
    for (i = 0; i < (int)SHM_TRAINS; i++) {
        assert_int_equal(polled(fd, POLLIN), 0);
        fs_deliver(slot, "x", 1, 100);
    }
    assert_int_equal(polled(fd, POLLIN), POLLIN);
    assert_int_equal(iso_recv(fd, buf, sizeof(buf), MSG_DONTWAIT), SHM_TRAINS);
    fs_deliver(slot, "x", 1, 100);
    fs_fin(slot);
    assert_int_equal(polled(fd, POLLIN), POLLIN);
    assert_int_equal(iso_recv(fd, buf, sizeof(buf), 0), 1);
    assert_int_equal(iso_recv(fd, buf, sizeof(buf), 0), 0);
    iso_close(fd);
}

static void
test_notsent_lowat_holds_writers(void **state)
{
    int fd = fs_connected(SOCK_NONBLOCK), v = 1000;
    uint32_t slot = fs_slot(fd);
    char buf[3000] = "";

    (void)state;
    assert_int_equal(iso_setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &v, sizeof(v)), 0);
    assert_int_equal(fs_option(SHM_OPT_NOTSENT_LOWAT), 1000);
    assert_int_equal(polled(fd, POLLOUT), POLLOUT);
    assert_int_equal(iso_write(fd, buf, sizeof(buf)), sizeof(buf)); /* one piece may exceed the mark */
    assert_int_equal(polled(fd, POLLOUT), 0);
    assert_int_equal(iso_write(fd, buf, 1), -1);
    assert_int_equal(errno, EAGAIN);
    fs_transmit(slot, 2499);
    assert_int_equal(polled(fd, POLLOUT), 0);
    assert_int_equal(iso_write(fd, buf, 1), 1); /* below the mark, though not below half of it */
    fs_transmit(slot, 3);
    assert_int_equal(polled(fd, POLLOUT), POLLOUT);
    fs_transmit(slot, 499);
    fs_ack(slot, 3001);
    iso_close(fd);
}

/* ---- MSG_ZEROCOPY, MSG_EOR -------------------------------------------------------------------------------------------------------- */

static void
test_zerocopy_completes_on_the_error_queue(void **state)
{
    int fd = fs_connected(SOCK_NONBLOCK), v = 1;
    char control[CMSG_SPACE(sizeof(struct sock_extended_err))];
    struct msghdr msg = { .msg_control = control, .msg_controllen = sizeof(control) };
    const struct sock_extended_err *e = (const void *)CMSG_DATA((struct cmsghdr *)control);

    (void)state;
    /* Without SO_ZEROCOPY the flag says nothing, as in Linux. */
    assert_int_equal(iso_send(fd, "abc", 3, MSG_ZEROCOPY), 3);
    assert_int_equal(polled(fd, POLLOUT), POLLOUT);
    assert_int_equal(iso_recvmsg(fd, &msg, MSG_ERRQUEUE), -1);
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(iso_setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &v, sizeof(v)), 0);
    assert_int_equal(iso_send(fd, "abc", 3, MSG_ZEROCOPY), 3);
    assert_int_equal(iso_send(fd, "abc", 3, 0), 3);
    assert_int_equal(iso_send(fd, "abc", 3, MSG_ZEROCOPY), 3);
    assert_int_equal(polled(fd, POLLOUT), POLLOUT | POLLERR);
    assert_int_equal(iso_recvmsg(fd, &msg, MSG_ERRQUEUE), 0);
    assert_int_equal(msg.msg_flags, MSG_ERRQUEUE);
    assert_int_equal(msg.msg_controllen, sizeof(control));
    assert_int_equal(((struct cmsghdr *)control)->cmsg_level, SOL_IP);
    assert_int_equal(((struct cmsghdr *)control)->cmsg_type, IP_RECVERR);
    assert_int_equal(e->ee_errno, 0);
    assert_int_equal(e->ee_origin, SO_EE_ORIGIN_ZEROCOPY);
    assert_int_equal(e->ee_code, SO_EE_CODE_ZEROCOPY_COPIED);
    assert_int_equal(e->ee_info, 0);
    assert_int_equal(e->ee_data, 1);
    assert_int_equal(polled(fd, POLLOUT), POLLOUT);
    /* No error of the connection's: it goes on, and so do the numbers. */
    assert_int_equal(iso_send(fd, "abc", 3, MSG_ZEROCOPY), 3);
    msg.msg_controllen = 5;
    assert_int_equal(iso_recvmsg(fd, &msg, MSG_ERRQUEUE), 0);
    assert_int_equal(msg.msg_flags, MSG_ERRQUEUE | MSG_CTRUNC);
    assert_int_equal(iso_recvmsg(fd, &msg, MSG_ERRQUEUE), -1);
    fs_ack(fs_slot(fd), 15);
    iso_close(fd);
}

/* ---- timestamps ----------------------------------------------------------------------------------------------------------------- */

/* The next message of the error queue; its key, and what it tells of. */
static uint32_t
stamp_of(int fd, uint32_t *kind, struct timespec *at)
{
    char control[256];
    struct msghdr msg = { .msg_control = control, .msg_controllen = sizeof(control) };
    struct sock_extended_err e;

    assert_int_equal(iso_recvmsg(fd, &msg, MSG_ERRQUEUE), 0);
    assert_int_equal(msg.msg_flags, MSG_ERRQUEUE | MSG_TRUNC);
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    assert_int_equal(c->cmsg_level, SOL_SOCKET);
    assert_int_equal(c->cmsg_type, SCM_TIMESTAMPING);
    assert_int_equal(c->cmsg_len, CMSG_LEN(sizeof(struct scm_timestamping)));
    memcpy(at, CMSG_DATA(c), sizeof(*at));
    c = CMSG_NXTHDR(&msg, c);
    assert_int_equal(c->cmsg_level, SOL_IP);
    assert_int_equal(c->cmsg_type, IP_RECVERR);
    memcpy(&e, CMSG_DATA(c), sizeof(e));
    assert_int_equal(e.ee_errno, ENOMSG);
    assert_int_equal(e.ee_origin, SO_EE_ORIGIN_TIMESTAMPING);
    assert_null(CMSG_NXTHDR(&msg, c));
    *kind = e.ee_info;
    return e.ee_data;
}

static void
test_stamps_of_what_was_sent(void **state)
{
    int fd = fs_connected(SOCK_NONBLOCK);
    int v = SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_TX_ACK |
            SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_ID;
    uint32_t slot = fs_slot(fd), kind;
    const uint32_t *flags = &front_sock(slot)->tx_flags;
    struct timespec at, now;
    struct msghdr msg = { 0 };

    (void)state;
    assert_int_equal(iso_send(fd, "abcde", 5, 0), 5);
    assert_int_equal(*flags & SHM_TX_STAMPS, 0);
    fs_ack(slot, 5);
    assert_int_equal(iso_setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &v, sizeof(v)), 0);
    assert_int_equal(iso_send(fd, "abc", 3, 0), 3);
    assert_int_equal(*flags & SHM_TX_STAMPS, SHM_TX_STAMPS);
    assert_int_equal(front->fmore[slot].tx_stamp, 8);
    assert_int_equal(polled(fd, POLLOUT), POLLOUT);
    assert_int_equal(iso_recvmsg(fd, &msg, MSG_ERRQUEUE), -1);
    assert_int_equal(errno, EAGAIN);
    fs_stamp(slot, 7, SHM_TX_STAMP_SCHED, 1);
    fs_stamp(slot, 7, SHM_TX_STAMP_SENT, 1);
    assert_int_equal(polled(fd, POLLOUT), POLLOUT | POLLERR);
    assert_int_equal(stamp_of(fd, &kind, &at), 2); /* the third byte since */
    assert_int_equal(kind, SCM_TSTAMP_SCHED);
    clock_gettime(CLOCK_REALTIME, &now);
    assert_in_range(now.tv_sec - at.tv_sec, 0, 1);
    assert_int_equal(stamp_of(fd, &kind, &at), 2);
    assert_int_equal(kind, SCM_TSTAMP_SND);
    assert_int_equal(polled(fd, POLLOUT), POLLOUT);
    fs_stamp(slot, 7, SHM_TX_STAMP_ACK, 1);
    assert_int_equal(stamp_of(fd, &kind, &at), 2);
    assert_int_equal(kind, SCM_TSTAMP_ACK);
    assert_int_equal(iso_recvmsg(fd, &msg, MSG_ERRQUEUE), -1);
    v = 0;
    assert_int_equal(iso_setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &v, sizeof(v)), 0);
    fs_settle();
    assert_int_equal(iso_send(fd, "abc", 3, 0), 3);
    assert_int_equal(*flags & SHM_TX_STAMPS, 0);
    fs_ack(slot, 6);
    iso_close(fd);
}

/* With or without room for it, and in each form. */
static void
test_stamps_of_what_arrived(void **state)
{
    int fd = fs_connected(SOCK_NONBLOCK), on = 1, off = 0;
    int both = SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE;
    char control[256], byte;
    struct iovec iov = { &byte, 1 };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
    struct cmsghdr *c;
    struct timeval tv;

    (void)state;
    fs_deliver(fs_slot(fd), "abcde", 5, 5);
    assert_int_equal(iso_recvmsg(fd, &msg, 0), 1);
    assert_int_equal(msg.msg_controllen, 0);
    assert_int_equal(iso_setsockopt(fd, SOL_SOCKET, SO_TIMESTAMP, &on, sizeof(on)), 0);
    msg.msg_controllen = sizeof(control);
    assert_int_equal(iso_recvmsg(fd, &msg, MSG_PEEK), 1);
    c = CMSG_FIRSTHDR(&msg);
    assert_int_equal(c->cmsg_level, SOL_SOCKET);
    assert_int_equal(c->cmsg_type, SCM_TIMESTAMP);
    memcpy(&tv, CMSG_DATA(c), sizeof(tv));
    assert_in_range(time(NULL) - tv.tv_sec, 0, 1);
    assert_null(CMSG_NXTHDR(&msg, c));
    msg.msg_controllen = 8;
    assert_int_equal(iso_recvmsg(fd, &msg, 0), 1);
    assert_int_equal(msg.msg_flags, MSG_CTRUNC);
    assert_int_equal(msg.msg_controllen, 0);
    assert_int_equal(iso_setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on)), 0);
    assert_int_equal(iso_setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &both, sizeof(both)), 0);
    msg.msg_controllen = sizeof(control);
    assert_int_equal(iso_recvmsg(fd, &msg, 0), 1);
    c = CMSG_FIRSTHDR(&msg);
    assert_int_equal(c->cmsg_type, SCM_TIMESTAMPNS);
    assert_int_equal(c->cmsg_len, CMSG_LEN(sizeof(struct timespec)));
    c = CMSG_NXTHDR(&msg, c);
    assert_int_equal(c->cmsg_type, SCM_TIMESTAMPING);
    assert_int_equal(iso_setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &off, sizeof(off)), 0);
    assert_int_equal(iso_setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &off, sizeof(off)), 0);
    msg.msg_controllen = sizeof(control);
    assert_int_equal(iso_recvmsg(fd, &msg, 0), 1);
    assert_int_equal(msg.msg_controllen, 0);
    assert_int_equal(iso_recv(fd, &byte, 1, 0), 1);
    iso_close(fd);
}

/* Most sockets have no memory for options; what one had, the next one in its place does not see. */
static void
test_a_fresh_socket_has_no_options(void **state)
{
    const struct timeval tv = { .tv_sec = 5 };
    const struct linger on = { .l_onoff = 1, .l_linger = 0 };
    struct timeval got_tv = { .tv_sec = 9 };
    struct linger got_on = { .l_onoff = 9 };
    socklen_t tv_len = sizeof(got_tv), on_len = sizeof(got_on);
    int fd = bound(), one = 1, nodelay = -1;
    socklen_t len = sizeof(nodelay);
    uint32_t slot = fs_slot(fd);

    (void)state;
    assert_ptr_equal(slot_opts(slot), &slot_opts_none);
    assert_int_equal(iso_setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)), 0);
    assert_ptr_equal(slot_opts(slot), &slot_opts_none);
    assert_int_equal(iso_setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)), 0);
    assert_int_equal(iso_setsockopt(fd, SOL_SOCKET, SO_LINGER, &on, sizeof(on)), 0);
    assert_ptr_not_equal(slot_opts(slot), &slot_opts_none);
    iso_close(fd);
    fs_settle();
    slot_reap(UINT32_MAX);
    fd = bound();
    assert_int_equal(fs_slot(fd), slot);
    assert_int_equal(iso_getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &got_tv, &tv_len), 0);
    assert_int_equal(got_tv.tv_sec, 0);
    assert_int_equal(iso_getsockopt(fd, SOL_SOCKET, SO_LINGER, &got_on, &on_len), 0);
    assert_int_equal(got_on.l_onoff, 0);
    assert_int_equal(iso_getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, &len), 0);
    assert_int_equal(nodelay, 0);
    iso_close(fd);
}

static void
test_records_end_where_they_were_said_to(void **state)
{
    int fd = fs_connected(0);
    const struct shm_front_sock *f = front_sock(fs_slot(fd));

    (void)state;
    assert_int_equal(iso_send(fd, "abc", 3, 0), 3);
    assert_int_equal(f->tx_flags & SHM_TX_EOR, 0);
    fs_settle();
    fs_pause();
    assert_int_equal(iso_send(fd, "abc", 3, MSG_EOR), 3);
    assert_int_equal(f->tx_flags, SHM_TX_EOR);
    assert_int_equal(front->fmore[fs_slot(fd)].tx_eor, 6);
    /* Appended before the stack has looked: the record's end stands. */
    assert_int_equal(iso_send(fd, "abc", 3, MSG_MORE), 3);
    assert_int_equal(f->tx_flags, SHM_TX_EOR | SHM_TX_MORE);
    assert_int_equal(front->fmore[fs_slot(fd)].tx_eor, 6);
    fs_resume();
    /* Another record waits until that has been seen. */
    assert_int_equal(iso_send(fd, "abc", 3, MSG_EOR), 3);
    assert_int_equal(front->fmore[fs_slot(fd)].tx_eor, 12);
    fs_settle();
    assert_int_equal(iso_send(fd, "abc", 3, 0), 3);
    assert_int_equal(f->tx_flags, 0);
    fs_ack(fs_slot(fd), 15);
    iso_close(fd);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_values_read_back_as_in_linux, fs_teardown),
        cmocka_unit_test_teardown(test_lengths_are_linuxs, fs_teardown),
        cmocka_unit_test_teardown(test_defaults_are_linuxs, fs_teardown),
        cmocka_unit_test_teardown(test_others_are_refused, fs_teardown),
        cmocka_unit_test_teardown(test_rcvlowat_is_bounded_by_the_buffer, fs_teardown),
        cmocka_unit_test_teardown(test_linger_keeps_its_time_when_switched_off, fs_teardown),
        cmocka_unit_test_teardown(test_md5_keys, fs_teardown),
        cmocka_unit_test_teardown(test_keys_change_sides, fs_teardown),
        cmocka_unit_test_teardown(test_fastopen_keys, fs_teardown),
        cmocka_unit_test_teardown(test_congestion_goes_by_name, fs_teardown),
        cmocka_unit_test_teardown(test_rcvlowat_holds_readers, fs_teardown),
        cmocka_unit_test_teardown(test_notsent_lowat_holds_writers, fs_teardown),
        cmocka_unit_test_teardown(test_zerocopy_completes_on_the_error_queue, fs_teardown),
        cmocka_unit_test_teardown(test_stamps_of_what_was_sent, fs_teardown),
        cmocka_unit_test_teardown(test_stamps_of_what_arrived, fs_teardown),
        cmocka_unit_test_teardown(test_records_end_where_they_were_said_to, fs_teardown),
        cmocka_unit_test_teardown(test_a_fresh_socket_has_no_options, fs_teardown),
    };

    fs_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
