/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tcp/md5sig.h"
#include "trace.h"

/**
 * @file
 * TCP_MD5SIG (RFC 2385): what is signed, and what becomes of segments that are, or are not.
 */

static void
all_options(struct tcp_params *p)
{
    p->timestamps = p->sack = p->window_scaling = true;
    p->fastopen = TCP_FASTOPEN_CLIENT | TCP_FASTOPEN_SERVER;
    p->syn_cookies = TCP_SYN_COOKIES_FULL;
}

static struct tcp_md5_key
key_of(const struct ip_addr *prefix, uint8_t prefix_len, const char *text)
{
    struct tcp_md5_key k = { .prefix = *prefix, .prefix_len = prefix_len, .n_bytes = (uint8_t)strlen(text) };

    memcpy(k.bytes, text, k.n_bytes);
    return k;
}

/* ---- digests ---------------------------------------------------------------------------------------------------------- */

static void
assert_digest(const char *src, const char *dst, const char *key, unsigned key_bytes, uint32_t payload_len,
              const char *hex)
{
    const uint8_t header[40] = {
        0x9c, 0x40, 0, 179, 1, 2, 3, 4, 0xa0, 0xb0, 0xc0, 0xd0, 0xa0, 0x18, 0x7f, 0xff, 0xab, 0xcd
    }; /* with a checksum that does not count */
    struct tcp_md5_key k = { .n_bytes = (uint8_t)key_bytes };
    uint8_t payload[200], digest[TCP_MD5_DIGEST_BYTES];
    char text[2 * sizeof(digest) + 1];
    struct ip_addr from, to;
    MD5_CTX sum;

    for (unsigned i = 0; i < sizeof(payload); i++)
        payload[i] = (uint8_t)i;
    memcpy(k.bytes, key, key_bytes);
    assert_int_equal(ip_addr_parse(src, &from), 0);
    assert_int_equal(ip_addr_parse(dst, &to), 0);
    tcp_md5_begin(&sum, &from, &to, header, payload_len);
    tcp_md5_add(&sum, payload, payload_len / 3); /* in pieces, as buffers come */
    tcp_md5_add(&sum, payload + payload_len / 3, payload_len - payload_len / 3);
    tcp_md5_finish(&sum, &k, digest);
    for (unsigned i = 0; i < sizeof(digest); i++)
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
    assert_string_equal(text, hex);
}

/** Against Python's hashlib.md5, of what section 2.0 of the RFC lists. */
static void
digests_are_of_what_the_rfc_lists(void **state)
{
    char longest[TCP_MD5_KEY_MAX];

    (void)state;
    memset(longest, 0xa5, sizeof(longest));
    assert_digest("192.0.2.1", "198.51.100.2", "a key of twenty one b", 21, 200, "d9a4ac528304d029f2aeb574490cc634");
    assert_digest("2001:db8::1", "2001:db8::2", "a key of twenty one b", 21, 200, "ca39a0bf5ab9de5eb3d6612562c878bc");
    assert_digest("192.0.2.1", "198.51.100.2", longest, sizeof(longest), 0, "4180d90c0bfa9cc79b4a707237abcb71");
}

/** The option stands first, with room for the digest; with timestamps no SACK block fits beside it, without two do. */
static void
headers_have_room_for_a_digest(void **state)
{
    struct tcp_md5_key k = { .n_bytes = 1 };
    struct tcp_tuple t = { .local_port = 1 };
    struct tcp_out out = { .tuple = &t, .flags = A, .md5 = &k, .opts = { .nb_sack = 3 } };
    uint8_t hdr[TCP_HDR_MAX];
    struct tcp_in in;

    (void)state;
    assert_int_equal(tcp_wire_build(&out, hdr), 60);
    assert_int_equal(tcp_wire_parse(hdr, 60, &in), 60);
    assert_int_equal(in.opts.md5_off, TCP_MD5_DIGEST_OFF);
    assert_int_equal(in.opts.nb_sack, 2);
    out.opts.has_ts = true;
    assert_int_equal(tcp_wire_build(&out, hdr), 52);
    assert_int_equal(tcp_wire_parse(hdr, 52, &in), 52);
    assert_int_equal(in.opts.md5_off, TCP_MD5_DIGEST_OFF);
    assert_int_equal(in.opts.nb_sack, 0);
    /* Of any other length it is an option that nobody knows. */
    hdr[23] = 17;
    hdr[39] = 1;
    assert_int_equal(tcp_wire_parse(hdr, 52, &in), 52);
    assert_int_equal(in.opts.md5_off, 0);
}

/* ---- listeners ---------------------------------------------------------------------------------------------------------- */

static struct tcp_md5_key peers_key, other_key;

/** With a key for the peer alone. */
static void
listen_with_key(struct trace *t)
{
    peers_key = key_of(&t->tuple.remote, 128, "sesame");
    other_key = key_of(&t->tuple.remote, 128, "mustard");
    const struct tcp_sockopts o = {
        .set = 1u << TCP_OPT_FASTOPEN, .value[TCP_OPT_FASTOPEN] = 4, .nb_md5 = 1, .md5 = &peers_key
    };

    t->tuple.local_port = 8080;
    t->tuple.remote_port = 33333;
    assert_int_equal(tcp_listen(t->d, &t->env, &t->tuple.local, 8080, 4, &o, TRACE_LISTENER, &t->listener), 0);
}

static void
full_syn(struct trace *t)
{
    t->peer_opts = (struct tcp_options){ .has_mss = true,
                                         .mss = 1460,
                                         .has_ts = true,
                                         .ts_val = 1,
                                         .has_wscale = true,
                                         .wscale = 7,
                                         .sack_permitted = true };
    peer(t, S, 0, 0, 0);
}

static const struct tcp_out *
expect_signed(struct trace *t, uint16_t flags, uint32_t seq, uint32_t ack, uint32_t len)
{
    const struct tcp_out *o = expect(t, flags, seq, ack, len);

    assert_non_null(o->md5);
    assert_int_equal(o->md5->n_bytes, peers_key.n_bytes);
    assert_memory_equal(o->md5->bytes, peers_key.bytes, peers_key.n_bytes);
    return o;
}

static void
accept_signed(struct trace *t)
{
    struct tcp_tuple remote;

    listen_with_key(t);
    t->peer_key = &peers_key;
    full_syn(t);
    const struct tcp_out *o = expect_signed(t, S | A, 0, 1, 0);
    assert_true(o->opts.sack_permitted);
    assert_false(o->opts.has_ts); /* as Linux: SACK has the room */
    peer(t, A, 1, 1, 0);
    t->id = tcp_accept(t->d, &t->env, t->listener, TRACE_USER, &remote);
    assert_int_not_equal(t->id, 0);
}

/** A listener with a key answers neither who signs nothing, nor who signs wrongly. */
TRACE_TEST(who_has_no_key_gets_no_word, all_options)
{
    listen_with_key(t);
    full_syn(t);
    assert_int_equal(t->ctr.v[CTR_TCP_DROP_MD5_MISSING], 1);
    t->peer_key = &other_key;
    full_syn(t);
    peer(t, A, 1, 1, 0);
    assert_int_equal(t->ctr.v[CTR_TCP_DROP_MD5_WRONG], 2);
    expect_nothing(t);
    /* The rest of the world needs none. */
    t->peer_key = NULL;
    t->tuple.remote = ip_addr_v4(0x0300420a);
    full_syn(t);
    assert_null(expect(t, S | A, 0, 1, 0)->md5);
    t->peer_key = &peers_key;
    peer(t, A, 1, 1, 0);
    expect_nothing(t);
    assert_int_equal(t->ctr.v[CTR_TCP_DROP_MD5_UNEXPECTED], 1);
    t->peer_key = NULL;
    peer(t, R, 1, 0, 0);
}

/** From the handshake to TIME-WAIT each segment is signed, and each that is not is passed over. */
TRACE_TEST(a_whole_conversation_is_signed, all_options)
{
    accept_signed(t);
    peer(t, A | P, 1, 1, 100);
    expect_signed(t, A, 1, 101, 0);
    assert_int_equal(t->delivered, 100);
    app_send(t, 50);
    expect_signed(t, A | P, 1, 101, 50);
    peer(t, A, 101, 51, 0);

    t->peer_key = NULL;
    peer(t, A | P, 101, 51, 100);
    peer(t, R, 101, 0, 0);
    t->peer_key = &other_key;
    peer(t, R, 101, 0, 0);
    assert_int_equal(t->ctr.v[CTR_TCP_DROP_MD5_MISSING], 2);
    assert_int_equal(t->ctr.v[CTR_TCP_DROP_MD5_WRONG], 1);
    assert_int_equal(t->delivered, 100);
    assert_int_equal(state_of(t), TCP_ST_ESTABLISHED);

    t->peer_key = &peers_key;
    tcp_close(t->d, &t->env, t->id, false);
    expect_signed(t, F | A, 51, 101, 0);
    peer(t, A, 101, 52, 0);
    peer(t, F | A, 101, 52, 0);
    expect_signed(t, A, 52, 102, 0);
    t->peer_key = NULL;
    peer(t, F | A, 101, 52, 0);
    expect_nothing(t);
    t->peer_key = &peers_key;
    peer(t, F | A, 101, 52, 0);
    expect_signed(t, A, 52, 102, 0);
    assert_int_equal(t->ctr.v[CTR_TCP_DROP_MD5_MISSING], 3);
    t->peer_key = NULL;
}

/** 20 bytes of each segment, each by itself whatever the port could cut; of SACK blocks two. */
TRACE_TEST(segments_have_room_for_their_signature, all_options)
{
    accept_signed(t);
    t->env.gso_max_bytes = 65536;
    app_send(t, 3 * 1440);
    for (unsigned i = 0; i < 3; i++) {
        const struct tcp_out *o = expect_signed(t, i == 2 ? A | P : A, 1 + i * 1440, 1, 1440);
        assert_int_equal(o->gso_size, 0);
    }
    peer(t, A, 1, 1 + 3 * 1440, 0);
    t->peer_key = NULL;
}

/** A reset by us, and the answer to what belongs to nobody, are signed too. */
TRACE_TEST(resets_are_signed, all_options)
{
    accept_signed(t);
    tcp_abort(t->d, &t->env, t->id);
    expect_signed(t, R | A, 1, 1, 0);
    t->nb_gone = 1;
    peer(t, A, 1, 1, 0);
    expect_signed(t, R, 1, 0, 0);
    t->peer_key = NULL;
    peer(t, A, 1, 1, 0);
    expect_nothing(t);
}

/** Keys that are changed while a connection lives count at once; without one it is an ordinary connection. */
TRACE_TEST(keys_may_change, all_options)
{
    struct tcp_md5_key none;

    accept_signed(t);
    peers_key = other_key;
    assert_int_equal(tcp_set_md5_key(t->d, &t->env, t->id, &peers_key), 0);
    peer(t, A | P, 1, 1, 100);
    expect_signed(t, A, 1, 101, 0);

    none = peers_key;
    none.n_bytes = 0;
    assert_int_equal(tcp_set_md5_key(t->d, &t->env, t->id, &none), 0);
    assert_int_equal(tcp_set_md5_key(t->d, &t->env, t->id, &none), -ENOENT);
    peer(t, A | P, 101, 1, 100);
    assert_int_equal(t->ctr.v[CTR_TCP_DROP_MD5_UNEXPECTED], 1);
    t->peer_key = NULL;
    peer(t, A | P, 101, 1, 100);
    app_send(t, 1460);
    assert_null(expect(t, A, 1, 201, 0)->md5);
    assert_int_equal(expect(t, A | P, 1, 201, 1460)->payload_len, 1460);
}

/** The longest prefix that covers the peer counts. */
TRACE_TEST(prefixes_choose_the_key, all_options)
{
    struct ip_addr net = ip_addr_v4(0x0000420a);
    struct tcp_md5_key wide, none;

    listen_with_key(t);
    wide = key_of(&net, 120, "everybody");
    assert_int_equal(tcp_set_md5_key(t->d, &t->env, t->listener, &wide), 0);
    t->peer_key = &wide;
    full_syn(t);
    expect_nothing(t);
    none = peers_key;
    none.n_bytes = 0;
    assert_int_equal(tcp_set_md5_key(t->d, &t->env, t->listener, &none), 0);
    peers_key = wide;
    full_syn(t);
    expect_signed(t, S | A, 0, 1, 0);
    peer(t, R, 1, 0, 0);
    t->peer_key = NULL;
}

/** What a listener hands down is a key for that peer: it can be taken away as such, and nothing is left then. */
TRACE_TEST(a_handed_down_key_is_the_peers, all_options)
{
    struct ip_addr net = ip_addr_v4(0x0000420a);
    struct tcp_md5_key wide, none;
    struct tcp_tuple remote;

    listen_with_key(t);
    wide = key_of(&net, 120, "everybody");
    none = peers_key;
    none.n_bytes = 0;
    assert_int_equal(tcp_set_md5_key(t->d, &t->env, t->listener, &wide), 0);
    assert_int_equal(tcp_set_md5_key(t->d, &t->env, t->listener, &none), 0);
    peers_key = wide;
    t->peer_key = &peers_key;
    full_syn(t);
    expect_signed(t, S | A, 0, 1, 0);
    peer(t, A, 1, 1, 0);
    t->id = tcp_accept(t->d, &t->env, t->listener, TRACE_USER, &remote);
    assert_int_equal(tcp_set_md5_key(t->d, &t->env, t->id, &none), 0);
    t->peer_key = NULL;
    app_send(t, 10);
    assert_null(expect(t, A | P, 1, 1, 10)->md5);
}

/** The next connection of a tuple that is in TIME-WAIT needs the listener's key of today, not that of the last one. */
TRACE_TEST(keys_may_change_between_connections, all_options)
{
    accept_signed(t);
    tcp_close(t->d, &t->env, t->id, false);
    expect_signed(t, F | A, 1, 1, 0);
    peer(t, A, 1, 2, 0);
    peer(t, F | A, 1, 2, 0);
    expect_signed(t, A, 2, 2, 0);
    peers_key = other_key;
    assert_int_equal(tcp_set_md5_key(t->d, &t->env, t->listener, &peers_key), 0);
    t->irs += 1000000;
    t->peer_key = &peers_key;
    full_syn(t);
    expect_signed(t, S | A, t->out[t->nb_out - 1].seq - t->iss, 1, 0);
    t->nb_checked = t->nb_out;
    peer(t, R, 1, 0, 0);
    t->peer_key = NULL;
}

static void
cookies_always(struct tcp_params *p)
{
    all_options(p);
    p->syn_cookies = TCP_SYN_COOKIES_ALWAYS;
}

/** A cookie needs the timestamp for what was agreed on; the ACK that brings it back is signed, or none. */
TRACE_TEST(cookies_are_signed, cookies_always)
{
    struct tcp_tuple remote;

    listen_with_key(t);
    t->peer_key = &peers_key;
    full_syn(t);
    uint32_t stamp = expect_signed(t, S | A, 0, 1, 0)->opts.ts_val;
    t->peer_key = NULL;
    t->peer_opts = (struct tcp_options){ .has_ts = true, .ts_val = 2, .ts_ecr = stamp };
    peer(t, A, 1, 1, 0);
    assert_int_equal(tcp_accept_count(t->d, t->listener), 0);
    t->peer_key = &peers_key;
    t->peer_opts = (struct tcp_options){ .has_ts = true, .ts_val = 2, .ts_ecr = stamp };
    peer(t, A, 1, 1, 0);
    t->id = tcp_accept(t->d, &t->env, t->listener, TRACE_USER, &remote);
    assert_int_not_equal(t->id, 0);
    app_send(t, 2000);
    expect_signed(t, A, 1, 1, 1460 - 12 - 20);
    expect_signed(t, A | P, 1429, 1, 2000 - 1428);
    t->peer_key = NULL;
}

/** Data with a SYN, its cookie too, have no room: the SYN is as any other. */
TRACE_TEST(there_is_no_fast_open_beside, all_options)
{
    listen_with_key(t);
    t->peer_key = &peers_key;
    t->peer_opts = (struct tcp_options){ .has_mss = true, .mss = 1460, .has_fo = true };
    peer(t, S, 0, 0, 0);
    assert_false(expect_signed(t, S | A, 0, 1, 0)->opts.has_fo);
    peer(t, R, 1, 0, 0);
    t->peer_key = NULL;
}

/* ---- who connects ---------------------------------------------------------------------------------------------------------- */

/** The SYN is signed, without timestamps; what answers without a signature does not exist. */
TRACE_TEST(a_client_signs_its_syn, all_options)
{
    uint32_t taken = 1;

    peers_key = key_of(&t->tuple.remote, 128, "sesame");
    const struct tcp_sockopts o = { .nb_md5 = 1, .md5 = &peers_key };
    t->tuple.local_port = 0;
    assert_int_equal(
        tcp_connect_fast(t->d, &t->env, &t->tuple, TRACE_MSS, &o, TRACE_USER, TCP_FASTOPEN_DEFER, &taken, &t->id), 0);
    const struct tcp_out *syn = expect_signed(t, S, 0, 0, 0);
    assert_int_equal(taken, 0);
    assert_false(syn->opts.has_ts);
    assert_false(syn->opts.has_fo);
    assert_true(syn->opts.has_wscale);
    assert_true(syn->opts.sack_permitted);
    peer(t, R | A, 0, 1, 0);
    t->peer_opts = (struct tcp_options){ .has_mss = true, .mss = 1460 };
    peer(t, S | A, 0, 1, 0);
    assert_int_equal(state_of(t), TCP_ST_SYN_SENT);
    t->peer_key = &peers_key;
    t->peer_opts = (struct tcp_options){ .has_mss = true, .mss = 1460 };
    peer(t, S | A, 0, 1, 0);
    expect_signed(t, A, 1, 1, 0);
    assert_int_equal(state_of(t), TCP_ST_ESTABLISHED);
    assert_false(tcp_can_move(t->d, t->id));
    t->peer_key = NULL;
}

/** Without a key a signed segment is a stranger's, on every state's path. */
TRACE_TEST(who_knows_no_key_takes_no_signature, all_options)
{
    peers_key = key_of(&t->tuple.remote, 128, "sesame");
    make_accepted(t);
    t->peer_key = &peers_key;
    peer(t, A | P, 1, 1, 100);
    peer(t, R, 1, 0, 0);
    t->tuple.remote_port++;
    full_syn(t);
    t->tuple.local_port++;
    full_syn(t); /* to a port that nobody listens on: no reset that tells so */
    t->peer_key = NULL;
    assert_int_equal(t->ctr.v[CTR_TCP_DROP_MD5_UNEXPECTED], 4);
    assert_int_equal(state_of(t), TCP_ST_ESTABLISHED);
}

/** Out-of-range keys, and more than a domain holds; those of one connection go with it. */
TRACE_TEST(keys_are_bounded, NULL)
{
    struct tcp_md5_key k = key_of(&t->tuple.remote, 129, "long");
    struct tcp_md5_key many[TCP_MD5_KEYS_MAX + 1];
    struct tcp_sockopts o = { .nb_md5 = TCP_MD5_KEYS_MAX + 1, .md5 = many };
    tcp_id id;

    app_listen(t, 1);
    assert_int_equal(tcp_set_md5_key(t->d, &t->env, t->listener, &k), -EINVAL);
    k.prefix_len = 128;
    k.n_bytes = TCP_MD5_KEY_MAX + 1;
    assert_int_equal(tcp_set_md5_key(t->d, &t->env, t->listener, &k), -EINVAL);
    k.n_bytes = TCP_MD5_KEY_MAX;
    assert_int_equal(tcp_set_md5_key(t->d, &t->env, 0x123456, &k), -EINVAL);
    for (uint32_t i = 0; i <= TCP_MD5_KEYS_MAX; i++) {
        many[i] = k;
        many[i].prefix = ip_addr_v4(i);
    }
    assert_int_equal(tcp_listen(t->d, &t->env, &t->tuple.local, 8081, 1, &o, TRACE_LISTENER, &id), -ENOMEM);
    o.nb_md5--;
    assert_int_equal(tcp_listen(t->d, &t->env, &t->tuple.local, 8081, 1, &o, TRACE_LISTENER, &id), 0);
    assert_int_equal(tcp_set_md5_key(t->d, &t->env, t->listener, &k), -ENOMEM);
    tcp_abort(t->d, &t->env, id);
    assert_int_equal(tcp_set_md5_key(t->d, &t->env, t->listener, &k), 0);
    assert_int_equal(t->d->md5_keys, 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_are_of_what_the_rfc_lists),
        cmocka_unit_test(headers_have_room_for_a_digest),
        cmocka_unit_test(who_has_no_key_gets_no_word),
        cmocka_unit_test(a_whole_conversation_is_signed),
        cmocka_unit_test(segments_have_room_for_their_signature),
        cmocka_unit_test(resets_are_signed),
        cmocka_unit_test(keys_may_change),
        cmocka_unit_test(prefixes_choose_the_key),
        cmocka_unit_test(a_handed_down_key_is_the_peers),
        cmocka_unit_test(keys_may_change_between_connections),
        cmocka_unit_test(cookies_are_signed),
        cmocka_unit_test(there_is_no_fast_open_beside),
        cmocka_unit_test(a_client_signs_its_syn),
        cmocka_unit_test(who_knows_no_key_takes_no_signature),
        cmocka_unit_test(keys_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
