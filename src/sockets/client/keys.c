/* SPDX-License-Identifier: BSD-3-Clause */
#include "keys.h"

#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "fdtable.h"
#include "front.h"
#include "info.h"
#include "lock.h"

#define FASTOPEN_KEY_BYTES 16u

struct key_note {
    struct key_note *next;
    struct shm_key key;
};

bool
keys_is_one(int name)
{
    return name == TCP_MD5SIG || name == TCP_MD5SIG_EXT || name == TCP_FASTOPEN_KEY;
}

/* ---- what the program says -------------------------------------------------------------------------------------------------- */

/* The address and how many of its bits there are; false: of the other family than the socket. */
static bool
take_addr(bool v6, const struct tcp_md5sig *sig, struct shm_key *key, unsigned *bits)
{
    struct sockaddr_in in;
    struct sockaddr_in6 in6;

    memcpy(&in, &sig->tcpm_addr, sizeof(in));
    memcpy(&in6, &sig->tcpm_addr, sizeof(in6));
    if (sig->tcpm_addr.ss_family != (v6 ? AF_INET6 : AF_INET))
        return false;
    if (v6) {
        memcpy(key->addr, &in6.sin6_addr, sizeof(key->addr));
        *bits = IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr) ? 32 : 128;
    } else {
        key->addr[2] = htonl(0xffff);
        key->addr[3] = in.sin_addr.s_addr;
        *bits = 32;
    }
    return true;
}

static int
take_md5(bool v6, int name, const void *val, socklen_t len, struct shm_key *key)
{
    bool ext = name == TCP_MD5SIG_EXT;
    struct tcp_md5sig sig;
    unsigned bits, prefix_len;

    if (len < (socklen_t)sizeof(sig))
        return -EINVAL;
    memcpy(&sig, val, sizeof(sig));
    if (!take_addr(v6, &sig, key, &bits))
        return -EINVAL;
    prefix_len = ext && (sig.tcpm_flags & TCP_MD5SIG_FLAG_PREFIX) ? sig.tcpm_prefixlen : bits;
    /* There are no VRFs, so that no interface names one. */
    if (prefix_len > bits || sig.tcpm_keylen > TCP_MD5SIG_MAXKEYLEN ||
        (ext && (sig.tcpm_flags & TCP_MD5SIG_FLAG_IFINDEX) && sig.tcpm_ifindex != 0))
        return -EINVAL;
    key->kind = SHM_KEY_MD5;
    key->prefix_len = (uint8_t)(128 - bits + prefix_len);
    key->n_bytes = (uint8_t)sig.tcpm_keylen;
    memcpy(key->bytes, sig.tcpm_key, sig.tcpm_keylen);
    return 0;
}

static int
take(const struct obj *o, int name, const void *val, socklen_t len, struct shm_key *key)
{
    *key = (struct shm_key){ .kind = SHM_KEY_FASTOPEN };
    if (name != TCP_FASTOPEN_KEY)
        return take_md5(o->v6, name, val, len, key);
    if (len != FASTOPEN_KEY_BYTES && len != 2 * FASTOPEN_KEY_BYTES)
        return -EINVAL;
    key->n_bytes = (uint8_t)len;
    memcpy(key->bytes, val, len);
    return 0;
}

/* ---- to the stack ------------------------------------------------------------------------------------------------------------- */

static int
tell(uint32_t slot, const struct shm_key *key)
{
    struct shm_key *keys = (struct shm_key *)(void *)(front->front + front->lay.front_keys_off);
    struct shm_cmd cmd = { .op = SHM_OP_SETKEY };
    int i = info_claim(), rc;

    if (i < 0)
        return i;
    keys[i] = *key;
    cmd.slot = (uint32_t)i;
    rc = command_run(slot, &cmd, true);
    explicit_bzero(&keys[i], sizeof(keys[i]));
    info_free(i);
    return rc;
}

int
keys_set(struct obj *o, int name, const void *val, socklen_t len)
{
    struct shm_key key;
    int rc = take(o, name, val, len, &key);

    return rc != 0 ? rc : tell(o->slot, &key);
}

int
keys_get_fastopen(uint32_t slot, void *val, socklen_t *len)
{
    struct shm_info info;
    socklen_t bytes;
    int rc = info_get(slot, &info);

    if (rc != 0)
        return rc;
    if ((int)*len < 0)
        return -EINVAL;
    bytes = info.nb_fastopen_keys * FASTOPEN_KEY_BYTES;
    *len = *len < bytes ? *len : bytes;
    memcpy(val, info.fastopen_keys, *len);
    return 0;
}

/* ---- while the socket is the kernel's ------------------------------------------------------------------------------------- */

/* Of the same kind, for the same peers. */
static bool
is_for_same(const struct shm_key *a, const struct shm_key *b)
{
    return a->kind == b->kind && a->prefix_len == b->prefix_len && memcmp(a->addr, b->addr, sizeof(a->addr)) == 0;
}

static int
note_key(struct obj *o, const struct shm_key *key)
{
    struct key_note **at = &o->keys, *note;

    while (*at != NULL && !is_for_same(&(*at)->key, key))
        at = &(*at)->next;
    note = *at;
    if (key->n_bytes == 0) {
        if (note != NULL) {
            *at = note->next;
            free(note);
        }
        return 0;
    }
    if (note == NULL) {
        note = calloc(1, sizeof(*note));
        if (note == NULL)
            return -ENOMEM;
        *at = note;
    }
    note->key = *key;
    return 0;
}

int
keys_note(struct obj *o, int name, const void *val, socklen_t len)
{
    struct shm_key key;
    int rc = take(o, name, val, len, &key);

    if (rc != 0)
        return rc;
    if (!lock_acquire(&o->bind_lock))
        return -EAGAIN;
    rc = note_key(o, &key);
    lock_release(&o->bind_lock);
    return rc;
}

int
keys_carry_over(const struct obj *o, uint32_t slot)
{
    for (const struct key_note *n = o->keys; n != NULL; n = n->next) {
        int rc = tell(slot, &n->key);

        if (rc != 0)
            return rc;
    }
    return 0;
}

void
keys_forget(struct obj *o)
{
    while (o->keys != NULL) {
        struct key_note *next = o->keys->next;

        explicit_bzero(o->keys, sizeof(*o->keys));
        free(o->keys);
        o->keys = next;
    }
}
