/* SPDX-License-Identifier: BSD-3-Clause */
#include "sockets/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/**
 * @file
 * Keys that an application gives a socket: of TCP_MD5SIG and TCP_FASTOPEN_KEY. They stay with the socket's other options (sock_more.opts), so that each listener or connection that it
 * begins has them, and what lives already is told at once.
 */

void
opts_free(struct tcp_sockopts *o)
{
    if (o != NULL)
        free((void *)(uintptr_t)o->md5);
    free(o);
}

bool
opts_copy(struct tcp_sockopts *to, const struct tcp_sockopts *from)
{
    size_t bytes = from->nb_md5 * sizeof(from->md5[0]);
    struct tcp_md5_key *md5 = bytes != 0 ? malloc(bytes) : NULL;

    if (bytes != 0 && md5 == NULL)
        return false;
    if (bytes != 0)
        memcpy(md5, from->md5, bytes);
    *to = *from;
    to->md5 = md5;
    return true;
}

struct tcp_sockopts *
opts_of_own(struct stack *s, struct sock *sk)
{
    struct sock_more *more = sock_more_own(s, sk);

    if (more->opts == NULL)
        more->opts = calloc(1, sizeof(*more->opts));
    return more->opts;
}

/* ---- kept for what is to come ----------------------------------------------------------------------------------------------- */

static int
keep_md5(struct stack *s, struct sock *sk, const struct tcp_md5_key *key)
{
    struct tcp_sockopts *o = opts_of_own(s, sk);
    struct tcp_md5_key *keys;
    uint32_t i = 0;

    if (o == NULL)
        return -ENOMEM;
    keys = (struct tcp_md5_key *)(uintptr_t)o->md5;
    while (i < o->nb_md5 && (keys[i].prefix_len != key->prefix_len || !ip_addr_equal(&keys[i].prefix, &key->prefix)))
        i++;
    if (key->n_bytes == 0) {
        if (i == o->nb_md5)
            return -ENOENT;
        keys[i] = keys[--o->nb_md5];
        return 0;
    }
    if (i == o->nb_md5) {
        if (i == TCP_MD5_KEYS_MAX)
            return -ENOMEM;
        keys = realloc(keys, (i + 1) * sizeof(keys[0]));
        if (keys == NULL)
            return -ENOMEM;
        o->md5 = keys;
        o->nb_md5++;
    }
    keys[i] = *key;
    return 0;
}

static int
keep_fastopen(struct stack *s, struct sock *sk, const struct shm_key *key)
{
    struct tcp_sockopts *o = opts_of_own(s, sk);

    if (o == NULL)
        return -ENOMEM;
    o->nb_fastopen_keys = (uint8_t)(key->n_bytes / TCP_FASTOPEN_KEY_BYTES);
    memcpy(o->fastopen_keys, key->bytes, key->n_bytes);
    return 0;
}

static struct tcp_md5_key
md5_key(const struct shm_key *key)
{
    struct tcp_md5_key k = { .prefix = { { key->addr[0], key->addr[1], key->addr[2], key->addr[3] } },
                             .prefix_len = key->prefix_len,
                             .n_bytes = key->n_bytes };

    memcpy(k.bytes, key->bytes, key->n_bytes);
    return k;
}

static int
keep(struct stack *s, struct sock *sk, const struct shm_key *key)
{
    struct tcp_md5_key md5 = md5_key(key);

    return key->kind == SHM_KEY_MD5 ? keep_md5(s, sk, &md5) : keep_fastopen(s, sk, key);
}

/* ---- of what lives ------------------------------------------------------------------------------------------------------------ */

int
keys_apply(struct stack *s, const struct sock *sk, const struct shm_key *key)
{
    struct tcp_md5_key md5 = md5_key(key);
    uint8_t fastopen[TCP_FASTOPEN_KEYS_MAX][TCP_FASTOPEN_KEY_BYTES];

    if (key->kind == SHM_KEY_MD5)
        return tcp_set_md5_key(s->tcp, &s->env, sock_tcp(sk), &md5);
    if (!(sock_flags(sk) & SOCK_LISTENER))
        return 0; /* it says nothing to a connection */
    memcpy(fastopen, key->bytes, key->n_bytes);
    return engine_set_fastopen_keys(s, sock_tcp(sk), key->n_bytes / TCP_FASTOPEN_KEY_BYTES, fastopen);
}

static int
check(const struct stack *s, const struct shm_key *key)
{
    switch (key->kind) {
    case SHM_KEY_MD5:
        /* An event that is broadcast has no room for what a signature is checked against. */
        if (s->relay != NULL)
            return -EOPNOTSUPP;
        return key->prefix_len > 128 || key->n_bytes > TCP_MD5_KEY_MAX ? -EINVAL : 0;
    case SHM_KEY_FASTOPEN:
        return key->n_bytes == TCP_FASTOPEN_KEY_BYTES || key->n_bytes == TCP_FASTOPEN_KEYS_MAX * TCP_FASTOPEN_KEY_BYTES
                   ? 0
                   : -EINVAL;
    default:
        return -ENOPROTOOPT;
    }
}

int
keys_command(struct stack *s, struct sock *sk, const struct shm_cmd *cmd)
{
    struct shm_key key;
    int rc;

    if (cmd->slot >= SHM_INFO_SLOTS)
        return -EINVAL;
    memcpy(&key, &sk->app->front_keys[cmd->slot], sizeof(key));
    /* From here on the copy counts: the compiler may not read the application's memory a second time. */
    __asm__ volatile("" : "+m"(key));
    rc = check(s, &key);
    if (rc != 0)
        return rc;
    if (sock_tcp(sk) == TCP_NO_ID)
        return keep(s, sk, &key);
    rc = (sock_flags(sk) & SOCK_LISTENER) && sock_spread(s, sk) != NULL ? spread_set_key(s, sk, &key)
                                                                        : keys_apply(s, sk, &key);
    if (rc == 0 || rc == COMMAND_PENDING)
        keep(s, sk, &key); /* a key that came from a listener is not among them, and so cannot go */
    return rc;
}
