/* SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "sim.h"

/**
 * @file
 * Goodput over congestion control x loss x round-trip time x buffer, and over what else a path may do to a flow, against the table that is checked in; how two
 * flows share a bottleneck; and that nothing ever stalls longer than the network explains.
 * sim_sweep TABLE compares, sim_sweep TABLE write renews the table, sim_sweep TABLE SEEDS runs that many seeds of the
 * stall test instead of a few.
 */

#define MIB (1024ull * 1024)
#define SECOND 1000000ull
#define RATE_BYTES_PER_MS 10000u
/** What of the rate is payload: 1448 bytes in a frame of 1538. */
#define PAYLOAD_PERMILLE (1448u * 1000 / 1538)
/** The table is met if goodput is not worse by more than this; everything is deterministic, changes are not. */
#define TOLERANCE_PERCENT 10
/** Which segments are lost is chance: a lossy cell is the mean of so many runs, so is what two flows share. */
#define LOSSY_SEEDS 4
#define SHARE_SEEDS 8

static const char *table_path = "goodput.tsv";
static bool table_write;
static unsigned stall_seeds = 120;
static uint8_t congestion;
static uint8_t ecn;

static void
adjust(struct tcp_params *p)
{
    p->congestion = congestion;
    p->ecn = ecn;
    p->rcv_buf_bytes = 4u << 20;
}

static const char *const controls[] = { "cubic", "newreno", "dctcp", "bbr" };
/** Those that need no marks to do well. */
static const char *const kinds[] = { "cubic", "newreno", "bbr" };
static const uint32_t losses_ppm[] = { 0, 1000, 10000, 30000 };
static const uint32_t rtts_ms[] = { 1, 20, 100 };
static const uint32_t buffers_percent[] = { 50, 100, 200 };
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
/** Paths that do more than lose at random, each at 20 ms and a buffer of the path's product. */
static const struct path {
    const char *name;
    struct sim_link link; /**< what it does beside delay and bottleneck */
    uint8_t ecn; /**< not off: its queue marks instead of filling, and the ends agree on this (TCP_ECN_*) */
} paths[] = {
    { "plain", { .loss_ppm = 0 }, TCP_ECN_OFF },
    { "bursts", { .burst_ppm = 2000, .burst_segs = 5 }, TCP_ECN_OFF },
    { "copies", { .dup_ppm = 20000 }, TCP_ECN_OFF },
    { "reorders", { .reorder_ppm = 10000, .reorder_us = 3000 }, TCP_ECN_OFF },
    { "marks", { .loss_ppm = 0 }, TCP_ECN_ASK },
    { "counts", { .loss_ppm = 0 }, TCP_ECN_ACCURATE },
};
#define NB_PLAIN (COUNT(controls) * COUNT(losses_ppm) * COUNT(rtts_ms) * COUNT(buffers_percent))
#define NB_CELLS (NB_PLAIN + COUNT(controls) * (COUNT(paths) - 1))

struct cell {
    char control[16], path[16];
    uint32_t loss_ppm, rtt_ms, buffer_percent;
    uint32_t goodput_permille; /**< of what the link can carry */
};

static struct cell cells[NB_CELLS];

/** At least 32 KB: a burst must fit. */
static uint32_t
queue_of(uint32_t rtt_ms, uint32_t buffer_percent)
{
    uint32_t bytes = (uint32_t)((uint64_t)RATE_BYTES_PER_MS * rtt_ms * buffer_percent / 100);

    return bytes > 32000 ? bytes : 32000;
}

/** One transfer of n_bytes; returns bytes a second. */
static uint64_t
run_transfer(const struct sim_link *link, uint64_t seed, uint64_t n_bytes)
{
    static struct sim s;

    sim_init(&s, seed, link, adjust);
    s.gso_max_bytes = 65535;
    s.snd_buf_bytes = 4u << 20;
    s.host[0].flows[0].to_send = n_bytes;
    uint64_t start = s.now_us;
    sim_connect(&s);
    assert_true(sim_run(&s, start + 3600 * SECOND));
    assert_int_equal(s.host[1].flows[0].received, n_bytes);
    uint64_t rate = n_bytes * SECOND / (s.now_us - start);
    sim_fini(&s);
    return rate;
}

static const struct path *
path_named(const char *name)
{
    for (unsigned i = 0; i < COUNT(paths); i++)
        if (strcmp(paths[i].name, name) == 0)
            return &paths[i];
    fail_msg("no path is called %s", name);
    return NULL;
}

static void
run_cell(struct cell *c)
{
    const struct path *path = path_named(c->path);
    struct sim_link link = path->link;
    bool lossy = c->loss_ppm != 0 || link.burst_ppm != 0 || link.reorder_ppm != 0;
    uint64_t seeds = lossy ? LOSSY_SEEDS : 1;
    uint64_t sum = 0;

    link.loss_ppm = c->loss_ppm;
    link.delay_us = c->rtt_ms * 500;
    link.rate_bytes_per_ms = RATE_BYTES_PER_MS;
    link.queue_bytes = queue_of(c->rtt_ms, c->buffer_percent);
    congestion = (uint8_t)tcp_congestion_find(c->control);
    ecn = path->ecn == TCP_ECN_OFF && strcmp(c->control, "dctcp") == 0 ? TCP_ECN_ASK : path->ecn;
    link.mark_bytes = ecn != TCP_ECN_OFF ? link.queue_bytes / 4 : 0;
    /* Long enough for the start not to count for much, short enough to run often. A start takes round trips. */
    uint64_t n_bytes = lossy ? 6 * MIB : 48 * MIB * (c->rtt_ms > 20 ? c->rtt_ms / 20 : 1);
    for (uint64_t seed = 1; seed <= seeds; seed++)
        sum += run_transfer(&link, seed, n_bytes);
    c->goodput_permille = (uint32_t)(sum / seeds * 1000 / (RATE_BYTES_PER_MS * 1000ull * PAYLOAD_PERMILLE / 1000));
}

static struct cell
cell_of(const char *control, const char *path, uint32_t loss_ppm, uint32_t rtt_ms, uint32_t buffer_percent)
{
    struct cell c = { .loss_ppm = loss_ppm, .rtt_ms = rtt_ms, .buffer_percent = buffer_percent };

    snprintf(c.control, sizeof(c.control), "%s", control);
    snprintf(c.path, sizeof(c.path), "%s", path);
    return c;
}

static void
fill_cells(void)
{
    unsigned n = 0;

    for (unsigned i = 0; i < COUNT(controls); i++)
        for (unsigned k = 0; k < COUNT(losses_ppm); k++)
            for (unsigned r = 0; r < COUNT(rtts_ms); r++)
                for (unsigned b = 0; b < COUNT(buffers_percent); b++)
                    cells[n++] = cell_of(controls[i], "plain", losses_ppm[k], rtts_ms[r], buffers_percent[b]);
    for (unsigned p = 1; p < COUNT(paths); p++)
        for (unsigned i = 0; i < COUNT(controls); i++)
            cells[n++] = cell_of(controls[i], paths[p].name, 0, 20, 100);
}

static void
write_table(void)
{
    FILE *f = fopen(table_path, "w");

    assert_non_null(f);
    fprintf(f, "control\tpath\tloss_ppm\trtt_ms\tbuffer_percent_of_bdp\tgoodput_permille_of_capacity\n");
    for (unsigned i = 0; i < NB_CELLS; i++)
        fprintf(f, "%s\t%s\t%u\t%u\t%u\t%u\n", cells[i].control, cells[i].path, cells[i].loss_ppm, cells[i].rtt_ms,
                cells[i].buffer_percent, cells[i].goodput_permille);
    assert_int_equal(fclose(f), 0);
}

static int
run_cells(void **state)
{
    (void)state;
    fill_cells();
    for (unsigned i = 0; i < NB_CELLS; i++)
        run_cell(&cells[i]);
    if (table_write)
        write_table();
    return 0;
}

static void
goodput_meets_the_table(void **state)
{
    struct cell want;
    char line[128];
    unsigned worse = 0;

    (void)state;
    FILE *f = fopen(table_path, "r");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof(line), f));
    for (unsigned i = 0; i < NB_CELLS; i++) {
        assert_int_equal(fscanf(f, "%15s %15s %u %u %u %u", want.control, want.path, &want.loss_ppm, &want.rtt_ms,
                                &want.buffer_percent, &want.goodput_permille),
                         6);
        assert_string_equal(want.control, cells[i].control);
        assert_string_equal(want.path, cells[i].path);
        assert_int_equal(want.loss_ppm, cells[i].loss_ppm);
        if (cells[i].goodput_permille * 100 < want.goodput_permille * (100 - TOLERANCE_PERCENT)) {
            print_message("%s, %s, loss %u ppm, %u ms, buffer %u%%: %u, the table has %u\n", want.control, want.path,
                          want.loss_ppm, want.rtt_ms, want.buffer_percent, cells[i].goodput_permille,
                          want.goodput_permille);
            worse++;
        }
    }
    fclose(f);
    assert_int_equal(worse, 0);
}

/**
 * Whether a cell's link must be full: it loses nothing but what its queue drops, and the transfer is long beside what its control takes to find the
 * rate. NewReno, which halves its window, needs a buffer of the path's product; DCTCP leaves its slow start with the first mark, and grows by a
 * segment in a round trip from there.
 */
static bool
fills_its_link(const struct cell *c)
{
    if (c->loss_ppm != 0 || strcmp(c->path, "plain") != 0)
        return false;
    if (strcmp(c->control, "dctcp") == 0)
        return c->rtt_ms == 1 || c->buffer_percent == 200;
    return strcmp(c->control, "newreno") != 0 || c->rtt_ms <= 20 || c->buffer_percent >= 100;
}

static void
a_clean_link_is_filled(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NB_CELLS; i++)
        if (fills_its_link(&cells[i]) && cells[i].goodput_permille < 950)
            fail_msg("%s, %u ms, buffer %u%%: %u permille of capacity", cells[i].control, cells[i].rtt_ms,
                     cells[i].buffer_percent, cells[i].goodput_permille);
}

/** Of what random losses leave of the link, so much arrives in 8 s, its start included, with the send buffer of the socket layer. */
static unsigned
bbr_permille_of_what_is_left(uint32_t loss_ppm, uint64_t seed)
{
    const struct sim_link link = {
        .delay_us = 10000, .loss_ppm = loss_ppm, .rate_bytes_per_ms = RATE_BYTES_PER_MS, .queue_bytes = 200000
    };
    static struct sim s;

    congestion = (uint8_t)tcp_congestion_find("bbr");
    ecn = 0;
    sim_init(&s, seed, &link, adjust);
    s.gso_max_bytes = 65535;
    s.snd_buf_bytes = 4032 * 1024;
    s.host[0].flows[0].to_send = 1000 * MIB;
    uint64_t start = s.now_us;
    sim_connect(&s);
    sim_run(&s, start + 8 * SECOND);
    uint64_t left = 8ull * RATE_BYTES_PER_MS * PAYLOAD_PERMILLE * (1000000 - loss_ppm) / 1000000;
    unsigned permille = (unsigned)(s.host[1].flows[0].received * 1000 / left);
    sim_fini(&s);
    return permille;
}

static void
random_loss_leaves_bbr_its_rate(void **state)
{
    static const uint32_t ppm[] = { 1000, 10000, 30000 };

    (void)state;
    for (unsigned i = 0; i < COUNT(ppm); i++)
        for (uint64_t seed = 1; seed <= LOSSY_SEEDS; seed++) {
            unsigned permille = bbr_permille_of_what_is_left(ppm[i], seed);
            print_message("%u ppm lost, seed %u: %u permille\n", ppm[i], (unsigned)seed, permille);
            assert_true(permille >= 980);
        }
}

/**
 * How far apart two flows of one kind are, in permille of what each should have, over so long a time from the later one's start. With random losses, or with different
 * starts: else both would move in step for ever, which no network lets them.
 */
static unsigned
flows_apart(const char *control, uint64_t seed, uint32_t loss_ppm, uint64_t later_us, uint64_t for_us)
{
    const struct sim_link link = {
        .delay_us = 10000, .loss_ppm = loss_ppm, .rate_bytes_per_ms = RATE_BYTES_PER_MS, .queue_bytes = 200000
    };
    static struct sim s;

    congestion = (uint8_t)tcp_congestion_find(control);
    ecn = 0;
    sim_init(&s, seed, &link, adjust);
    s.nb_flows = 2;
    s.gso_max_bytes = 65535;
    s.host[0].flows[0].to_send = s.host[0].flows[1].to_send = 4000 * MIB;
    s.host[0].flows[1].start_us = later_us;
    uint64_t start = s.now_us;
    sim_connect(&s);
    sim_run(&s, start + later_us);
    uint64_t before = s.host[1].flows[0].received;
    sim_run(&s, start + later_us + for_us);
    uint64_t a = s.host[1].flows[0].received - before, b = s.host[1].flows[1].received;
    sim_fini(&s);
    return (unsigned)((a > b ? a - b : b - a) * 2000 / (a + b));
}

/**
 * Two flows of one kind that start together share within a fifth while both have something to send: in the mean of some
 * runs, since each meets a dozen losses of its own in half a minute, and whose luck is worse decides one run more than
 * what the control does. That no run starves anybody is asked of each.
 */
static void
two_flows_share(void **state)
{
    (void)state;
    for (unsigned i = 0; i < COUNT(kinds); i++) {
        unsigned worst = 0, sum = 0;
        for (uint64_t seed = 1; seed <= SHARE_SEEDS; seed++) {
            unsigned apart = flows_apart(kinds[i], seed, 100, 0, 30 * SECOND);
            worst = apart > worst ? apart : worst;
            sum += apart;
        }
        print_message("%s: two flows are %u permille apart, %u at worst\n", kinds[i], sum / SHARE_SEEDS, worst);
        assert_true(sum / SHARE_SEEDS <= 200);
        assert_true(worst <= 500);
    }
}

/**
 * In every single run, if it lasts: a full queue drops one segment of either flow, every two seconds or so, and only the mean of a hundred of these coins tells of the
 * control. The second flow comes up to 5.6 s later, to a first one that has the path.
 */
static void
two_cubic_flows_share_each_time(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SHARE_SEEDS; seed++) {
        unsigned apart = flows_apart("cubic", seed, 0, seed * 7 * SECOND / 10, 300 * SECOND);
        print_message("cubic, seed %u: %u permille apart in five minutes\n", (unsigned)seed, apart);
        assert_true(apart <= 200);
    }
}

/** Hostile paths, many seeds: a pause longer than the timeout needs a copy, or an answer, that was lost as well. */
static void
nothing_stalls_unexplained(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= stall_seeds; seed++) {
        struct sim_link link = {
            .loss_ppm = 2000 * (seed % 16),
            .burst_ppm = seed % 3 == 0 ? 500 : 0,
            .burst_segs = 2 + seed % 11,
            .reorder_ppm = seed % 4 == 0 ? 10000 * (seed % 9) : 0,
            .reorder_us = 500 * (seed % 13),
            .dup_ppm = seed % 5 == 0 ? 20000 : 0,
            .delay_us = 500 * (1 + seed % 40),
            .rate_bytes_per_ms = seed % 2 == 0 ? 2000 + 500 * (seed % 17) : 0,
            .queue_bytes = 20000 + 5000 * (seed % 23),
        };
        static struct sim s;
        congestion = (uint8_t)tcp_congestion_find(controls[seed % COUNT(controls)]);
        ecn = seed % 2 == 0 ? TCP_ECN_OFF : seed % 4 == 1 ? TCP_ECN_ASK : TCP_ECN_ACCURATE;
        link.mark_bytes = ecn != 0 ? link.queue_bytes / 3 : 0;
        sim_init(&s, seed, &link, adjust);
        s.gso_max_bytes = seed % 2 == 0 ? 65535 : 0;
        s.host[0].flows[0].to_send = 512 * 1024;
        s.host[1].flows[0].to_send = seed % 3 == 0 ? 256 * 1024 : 0;
        uint64_t start = s.now_us;
        sim_connect(&s);
        if (!sim_run(&s, start + 1200 * SECOND))
            fail_msg("seed %u: %llu of %llu bytes", seed, (unsigned long long)s.host[1].flows[0].received,
                     (unsigned long long)s.host[0].flows[0].to_send);
        for (unsigned i = 0; i < 2; i++) {
            assert_int_equal(s.host[i].flows[0].received, s.host[1 - i].flows[0].to_send);
            /* The answer to the timeout's copy takes a round trip, queue and delayed ACK included. */
            uint64_t grace_us = 2ull * link.delay_us + 2ull * link.reorder_us + 60000;
            if (link.rate_bytes_per_ms != 0)
                grace_us += link.queue_bytes * 1000ull / link.rate_bytes_per_ms;
            if (s.host[i].flows[0].worst_stall_us > grace_us)
                fail_msg("seed %u: no progress for %llu us beyond the timeout", seed,
                         (unsigned long long)s.host[i].flows[0].worst_stall_us);
        }
        sim_fini(&s);
    }
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goodput_meets_the_table),         cmocka_unit_test(a_clean_link_is_filled),
        cmocka_unit_test(random_loss_leaves_bbr_its_rate), cmocka_unit_test(two_flows_share),
        cmocka_unit_test(two_cubic_flows_share_each_time), cmocka_unit_test(nothing_stalls_unexplained),
    };

    if (argc > 1)
        table_path = argv[1];
    if (argc > 2 && strcmp(argv[2], "write") == 0)
        table_write = true;
    else if (argc > 2)
        stall_seeds = (unsigned)strtoul(argv[2], NULL, 10);
    return cmocka_run_group_tests(tests, run_cells, NULL);
}
