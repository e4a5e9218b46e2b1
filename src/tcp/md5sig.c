/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/md5sig.h"

#include <errno.h>

#include "tcp/guard.h"

/**
 * @file
 * TCP_MD5SIG (RFC 2385). Keys are entries of a pool; a listener has a list of them, and so has a connection, mostly of one: what its user set, or a copy of what its
 * listener had for its peer. A list changes under the guards of the table and of its owner.
 */

/* ---- lists of keys ---------------------------------------- */

static struct tcp_md5_entry *
entry_at(const struct tcp_domain *d, uint32_t i)
{
    return (struct tcp_md5_entry *)domain_array(d, POOL_MD5) + i;
}

/** As in Linux a prefix of IPv6 says nothing of IPv4's peers, however short it is. */
static bool
covers(const struct tcp_md5_key *k, const struct ip_addr *remote)
{
    return ip_addr_is_v4(&k->prefix) == ip_addr_is_v4(remote) && ip_prefix_covers(&k->prefix, k->prefix_len, remote);
}

const struct tcp_md5_key *
md5_find(const struct tcp_domain *d, uint32_t list, const struct ip_addr *remote)
{
    const struct tcp_md5_key *best = NULL;

    for (uint32_t i = list; i != 0; i = entry_at(d, i)->next) {
        const struct tcp_md5_key *k = &entry_at(d, i)->key;

        if ((best == NULL || k->prefix_len > best->prefix_len) && covers(k, remote))
            best = k;
    }
    return best;
}

/** Those who look whether there is any key at all do so without the table's guard. */
static void
count_keys(struct tcp_domain *d, bool by_user, int32_t n)
{
    __atomic_store_n(&d->md5_keys, d->md5_keys + (uint32_t)n, __ATOMIC_RELAXED);
    if (by_user)
        d->md5_keys_set += (uint32_t)n;
}

/** There is room: md5_has_room, or it is the one copy of a connection. */
static void
entry_add(struct tcp_domain *d, uint32_t *list, const struct tcp_md5_key *key, bool by_user)
{
    uint32_t i = tcp_pool_get(&d->pools[POOL_MD5], entry_at(d, 0), sizeof(struct tcp_md5_entry));

    *entry_at(d, i) = (struct tcp_md5_entry){ .next = *list, .by_user = by_user, .key = *key };
    *list = i;
    count_keys(d, by_user, 1);
}

static void
entry_remove(struct tcp_domain *d, uint32_t *link)
{
    uint32_t i = *link;

    *link = entry_at(d, i)->next;
    count_keys(d, entry_at(d, i)->by_user != 0, -1);
    tcp_pool_put(&d->pools[POOL_MD5], entry_at(d, 0), sizeof(struct tcp_md5_entry), i);
}

void
md5_clear(struct tcp_domain *d, uint32_t *list)
{
    while (*list != 0)
        entry_remove(d, list);
}

uint32_t
md5_copy(struct tcp_domain *d, uint32_t list, const struct ip_addr *remote)
{
    const struct tcp_md5_key *key = md5_find(d, list, remote);
    uint32_t copy = 0;

    if (key != NULL) {
        struct tcp_md5_key mine = *key;
        mine.prefix = *remote;
        mine.prefix_len = 128;
        entry_add(d, &copy, &mine, false);
    }
    return copy;
}

bool
md5_has_room(const struct tcp_domain *d, const struct tcp_sockopts *opts)
{
    return opts == NULL || opts->nb_md5 == 0 || d->md5_keys_set + opts->nb_md5 <= TCP_MD5_KEYS_MAX;
}

void
md5_add_all(struct tcp_domain *d, uint32_t *list, const struct tcp_sockopts *opts)
{
    for (uint32_t i = 0; opts != NULL && i < opts->nb_md5; i++)
        entry_add(d, list, &opts->md5[i], true);
}

bool
md5_is_wanted(const struct tcp_sockopts *opts, const struct ip_addr *remote)
{
    for (uint32_t i = 0; opts != NULL && i < opts->nb_md5; i++)
        if (covers(&opts->md5[i], remote))
            return true;
    return false;
}

/** Where the entry of exactly this prefix is named; a 0 if there is none. */
static uint32_t *
find_exact(const struct tcp_domain *d, uint32_t *list, const struct tcp_md5_key *key)
{
    while (*list != 0 && (entry_at(d, *list)->key.prefix_len != key->prefix_len ||
                          !ip_addr_equal(&entry_at(d, *list)->key.prefix, &key->prefix)))
        list = &entry_at(d, *list)->next;
    return list;
}

static int
list_set(struct tcp_domain *d, uint32_t *list, const struct tcp_md5_key *key)
{
    uint32_t *link = find_exact(d, list, key);

    if (*link == 0 && key->n_bytes == 0)
        return -ENOENT;
    if (key->n_bytes == 0)
        entry_remove(d, link);
    else if (*link != 0)
        entry_at(d, *link)->key = *key;
    else if (d->md5_keys_set == TCP_MD5_KEYS_MAX)
        return -ENOMEM;
    else
        entry_add(d, list, key, true);
    return 0;
}

int
tcp_set_md5_key(struct tcp_domain *d, const struct tcp_env *env, tcp_id id, const struct tcp_md5_key *key)
{
    int rc = -EINVAL;

    if (key->prefix_len > 128 || key->n_bytes > TCP_MD5_KEY_MAX)
        return -EINVAL;
    tcp_hold(d, env, id);
    struct tcp_listener *l = listener_by_id(d, id);
    struct tcp_conn *c = conn_awake(d, id);
    if (l != NULL)
        rc = list_set(d, &l->md5, key);
    if (c != NULL)
        rc = list_set(d, &c->md5, key);
    /* Until the peer's options are known segments have no size yet. */
    if (c != NULL && c->state != TCP_ST_SYN_SENT && c->state != TCP_ST_CLOSED)
        conn_set_mss(c);
    tcp_release(d, env, id);
    return rc;
}

bool
tcp_has_md5_keys(const struct tcp_domain *d)
{
    return __atomic_load_n(&d->md5_keys, __ATOMIC_RELAXED) != 0;
}

/* ---- segments ---------------------------------------- */

void
md5_put(const struct tcp_domain *d, uint32_t list, struct tcp_out *out)
{
    out->md5 = md5_find(d, list, &out->tuple->remote);
    if (out->md5 != NULL)
        out->opts.has_accecn =
            false; /* there is no room for everything, and this can be left out (RFC 9768 section 3.2.3) */
}

const struct tcp_md5_key *
md5_of_answer(const struct tcp_env *env, const struct tcp_in *in)
{
    return in->opts.md5_off != 0 ? env->md5->key : NULL;
}

/** The key that a segment for this entry of the table (0: for none) should be signed with; NULL = it should not. */
static const struct tcp_md5_key *
key_for(const struct tcp_domain *d, uint32_t ref, const struct tcp_in *in)
{
    const struct tcp_tuple *t = &in->tuple;
    bool begins = (in->flags & (TCP_FLAG_SYN | TCP_FLAG_ACK | TCP_FLAG_RST)) == TCP_FLAG_SYN;
    const struct tcp_listener *l;
    uint32_t i = TABLE_INDEX(ref);

    /* Who begins anew is the listener's affair, whose keys may have changed since the last connection. */
    if (TABLE_KIND(ref) == TABLE_TW && begins && port_find_listener(d, t) != 0)
        ref = 0;

    switch (TABLE_KIND(ref)) {
    case TABLE_CONN:
        return md5_find(d, conn_at(d, i)->md5, &t->remote);
    case TABLE_TW:
        return md5_find(d, tw_at(d, i)->md5, &t->remote);
    case TABLE_MOVED:
        return NULL;
    case TABLE_HALF:
        l = listener_by_id(d, half_at(d, i)->listener);
        break;
    default:
        i = port_find_listener(d, t);
        l = i != 0 ? &slot_at(d, i)->listener : NULL;
        break;
    }
    return l != NULL ? md5_find(d, l->md5, &t->remote) : NULL;
}

/** In a time that does not tell where they differ. */
static bool
was_made_with(const struct tcp_md5_seen *seen, const struct tcp_md5_key *key)
{
    uint8_t digest[TCP_MD5_DIGEST_BYTES], diff = 0;

    tcp_md5_finish(&seen->sum, key, digest);
    for (unsigned i = 0; i < sizeof(digest); i++)
        diff |= digest[i] ^ seen->digest[i];
    return diff == 0;
}

bool
md5_check(struct tcp_domain *d, const struct tcp_env *env, uint32_t ref, const struct tcp_in *in)
{
    const struct tcp_md5_key *key = key_for(d, ref, in);

    if (in->opts.md5_off == 0) {
        if (key != NULL)
            counter_inc(env->ctr, CTR_TCP_DROP_MD5_MISSING);
        return key == NULL;
    }
    if (key == NULL || env->md5 == NULL) {
        counter_inc(env->ctr, CTR_TCP_DROP_MD5_UNEXPECTED);
        return false;
    }
    if (!was_made_with(env->md5, key)) {
        counter_inc(env->ctr, CTR_TCP_DROP_MD5_WRONG);
        return false;
    }
    env->md5->key = key;
    return true;
}
