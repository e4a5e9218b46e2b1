/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/fastopen.h"

#include <errno.h>

#include "tcp/guard.h"
#include "tcp/pathcache.h"
#include "tcp/siphash.h"

#define TWEAK_CACHE 0x666fu
#define TWEAK_KEY 0x6b65u

/** SYNs with data lost in a row before they are suspended, and for how long: doubled by each further loss. */
#define SYN_LOSSES_MAX 2
#define SUSPEND_US 60000000ull
#define SUSPEND_DOUBLINGS_MAX 6

static struct tcp_fo_entry *
entry_place(const struct tcp_domain *d, const struct tcp_tuple *t)
{
    const uint64_t key[2] = { d->params.seed[0] ^ TWEAK_CACHE, d->params.seed[1] };
    uint64_t h = siphash24(key, t, 2 * sizeof(struct ip_addr));

    return (struct tcp_fo_entry *)domain_array(d, ARRAY_FASTOPEN) + h % FASTOPEN_CACHE_ENTRIES;
}

static bool
entry_is_of(const struct tcp_fo_entry *e, const struct tcp_tuple *t)
{
    return e->mss != 0 && ip_addr_equal(&e->local, &t->local) && ip_addr_equal(&e->remote, &t->remote);
}

const struct tcp_fo_entry *
fastopen_entry(const struct tcp_domain *d, const struct tcp_tuple *t)
{
    const struct tcp_fo_entry *e = entry_place(d, t);

    return entry_is_of(e, t) ? e : NULL;
}

void
fastopen_learn(struct tcp_domain *d, const struct tcp_tuple *t, uint16_t mss, const struct tcp_options *o,
               uint8_t exp_try, bool syn_lost)
{
    struct tcp_fo_entry *e = entry_place(d, t);

    if (!entry_is_of(e, t)) {
        memset(e, 0, sizeof(*e));
        e->local = t->local;
        e->remote = t->remote;
    }
    e->mss = mss;
    if (o != NULL && o->has_fo && o->fo.len > 0) {
        e->cookie = o->fo;
        e->exp_try = 0;
    } else if (exp_try > e->exp_try && e->cookie.len == 0) {
        e->exp_try = exp_try;
    }
    if (syn_lost) {
        if (e->syn_losses < UINT8_MAX)
            e->syn_losses++;
        e->loss_tick = tick_of(d->now_us);
    } else {
        e->syn_losses = 0;
    }
}

bool
fastopen_is_suspended(const struct tcp_domain *d, const struct tcp_fo_entry *e)
{
    if (e == NULL || e->syn_losses < SYN_LOSSES_MAX)
        return false;
    unsigned doublings = e->syn_losses - SYN_LOSSES_MAX;
    if (doublings > SUSPEND_DOUBLINGS_MAX)
        doublings = SUSPEND_DOUBLINGS_MAX;
    return us_since_tick(d->now_us, e->loss_tick) < SUSPEND_US << doublings;
}

void
tcp_forget_peers(struct tcp_domain *d, const struct tcp_env *env)
{
    guard_table(d, env);
    memset(domain_array(d, ARRAY_FASTOPEN), 0, FASTOPEN_CACHE_ENTRIES * sizeof(struct tcp_fo_entry));
    pathcache_clear(d, env);
    unguard_table(env);
}

bool
fastopen_is_ready(const struct tcp_domain *d, const struct tcp_tuple *t, const struct tcp_sockopts *opts)
{
    bool no_cookie =
        (d->params.fastopen & TCP_FASTOPEN_CLIENT_NO_COOKIE) != 0 || opts_flag(opts, TCP_OPT_FASTOPEN_NO_COOKIE);
    const struct tcp_fo_entry *e = fastopen_entry(d, t);

    return (d->params.fastopen & TCP_FASTOPEN_CLIENT) != 0 && !fastopen_is_suspended(d, e) &&
           !md5_is_wanted(opts, &t->remote) && (no_cookie || (e != NULL && e->cookie.len > 0));
}

bool
tcp_fastopen_ready(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_tuple *t,
                   const struct tcp_sockopts *opts)
{
    guard_table(d, env);
    bool ready = fastopen_is_ready(d, t, opts);
    unguard_table(env);
    return ready;
}

/* ---- server ---------------------------------------- */

void
fastopen_keys_set(struct tcp_fo_keys *k, unsigned n, const uint8_t keys[][TCP_FASTOPEN_KEY_BYTES])
{
    *k = (struct tcp_fo_keys){ .n = n };
    memcpy(k->key, keys, n * sizeof(k->key[0]));
}

int
tcp_set_fastopen_keys(struct tcp_domain *d, tcp_id listener, unsigned n, const uint8_t keys[][TCP_FASTOPEN_KEY_BYTES])
{
    struct tcp_listener *l = listener_by_id(d, listener);

    if ((listener != TCP_NO_ID && l == NULL) || n == 0 || n > TCP_FASTOPEN_KEYS_MAX)
        return -EINVAL;
    fastopen_keys_set(l != NULL ? &l->fastopen_keys : &d->fastopen_keys, n, keys);
    return 0;
}

static const struct tcp_fo_keys *
keys_of(const struct tcp_domain *d, const struct tcp_listener *l)
{
    return l != NULL && l->fastopen_keys.n != 0 ? &l->fastopen_keys : &d->fastopen_keys;
}

static void
cookie_make(const uint64_t key[2], const struct tcp_tuple *t, struct tcp_fo_cookie *cookie)
{
    struct ip_addr pair[2] = { t->remote, t->local };
    const uint32_t v4[2] = { t->remote.w[3], t->local.w[3] };
    /* The bytes that are hashed are those of the wire, so that hosts that share a key agree, Linux among them. */
    bool is_v4 = ip_addr_is_v4(&t->remote);
    uint64_t h = is_v4 ? siphash24(key, v4, sizeof(v4)) : siphash24(key, pair, sizeof(pair));

    cookie->len = sizeof(h);
    memcpy(cookie->bytes, &h, sizeof(h));
}

void
fastopen_cookie(const struct tcp_domain *d, const struct tcp_listener *l, const struct tcp_tuple *t,
                struct tcp_fo_cookie *cookie)
{
    cookie_make(keys_of(d, l)->key[0], t, cookie);
}

/** 1 + the number of the key that it was made with; 0: with none. */
static unsigned
cookie_is_valid(const struct tcp_domain *d, const struct tcp_listener *l, const struct tcp_in *in)
{
    const struct tcp_fo_keys *keys = keys_of(d, l);
    unsigned found = 0;

    for (unsigned k = 0; k < keys->n; k++) {
        struct tcp_fo_cookie want = { .len = 0 };
        uint8_t diff = 0;

        cookie_make(keys->key[k], &in->tuple, &want);
        for (unsigned i = 0; i < want.len; i++)
            diff |= in->opts.fo.bytes[i] ^ want.bytes[i];
        if (in->opts.fo.len == want.len && diff == 0 && found == 0)
            found = 1 + k;
    }
    return found;
}

enum fastopen_verdict
fastopen_judge(struct tcp_domain *d, const struct tcp_env *env, const struct tcp_listener *l, const struct tcp_in *in)
{
    bool no_cookie = (d->params.fastopen & TCP_FASTOPEN_SERVER_NO_COOKIE) != 0 || (l->flags & CONN_F_FO_NO_COOKIE) != 0;

    if ((d->params.fastopen & TCP_FASTOPEN_SERVER) == 0 || (in->data.len == 0 && !in->opts.has_fo))
        return FASTOPEN_IGNORE;
    /* RFC 7413 section 5.1: a bound on those whose address is unproved, beyond which all is as without Fast Open. */
    if (l->fastopen_pending >= l->fastopen_qlen || in->data.len > l->opts.rcv_buf_bytes)
        return FASTOPEN_IGNORE;
    if (no_cookie)
        return FASTOPEN_ACCEPT;
    if (!in->opts.has_fo)
        return FASTOPEN_IGNORE;
    if (in->opts.fo.len == 0) {
        counter_inc(env->ctr, CTR_TCP_FASTOPEN_COOKIE_REQUESTS);
        return FASTOPEN_OFFER;
    }
    unsigned made_with = cookie_is_valid(d, l, in);
    if (made_with > 1)
        counter_inc(env->ctr, CTR_TCP_FASTOPEN_OLD_KEYS);
    if (made_with > 0)
        return made_with == 1 ? FASTOPEN_ACCEPT : FASTOPEN_RENEW;
    counter_inc(env->ctr, CTR_TCP_FASTOPEN_BAD_COOKIES);
    return FASTOPEN_OFFER;
}

void
fastopen_child_done(struct tcp_domain *d, struct tcp_conn *c)
{
    if ((c->flags & CONN_F_FO_CHILD) == 0)
        return;
    struct tcp_listener *l = listener_by_id(d, c->fo_listener);
    c->flags &= ~CONN_F_FO_CHILD;
    if (l != NULL && l->fastopen_pending > 0)
        l->fastopen_pending--;
}
