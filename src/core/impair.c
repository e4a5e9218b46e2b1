/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_branch_prediction.h>
#include <rte_byteorder.h>
#include <rte_common.h>
#include <rte_ether.h>

#include "core/impair.h"
#include "core/rng.h"

#define HELD_MAX 16
/* A held frame goes after this many later ones ... */
#define OVERTAKERS_MAX 3
/* ... or after this time, should none come. */
#define HOLD_MAX_US 5000
#define QUEUE_MAX 8192u
#define TIME_MAX_US 10000000.0
#define QUEUE_DEFAULT_US 20000
#define QUEUE_UNSET UINT32_MAX
#define RATE_MIN_BYTES_PER_S 1000.0
#define RATE_MAX_BYTES_PER_S 1e11
/* What a frame takes on an Ethernet beside its bytes: preamble, check sequence, gap. */
#define FRAME_OVERHEAD_BYTES 24

struct waiting {
    struct rte_mbuf *m;
    uint64_t due_us;
};

struct held {
    struct rte_mbuf *m;
    uint64_t until_us;
    uint32_t overtakers; /* later frames that must still pass */
};

struct impair {
    struct impair_config cfg;
    struct rng rng;
    struct pktpool *pool;
    struct counters *ctr; /* of whoever is inside impair_put */
    struct held held[HELD_MAX];
    unsigned held_count;
    uint64_t line_free_ns; /* the bottleneck has sent what it has */
    uint32_t head; /* index of the oldest; free-running */
    uint32_t tail; /* one past the youngest; tail - head <= capacity */
    uint32_t capacity; /* a power of two */
    struct waiting queue[];
};

static int
fail(char *err, size_t err_len, const char *word, int word_len, const char *reason)
{
    snprintf(err, err_len, "impair: '%.*s': %s", word_len, word, reason);
    return -EINVAL;
}

static bool
parse_percent(const char *text, size_t len, uint32_t *ppm)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || !isfinite(value) || value < 0 || value > 100)
        return false;
    if (end < text + len && *end == '%')
        end++;
    *ppm = (uint32_t)lround(value * 10000);
    return end == text + len;
}

static bool
parse_time(const char *text, size_t len, uint32_t *time_us)
{
    static const struct {
        const char *unit;
        double us;
    } units[] = { { "us", 1 }, { "ms", 1000 }, { "s", 1000000 } };
    char *end;
    double value = strtod(text, &end);
    size_t unit_len = len - (size_t)(end - text);

    if (end == text || end > text + len || !isfinite(value) || value < 0)
        return false;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (unit_len != strlen(units[i].unit) || strncmp(end, units[i].unit, unit_len) != 0)
            continue;
        if (value * units[i].us > TIME_MAX_US)
            return false;
        *time_us = (uint32_t)lround(value * units[i].us);
        return true;
    }
    return false;
}

/* Bytes per second, with k, M or G. */
static bool
parse_rate(const char *text, size_t len, uint64_t *bytes_per_s)
{
    static const char suffixes[] = "kMG";
    char *end;
    double value = strtod(text, &end);

    if (end == text || !isfinite(value))
        return false;
    if (end < text + len) {
        const char *suffix = strchr(suffixes, *end++);

        if (suffix == NULL)
            return false;
        for (const char *s = suffixes; s <= suffix; s++)
            value *= 1000;
    }
    if (end != text + len || value < RATE_MIN_BYTES_PER_S || value > RATE_MAX_BYTES_PER_S)
        return false;
    *bytes_per_s = (uint64_t)llround(value);
    return true;
}

static bool
parse_seed(const char *text, size_t len, uint64_t *seed)
{
    char *end;

    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    *seed = strtoull(text, &end, 0);
    return errno == 0 && end == text + len;
}

static bool
is_name(const char *word, size_t name_len, const char *name)
{
    return strlen(name) == name_len && memcmp(name, word, name_len) == 0;
}

static int
parse_word(const char *word, size_t len, struct impair_config *cfg, char *err, size_t err_len)
{
    const struct {
        const char *name;
        uint32_t *ppm;
    } shares[] = { { "loss", &cfg->loss_ppm },
                   { "reorder", &cfg->reorder_ppm },
                   { "dup", &cfg->dup_ppm },
                   { "corrupt", &cfg->corrupt_ppm } };
    const struct {
        const char *name;
        uint32_t *us;
    } times[] = { { "delay", &cfg->delay_us }, { "queue", &cfg->queue_us } };
    const char *colon = memchr(word, ':', len);
    size_t name_len = colon != NULL ? (size_t)(colon - word) : len;
    const char *value = colon != NULL ? colon + 1 : word + len;
    size_t value_len = (size_t)(word + len - value);

    for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++)
        if (is_name(word, name_len, shares[i].name))
            return parse_percent(value, value_len, shares[i].ppm)
                       ? 0
                       : fail(err, err_len, word, (int)len, "a share is 0% to 100%");
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++)
        if (is_name(word, name_len, times[i].name))
            return parse_time(value, value_len, times[i].us)
                       ? 0
                       : fail(err, err_len, word, (int)len, "a time is a number and us, ms or s, up to 10s");
    if (is_name(word, name_len, "rate"))
        return parse_rate(value, value_len, &cfg->bytes_per_s)
                   ? 0
                   : fail(err, err_len, word, (int)len, "a rate is bytes per second, 1k to 100G");
    if (is_name(word, name_len, "seed"))
        return parse_seed(value, value_len, &cfg->seed)
                   ? 0
                   : fail(err, err_len, word, (int)len, "a seed is a whole number");
    return fail(err, err_len, word, (int)len,
                "unknown; allowed are loss:P%, delay:T, reorder:P%, dup:P%, corrupt:P%, rate:R, queue:T, seed:N");
}

int
impair_parse(const char *text, struct impair_config *cfg, char *err, size_t err_len)
{
    memset(cfg, 0, sizeof(*cfg));
    cfg->seed = 1;
    cfg->queue_us = QUEUE_UNSET;
    while (*text != '\0') {
        size_t len = strcspn(text, ",");
        int rc = parse_word(text, len, cfg, err, err_len);

        if (rc != 0)
            return rc;
        text += len;
        if (*text == ',' && *++text == '\0')
            return fail(err, err_len, ",", 1, "nothing follows");
    }
    if (cfg->queue_us != QUEUE_UNSET && cfg->bytes_per_s == 0)
        return fail(err, err_len, "queue", 5, "needs rate:R, the bottleneck whose queue it is");
    if (cfg->queue_us == QUEUE_UNSET)
        cfg->queue_us = QUEUE_DEFAULT_US;
    cfg->enabled = (cfg->loss_ppm | cfg->reorder_ppm | cfg->dup_ppm | cfg->corrupt_ppm | cfg->delay_us) != 0 ||
                   cfg->bytes_per_s != 0;
    return 0;
}

struct impair *
impair_create(const struct impair_config *cfg, uint32_t stream, struct pktpool *pool)
{
    /* Frames that wait hold buffers: a quarter of the pool for each direction at most. */
    uint32_t limit = RTE_MIN(QUEUE_MAX, RTE_MAX(pool->count / 4, 1u));
    uint32_t capacity = rte_align32prevpow2(limit);
    struct impair *im = calloc(1, sizeof(*im) + capacity * sizeof(im->queue[0]));

    if (im == NULL)
        return NULL;
    im->cfg = *cfg;
    im->pool = pool;
    im->capacity = capacity;
    rng_init(&im->rng, cfg->seed, stream);
    return im;
}

void
impair_destroy(struct impair *im)
{
    if (im == NULL)
        return;
    for (unsigned i = 0; i < im->held_count; i++)
        rte_pktmbuf_free(im->held[i].m);
    for (; im->head != im->tail; im->head++)
        rte_pktmbuf_free(im->queue[im->head & (im->capacity - 1)].m);
    free(im);
}

static void
push(struct impair *im, struct rte_mbuf *m, uint64_t due_us)
{
    if (im->tail - im->head == im->capacity) {
        counter_inc(im->ctr, CTR_IMPAIR_DROP_FULL);
        rte_pktmbuf_free(m);
        return;
    }
    im->queue[im->tail++ & (im->capacity - 1)] = (struct waiting){ .m = m, .due_us = due_us };
}

static void
release_held(struct impair *im, unsigned i, uint64_t due_us)
{
    push(im, im->held[i].m, due_us);
    im->held[i] = im->held[--im->held_count];
}

/* A frame has been queued: those that wait to be overtaken are one nearer to their turn. */
static void
count_overtaker(struct impair *im, uint64_t due_us)
{
    unsigned i = 0;

    while (i < im->held_count) {
        if (--im->held[i].overtakers == 0)
            release_held(im, i, due_us);
        else
            i++;
    }
}

/*
 * Flip one bit of what a checksum covers. Not in the Ethernet header nor in ARP: a wire's CRC guards those, and
 * nothing above would ever notice. The frame is copied first, since its bytes may be shared. NULL if there is no
 * buffer.
 */
static struct rte_mbuf *
corrupt(struct impair *im, const struct rte_mbuf *m)
{
    const struct rte_ether_hdr *eth = rte_pktmbuf_mtod(m, const struct rte_ether_hdr *);
    struct rte_mbuf *copy;
    struct rte_mbuf *seg;

    if (m->data_len < sizeof(*eth) || m->pkt_len == sizeof(*eth) ||
        eth->ether_type == rte_cpu_to_be_16(RTE_ETHER_TYPE_ARP))
        return NULL;
    copy = pktpool_copy(im->pool, m);
    if (copy == NULL)
        return NULL;
    uint32_t bit = rng_below(&im->rng, (copy->pkt_len - (uint32_t)sizeof(*eth)) * 8);
    uint32_t offset = (uint32_t)sizeof(*eth) + bit / 8;

    for (seg = copy; offset >= seg->data_len; seg = seg->next)
        offset -= seg->data_len;
    *rte_pktmbuf_mtod_offset(seg, uint8_t *, offset) ^= (uint8_t)(1u << (bit % 8));
    /* Whatever a device found out about the checksums was about the frame as it was. */
    copy->ol_flags &= ~(RTE_MBUF_F_RX_IP_CKSUM_MASK | RTE_MBUF_F_RX_L4_CKSUM_MASK);
    counter_inc(im->ctr, CTR_IMPAIR_CORRUPT);
    return copy;
}

/* When a frame has left the bottleneck; false if it would wait there for too long. */
static bool
pass_bottleneck(struct impair *im, const struct rte_mbuf *m, uint64_t now_us, uint64_t *left_us)
{
    uint64_t now_ns = now_us * 1000;

    *left_us = now_us;
    if (im->cfg.bytes_per_s == 0)
        return true;
    if (im->line_free_ns < now_ns)
        im->line_free_ns = now_ns;
    if (im->line_free_ns - now_ns > im->cfg.queue_us * UINT64_C(1000))
        return false;
    im->line_free_ns += (m->pkt_len + FRAME_OVERHEAD_BYTES) * UINT64_C(1000000000) / im->cfg.bytes_per_s;
    *left_us = im->line_free_ns / 1000;
    return true;
}

static void
put_one(struct impair *im, struct rte_mbuf *m, uint64_t now_us)
{
    uint64_t due_us;

    if (!pass_bottleneck(im, m, now_us, &due_us)) {
        counter_inc(im->ctr, CTR_IMPAIR_DROP_FULL);
        rte_pktmbuf_free(m);
        return;
    }
    due_us += im->cfg.delay_us;
    if (rng_chance_ppm(&im->rng, im->cfg.loss_ppm)) {
        counter_inc(im->ctr, CTR_IMPAIR_DROP_LOSS);
        rte_pktmbuf_free(m);
        return;
    }
    if (rng_chance_ppm(&im->rng, im->cfg.corrupt_ppm)) {
        struct rte_mbuf *bad = corrupt(im, m);

        if (bad != NULL) {
            rte_pktmbuf_free(m);
            m = bad;
        }
    }
    struct rte_mbuf *twin = NULL;

    if (rng_chance_ppm(&im->rng, im->cfg.dup_ppm))
        twin = pktpool_copy(im->pool, m);
    if (rng_chance_ppm(&im->rng, im->cfg.reorder_ppm) && im->held_count < HELD_MAX) {
        counter_inc(im->ctr, CTR_IMPAIR_REORDER);
        im->held[im->held_count++] = (struct held){ .m = m,
                                                    .until_us = due_us + HOLD_MAX_US,
                                                    .overtakers = 1 + rng_below(&im->rng, OVERTAKERS_MAX) };
    } else {
        push(im, m, due_us);
        count_overtaker(im, due_us);
    }
    if (twin != NULL) {
        counter_inc(im->ctr, CTR_IMPAIR_DUP);
        push(im, twin, due_us);
    }
}

void
impair_put(struct impair *im, struct rte_mbuf *const *pkts, uint16_t n, struct counters *ctr, uint64_t now_us)
{
    im->ctr = ctr;
    for (uint16_t i = 0; i < n; i++)
        put_one(im, pkts[i], now_us);
}

uint16_t
impair_get(struct impair *im, struct rte_mbuf **pkts, uint16_t max, uint64_t now_us)
{
    uint16_t n = 0;
    unsigned i = 0;

    while (i < im->held_count) {
        if (im->held[i].until_us <= now_us)
            release_held(im, i, now_us);
        else
            i++;
    }
    while (n < max && im->head != im->tail) {
        const struct waiting *w = &im->queue[im->head & (im->capacity - 1)];

        if (w->due_us > now_us)
            break;
        pkts[n++] = w->m;
        im->head++;
    }
    return n;
}

uint64_t
impair_next_us(const struct impair *im)
{
    uint64_t next_us = UINT64_MAX;

    if (im->head != im->tail)
        next_us = im->queue[im->head & (im->capacity - 1)].due_us;
    for (unsigned i = 0; i < im->held_count; i++)
        if (im->held[i].until_us < next_us)
            next_us = im->held[i].until_us;
    return next_us;
}
