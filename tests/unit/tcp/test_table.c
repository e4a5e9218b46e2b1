/* SPDX-License-Identifier: BSD-3-Clause */
#include "trace.h"

/**
 * @file
 * The state machine, cell by cell: each (state, flags, payload, sequence class, acknowledgement class) is injected into a
 * fresh connection, and what comes out is compared with the first rule below that speaks of it. The rules say what RFC 9293 section 3.10.7 wants, as
 * RFC 5961 and RFC 1337 have changed it. A cell that no rule decides fails, and so does a rule that decides no cell.
 */

enum state {
    ST_CLOSED, /**< no such connection, nobody listens */
    ST_LISTEN,
    ST_SYN_SENT,
    ST_HALF, /**< SYN-RECEIVED by a listener */
    ST_SYN_RECEIVED, /**< by a simultaneous open */
    ST_ESTABLISHED,
    ST_FIN_WAIT_1,
    ST_FIN_WAIT_2,
    ST_CLOSE_WAIT,
    ST_CLOSING,
    ST_LAST_ACK,
    ST_TIME_WAIT,
    ST_COUNT
};

enum seq_class { SEQ_IRS, SEQ_OLD, SEQ_NEXT, SEQ_INSIDE, SEQ_BEYOND, SEQ_COUNT };
enum ack_class { ACK_NONE, ACK_ANCIENT, ACK_OLD, ACK_UNA, ACK_NXT, ACK_FUTURE, ACK_COUNT };
enum reply { NOTHING, AN_ACK, A_SYN_ACK, A_RST, A_RST_ACK, SOMETHING_ELSE };

#define PAYLOAD 100u
#define WITH_DATA 0x100u /* beside the flags */

/** Where each state's sequence numbers stand, relative to either SYN. */
static const struct {
    const char *name;
    uint32_t rcv_nxt, una, nxt;
} at[ST_COUNT] = {
    [ST_CLOSED] = { "CLOSED", 1, 1, 1 },
    [ST_LISTEN] = { "LISTEN", 1, 1, 1 },
    [ST_SYN_SENT] = { "SYN-SENT", 1, 0, 1 },
    [ST_HALF] = { "SYN-RECEIVED (passive)", 1, 0, 1 },
    [ST_SYN_RECEIVED] = { "SYN-RECEIVED (active)", 1, 0, 1 },
    [ST_ESTABLISHED] = { "ESTABLISHED", 1, 1, 101 },
    [ST_FIN_WAIT_1] = { "FIN-WAIT-1", 1, 1, 2 },
    [ST_FIN_WAIT_2] = { "FIN-WAIT-2", 1, 2, 2 },
    [ST_CLOSE_WAIT] = { "CLOSE-WAIT", 2, 1, 101 },
    [ST_CLOSING] = { "CLOSING", 2, 1, 2 },
    [ST_LAST_ACK] = { "LAST-ACK", 2, 1, 2 },
    [ST_TIME_WAIT] = { "TIME-WAIT", 2, 2, 2 },
};

static const char *const seq_names[] = { "the SYN's", "old", "next", "inside", "beyond" };
static const char *const ack_names[] = { "none", "ancient", "old", "una", "nxt", "future" };
static const char *const reply_names[] = { "nothing", "ACK", "SYN-ACK", "RST", "RST-ACK", "something else" };

#define BIT(x) (1u << (x))
#define ANY UINT32_MAX
#define SYNCHRONIZED                                                                                                   \
    (BIT(ST_ESTABLISHED) | BIT(ST_FIN_WAIT_1) | BIT(ST_FIN_WAIT_2) | BIT(ST_CLOSE_WAIT) | BIT(ST_CLOSING) |            \
     BIT(ST_LAST_ACK))
#define OPEN (SYNCHRONIZED | BIT(ST_SYN_RECEIVED))
#define OUTSIDE (BIT(SEQ_IRS) | BIT(SEQ_OLD) | BIT(SEQ_BEYOND))
#define BAD_ACK (BIT(ACK_ANCIENT) | BIT(ACK_FUTURE))
#define D WITH_DATA
#define SAME ST_COUNT

/** A rule: of these states, with all of `on` and none of `off`, of these classes. */
struct rule {
    uint32_t states, on, off, seqs, acks;
    enum reply reply;
    enum state next; /**< SAME: the state stays */
    const char *why;
};

static const struct rule rules[] = {
    /* 3.10.7.1 CLOSED */
    { BIT(ST_CLOSED), R, 0, ANY, ANY, NOTHING, SAME, "a reset is never answered" },
    { BIT(ST_CLOSED), A, 0, ANY, ANY, A_RST, SAME, "from where the peer believes us to be" },
    { BIT(ST_CLOSED), 0, 0, ANY, ANY, A_RST_ACK, SAME, "all that it occupies is acknowledged" },
    /* 3.10.7.2 LISTEN */
    { BIT(ST_LISTEN), R, 0, ANY, ANY, NOTHING, SAME, "first, there is nothing to reset" },
    { BIT(ST_LISTEN), A, 0, ANY, ANY, A_RST, SAME, "second, of what was never sent" },
    { BIT(ST_LISTEN), S | F, 0, ANY, ANY, NOTHING, SAME, "ours: no TCP opens so, and it slips through filters" },
    { BIT(ST_LISTEN), S, 0, ANY, ANY, A_SYN_ACK, ST_HALF, "third; data with it is left to be sent again" },
    { BIT(ST_LISTEN), 0, 0, ANY, ANY, NOTHING, SAME, "fourth, it should not be here" },
    /* 3.10.7.3 SYN-SENT */
    { BIT(ST_SYN_SENT), R | A, 0, ANY, BIT(ACK_NXT), NOTHING, ST_CLOSED, "second, refused" },
    { BIT(ST_SYN_SENT), R, 0, ANY, ANY, NOTHING, SAME, "second, by a stranger" },
    { BIT(ST_SYN_SENT), A, 0, ANY, ~BIT(ACK_NXT), A_RST, SAME, "first, of what was never sent" },
    { BIT(ST_SYN_SENT), S | A | F, 0, ANY, ANY, AN_ACK, ST_CLOSE_WAIT, "fourth, then the eighth step" },
    { BIT(ST_SYN_SENT), S | A, 0, ANY, ANY, AN_ACK, ST_ESTABLISHED, "fourth" },
    { BIT(ST_SYN_SENT), S, 0, ANY, ANY, A_SYN_ACK, ST_SYN_RECEIVED,
      "fourth, a simultaneous open; its FIN comes again" },
    { BIT(ST_SYN_SENT), 0, 0, ANY, ANY, NOTHING, SAME, "fifth" },
    /* 3.10.7.4 SYN-RECEIVED of a listener */
    { BIT(ST_HALF), S, A | R, BIT(SEQ_IRS), ANY, A_SYN_ACK, SAME, "our answer was lost" },
    { BIT(ST_HALF), R, 0, OUTSIDE, ANY, NOTHING, SAME, "first" },
    { BIT(ST_HALF), 0, 0, OUTSIDE, ANY, AN_ACK, SAME, "first" },
    { BIT(ST_HALF), R, 0, BIT(SEQ_NEXT), ANY, NOTHING, ST_LISTEN, "second, the listener stays" },
    { BIT(ST_HALF), R, 0, BIT(SEQ_INSIDE), ANY, AN_ACK, SAME, "second, RFC 5961 section 3.2" },
    { BIT(ST_HALF), S, 0, ANY, ANY, AN_ACK, SAME, "fourth: as RFC 5961 section 4.2, not back to LISTEN for a guess" },
    { BIT(ST_HALF), 0, A, ANY, ANY, NOTHING, SAME, "fifth" },
    { BIT(ST_HALF), A, 0, ANY, ~BIT(ACK_NXT), A_RST, SAME, "fifth, of what was never sent" },
    { BIT(ST_HALF), A | F, 0, BIT(SEQ_NEXT), ANY, AN_ACK, ST_CLOSE_WAIT, "fifth and eighth" },
    { BIT(ST_HALF), A | F, 0, BIT(SEQ_INSIDE), ANY, AN_ACK, ST_ESTABLISHED, "fifth, and a gap before the FIN" },
    { BIT(ST_HALF), A | D, 0, ANY, ANY, AN_ACK, ST_ESTABLISHED, "fifth and seventh" },
    { BIT(ST_HALF), A, 0, ANY, ANY, NOTHING, ST_ESTABLISHED, "fifth" },
    /* 3.10.7.4 SYN-RECEIVED of a simultaneous open: its peer's SYN again, or with the ACK that was missing */
    { BIT(ST_SYN_RECEIVED), S, A | R, BIT(SEQ_IRS), ANY, A_SYN_ACK, SAME, "our answer was lost" },
    { BIT(ST_SYN_RECEIVED), S | A, R, BIT(SEQ_IRS), ~BIT(ACK_NXT), A_RST, SAME, "fifth, of what was never sent" },
    { BIT(ST_SYN_RECEIVED), S | A | F, R, BIT(SEQ_IRS), ANY, AN_ACK, ST_CLOSE_WAIT, "fifth and eighth" },
    { BIT(ST_SYN_RECEIVED), S | A, R, BIT(SEQ_IRS), ANY, AN_ACK, ST_ESTABLISHED, "fifth" },
    /* 3.10.7.4 the states beyond */
    { BIT(ST_SYN_RECEIVED), R | D, 0, BIT(SEQ_IRS), ANY, AN_ACK, SAME,
      "second: its data lies in the window, its RST does not" },
    { OPEN, R, 0, OUTSIDE, ANY, NOTHING, SAME, "first" },
    { OPEN, 0, 0, OUTSIDE, ANY, AN_ACK, SAME, "first" },
    { OPEN, R, 0, BIT(SEQ_NEXT), ANY, NOTHING, ST_CLOSED, "second" },
    { OPEN, R, 0, BIT(SEQ_INSIDE), ANY, AN_ACK, SAME, "second, RFC 5961 section 3.2" },
    { OPEN, S, 0, ANY, ANY, AN_ACK, SAME, "fourth, RFC 5961 section 4.2" },
    { OPEN, 0, A, ANY, ANY, NOTHING, SAME, "fifth" },
    { BIT(ST_SYN_RECEIVED), A, 0, ANY, ~BIT(ACK_NXT), A_RST, SAME, "fifth" },
    { BIT(ST_SYN_RECEIVED), A | F, 0, BIT(SEQ_NEXT), ANY, AN_ACK, ST_CLOSE_WAIT, "fifth and eighth" },
    { BIT(ST_SYN_RECEIVED), A | F, 0, ANY, ANY, AN_ACK, ST_ESTABLISHED, "fifth, and a gap before the FIN" },
    { BIT(ST_SYN_RECEIVED), A | D, 0, ANY, ANY, AN_ACK, ST_ESTABLISHED, "fifth and seventh" },
    { BIT(ST_SYN_RECEIVED), A, 0, ANY, ANY, NOTHING, ST_ESTABLISHED, "fifth" },
    { SYNCHRONIZED, A, 0, ANY, BAD_ACK, AN_ACK, SAME, "fifth, RFC 5961 section 5.2" },
    /* What our FIN's acknowledgement changes; text and FIN are judged in the state after it. */
    { BIT(ST_FIN_WAIT_1), A | F, 0, BIT(SEQ_NEXT), BIT(ACK_NXT), AN_ACK, ST_TIME_WAIT, "fifth and eighth" },
    { BIT(ST_FIN_WAIT_1), A | F, 0, ANY, BIT(ACK_NXT), AN_ACK, ST_FIN_WAIT_2, "fifth, and a gap before the FIN" },
    { BIT(ST_FIN_WAIT_1), A | D, 0, ANY, BIT(ACK_NXT), AN_ACK, ST_FIN_WAIT_2, "fifth and seventh" },
    { BIT(ST_FIN_WAIT_1), A, 0, ANY, BIT(ACK_NXT), NOTHING, ST_FIN_WAIT_2, "fifth" },
    { BIT(ST_CLOSING), A, 0, ANY, BIT(ACK_NXT), NOTHING, ST_TIME_WAIT, "fifth" },
    { BIT(ST_LAST_ACK), A, 0, ANY, BIT(ACK_NXT), NOTHING, ST_CLOSED, "fifth" },
    /* The peer has finished: seventh and eighth, "should not occur", ignore. */
    { BIT(ST_CLOSE_WAIT) | BIT(ST_CLOSING) | BIT(ST_LAST_ACK), A, 0, ANY, ANY, NOTHING, SAME, "seventh, eighth" },
    { BIT(ST_ESTABLISHED), A | F, 0, BIT(SEQ_NEXT), ANY, AN_ACK, ST_CLOSE_WAIT, "eighth" },
    { BIT(ST_FIN_WAIT_1), A | F, 0, BIT(SEQ_NEXT), ANY, AN_ACK, ST_CLOSING, "eighth" },
    { BIT(ST_FIN_WAIT_2), A | F, 0, BIT(SEQ_NEXT), ANY, AN_ACK, ST_TIME_WAIT, "eighth" },
    { SYNCHRONIZED, A | F, 0, ANY, ANY, AN_ACK, SAME, "a gap before the FIN" },
    { SYNCHRONIZED, A | D, 0, ANY, ANY, AN_ACK, SAME, "seventh; at once, for a gap or in slow start" },
    { SYNCHRONIZED, A, 0, ANY, ANY, NOTHING, SAME, "an acknowledgement draws none" },
    /* TIME-WAIT */
    { BIT(ST_TIME_WAIT), R, 0, ANY, ANY, NOTHING, SAME, "RFC 1337: nothing cuts it short" },
    { BIT(ST_TIME_WAIT), 0, S | A, BIT(SEQ_NEXT) | BIT(SEQ_INSIDE), ANY, NOTHING, SAME, "fifth, a FIN too" },
    { BIT(ST_TIME_WAIT), 0, S | F | D, BIT(SEQ_NEXT), ANY, NOTHING, SAME, "nothing to answer" },
    { BIT(ST_TIME_WAIT), 0, 0, ANY, ANY, AN_ACK, SAME, "first, seventh, eighth: it lacks our last ACK" },
};
#define NB_RULES (sizeof(rules) / sizeof(rules[0]))

static unsigned hits[NB_RULES];

static void
without_cookies(struct tcp_params *p)
{
    p->syn_cookies = TCP_SYN_COOKIES_OFF;
}

static void
make_half(struct trace *t)
{
    app_listen(t, 4);
    peer(t, S, 0, 0, 0);
    expect(t, S | A, 0, 1, 0);
}

static void
make_listen(struct trace *t)
{
    app_listen(t, 4);
}

static void
make_closed(struct trace *t)
{
    t->tuple.local_port = 8080;
}

static void
make_established_busy(struct trace *t)
{
    make_established(t);
    app_send(t, PAYLOAD);
    expect(t, A | P, 1, 1, PAYLOAD);
}

static void
make_close_wait_busy(struct trace *t)
{
    make_close_wait(t);
    app_send(t, PAYLOAD);
    expect(t, A | P, 1, 2, PAYLOAD);
}

static void (*const make[ST_COUNT])(struct trace *t) = {
    make_closed,     make_listen,     make_syn_sent,        make_half,    make_syn_received, make_established_busy,
    make_fin_wait_1, make_fin_wait_2, make_close_wait_busy, make_closing, make_last_ack,     make_time_wait,
};

/** Where the connection of the trace's tuple is, by what the domain says of it. */
static enum state
look(const struct trace *t)
{
    static const enum state of[] = {
        [TCP_ST_ESTABLISHED] = ST_ESTABLISHED,
        [TCP_ST_SYN_SENT] = ST_SYN_SENT,
        [TCP_ST_SYN_RECEIVED] = ST_SYN_RECEIVED,
        [TCP_ST_FIN_WAIT_1] = ST_FIN_WAIT_1,
        [TCP_ST_FIN_WAIT_2] = ST_FIN_WAIT_2,
        [TCP_ST_TIME_WAIT] = ST_TIME_WAIT,
        [TCP_ST_CLOSED] = ST_CLOSED,
        [TCP_ST_CLOSE_WAIT] = ST_CLOSE_WAIT,
        [TCP_ST_LAST_ACK] = ST_LAST_ACK,
        [TCP_ST_LISTEN] = ST_LISTEN,
        [TCP_ST_CLOSING] = ST_CLOSING,
    };
    struct tcp_conn_info info[4];
    uint64_t cursor = 0;
    enum state s = ST_CLOSED;
    struct tcp_usage u;

    unsigned n = tcp_walk(t->d, &cursor, info, 4);
    tcp_usage(t->d, &u);
    for (unsigned i = 0; i < n; i++)
        if (s == ST_CLOSED || s == ST_LISTEN)
            s = of[info[i].state];
    return s == ST_SYN_RECEIVED && u.half_open > 0 ? ST_HALF : s;
}

static enum reply
replied(struct trace *t)
{
    unsigned n = t->nb_out - t->nb_checked;
    const struct tcp_out *o = &t->out[t->nb_checked];

    t->nb_checked = t->nb_out;
    if (n != 1 || o->payload_len != 0)
        return n == 0 ? NOTHING : SOMETHING_ELSE;
    switch (o->flags) {
    case A:
        return AN_ACK;
    case S | A:
        return A_SYN_ACK;
    case R:
        return A_RST;
    case R | A:
        return A_RST_ACK;
    default:
        return SOMETHING_ELSE;
    }
}

struct cell {
    enum state state;
    uint32_t flags; /**< and WITH_DATA */
    enum seq_class seq;
    enum ack_class ack;
};

static const struct rule *
decide(const struct cell *c)
{
    for (unsigned i = 0; i < NB_RULES; i++) {
        const struct rule *r = &rules[i];
        if ((r->states & BIT(c->state)) != 0 && (c->flags & r->on) == r->on && (c->flags & r->off) == 0 &&
            (r->seqs & BIT(c->seq)) != 0 && (r->acks & BIT(c->ack)) != 0) {
            hits[i]++;
            return r;
        }
    }
    return NULL;
}

/** 0 if the engine does what the table says. */
static int
run_cell(const struct cell *c)
{
    static struct trace t;
    const uint32_t next = at[c->state].rcv_nxt, una = at[c->state].una, nxt = at[c->state].nxt;
    const uint32_t seq[SEQ_COUNT] = { 0, next - 500, next, next + 300, next + 200000 };
    const uint32_t ack[ACK_COUNT] = { 0, una - 100000, una - 1, una, nxt, nxt + 1000 };
    const struct rule *r = decide(c);

    if (r != NULL) {
        trace_init(&t, without_cookies);
        make[c->state](&t);
        t.nb_checked = t.nb_out;
        peer(&t, (uint8_t)c->flags, seq[c->seq], ack[c->ack], c->flags & WITH_DATA ? PAYLOAD : 0);
        enum reply reply = replied(&t);
        enum state now = look(&t), want = r->next == SAME ? c->state : r->next;
        trace_fini(&t);
        if (reply == r->reply && now == want)
            return 0;
        print_message("got %s and %s, want %s and %s (%s): ", reply_names[reply], at[now].name, reply_names[r->reply],
                      at[want].name, r->why);
    } else {
        print_message("undecided: ");
    }
    print_message("%s, %s%s%s%s%s, seq %s, ack %s\n", at[c->state].name, c->flags & S ? "SYN " : "",
                  c->flags & A ? "ACK " : "", c->flags & F ? "FIN " : "", c->flags & R ? "RST " : "",
                  c->flags & WITH_DATA ? "data" : "", seq_names[c->seq], ack_names[c->ack]);
    return 1;
}

/** Classes that are the same in a state are walked once. */
static bool
is_distinct(const struct cell *c)
{
    bool syn_known = c->state == ST_HALF || c->state == ST_SYN_RECEIVED;
    bool no_space = c->state == ST_CLOSED || c->state == ST_LISTEN || c->state == ST_SYN_SENT;

    if ((c->seq == SEQ_IRS && (!syn_known || (c->flags & S) == 0)) || (no_space && c->seq != SEQ_NEXT))
        return false;
    if ((c->ack == ACK_NONE) != ((c->flags & A) == 0))
        return false;
    return c->ack != ACK_NXT || at[c->state].una != at[c->state].nxt;
}

static void
every_cell_is_decided(void **state)
{
    static const uint8_t flag_of[] = { S, A, F, R };
    unsigned nb_cells = 0;
    int wrong = 0;

    (void)state;
    for (struct cell c = { 0 }; c.state < ST_COUNT; c.state++)
        for (unsigned set = 0; set < 32; set++)
            for (c.seq = 0; c.seq < SEQ_COUNT; c.seq++)
                for (c.ack = 0; c.ack < ACK_COUNT; c.ack++) {
                    c.flags = set & 16 ? WITH_DATA : 0;
                    for (unsigned i = 0; i < 4; i++)
                        c.flags |= set & BIT(i) ? flag_of[i] : 0;
                    if (!is_distinct(&c))
                        continue;
                    nb_cells++;
                    wrong += run_cell(&c);
                }
    print_message("%u cells, %u rules\n", nb_cells, (unsigned)NB_RULES);
    for (unsigned i = 0; i < NB_RULES; i++)
        if (hits[i] == 0) {
            print_message("no cell for: %s (rule %u)\n", rules[i].why, i);
            wrong++;
        }
    assert_int_equal(wrong, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cell_is_decided),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
