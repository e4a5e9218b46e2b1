/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "sockets/control.h"
#include "query.h"

/** A stack that is alive answers within a poll; beyond this we say that it does not. */
#define ANSWER_TIMEOUT_S 5

static int
connect_to(const char *path, char *err, size_t err_len)
{
    const struct timeval timeout = { .tv_sec = ANSWER_TIMEOUT_S };
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    int fd, rc;

    if (path == NULL) {
        snprintf(err, err_len, "where is the stack? Set --control, ISOSOCK_CONTROL or XDG_RUNTIME_DIR");
        return -EINVAL;
    }
    if (strlen(path) >= sizeof(sa.sun_path)) {
        snprintf(err, err_len, "control path '%s' is too long: at most %zu bytes", path, sizeof(sa.sun_path) - 1);
        return -ENAMETOOLONG;
    }
    strcpy(sa.sun_path, path);
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) == 0 &&
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) == 0 &&
        connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) == 0)
        return fd;
    rc = -errno;
    if (fd >= 0)
        close(fd);
    if (rc == -ENOENT || rc == -ECONNREFUSED)
        snprintf(err, err_len, "no stack runs at %s: start isosockd, or name its socket by --control", path);
    else if (rc == -EACCES)
        snprintf(err, err_len, "no permission for %s: it belongs to another user's isosockd", path);
    else
        snprintf(err, err_len, "cannot connect to %s: %s", path, strerror(-rc));
    return rc;
}

/** Report a failed send or recv; n is its result (0: the peer has closed). */
static int
lost(ssize_t n, char *err, size_t err_len)
{
    int rc = n < 0 ? -errno : -ECONNRESET;

    if (rc == -EAGAIN) {
        snprintf(err, err_len, "the stack has not answered within %d s", ANSWER_TIMEOUT_S);
        return -ETIMEDOUT;
    }
    snprintf(err, err_len, "the stack has closed the connection");
    return rc;
}

static int
shake_hands(int fd, char *err, size_t err_len)
{
    const struct ctl_hello hello = { .magic = CTL_MAGIC, .version = SHM_VERSION, .kind = CTL_KIND_TOOL };
    struct ctl_welcome welcome;
    ssize_t n;

    n = send(fd, &hello, sizeof(hello), MSG_NOSIGNAL);
    if (n != (ssize_t)sizeof(hello))
        return lost(n, err, err_len);
    memset(&welcome, 0, sizeof(welcome));
    n = recv(fd, &welcome, sizeof(welcome), 0);
    if (n <= 0)
        return lost(n, err, err_len);
    if ((size_t)n < offsetof(struct ctl_welcome, layout) || welcome.magic != CTL_MAGIC) {
        snprintf(err, err_len, "what listens there is no isosockd");
        return -EPROTO;
    }
    if (welcome.version != SHM_VERSION) {
        snprintf(err, err_len, "the stack speaks protocol version %u, this tool %u: use those of one release",
                 welcome.version, SHM_VERSION);
        return -EPROTO;
    }
    if (welcome.status != 0) {
        welcome.error[CTL_ERROR_BYTES - 1] = '\0';
        snprintf(err, err_len, "the stack refused: %s", welcome.error);
        return welcome.status;
    }
    return 0;
}

int
query_open(const char *path, char *err, size_t err_len)
{
    int fd = connect_to(path, err, err_len);
    int rc;

    if (fd < 0)
        return fd;
    rc = shake_hands(fd, err, err_len);
    if (rc != 0) {
        close(fd);
        return rc;
    }
    return fd;
}

int
query_ask(int fd, const char *text, FILE *out, char *err, size_t err_len)
{
    union {
        struct ctl_msg msg;
        char bytes[sizeof(struct ctl_msg) + CTL_MAX_TEXT];
    } u;
    const size_t text_len = strlen(text);
    ssize_t n;

    if (text_len > CTL_MAX_TEXT) {
        snprintf(err, err_len, "the question is too long");
        return -E2BIG;
    }
    u.msg = (struct ctl_msg){ .op = CTL_QUERY, .text_len = (uint32_t)text_len };
    memcpy(u.bytes + sizeof(struct ctl_msg), text, text_len);
    n = send(fd, &u, sizeof(struct ctl_msg) + text_len, MSG_NOSIGNAL);
    if (n < 0)
        return lost(n, err, err_len);
    for (;;) {
        n = recv(fd, &u, sizeof(u), 0);
        if (n <= 0)
            return lost(n, err, err_len);
        if ((size_t)n < sizeof(struct ctl_msg) || u.msg.text_len > (size_t)n - sizeof(struct ctl_msg)) {
            snprintf(err, err_len, "the stack's answer makes no sense");
            return -EBADMSG;
        }
        if (u.msg.op == CTL_END && u.msg.status != 0) {
            snprintf(err, err_len, "%.*s", u.msg.text_len != 0 ? (int)u.msg.text_len : 32,
                     u.msg.text_len != 0 ? u.bytes + sizeof(struct ctl_msg) : strerror(-u.msg.status));
            return u.msg.status;
        }
        fwrite(u.bytes + sizeof(struct ctl_msg), 1, u.msg.text_len, out);
        if (u.msg.op == CTL_END)
            return 0;
    }
}
