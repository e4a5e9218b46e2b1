/* SPDX-License-Identifier: BSD-3-Clause */
#include "run.h"
#include "counters.h"

#include <inttypes.h>
#include <stdlib.h>

static const char *const perf_names[PERFCTR_COUNT] = { "cycles", "instructions", "l2_misses" };

struct totals {
    uint64_t messages, bytes, connects, errors, cpu_ns;
    double seconds; /**< from the first thread's start to the last one's end */
    struct perfctr_values perf;
    struct hist latency;
    bool has_latency;
};

static void
totals_sum(struct totals *s, const struct run *run)
{
    uint64_t start_ns = UINT64_MAX, end_ns = 0;

    hist_init(&s->latency);
    for (uint32_t i = 0; i < run->o->threads; i++) {
        const struct tally *t = &run->tallies[i];

        s->messages += t->messages;
        s->bytes += t->bytes;
        s->connects += t->connects;
        s->errors += t->errors;
        s->cpu_ns += t->cpu_ns;
        if (i == 0)
            s->perf = t->perf;
        else
            perfctr_add(&s->perf, &t->perf);
        if (t->latency != NULL) {
            hist_merge(&s->latency, t->latency);
            s->has_latency = true;
        }
        if (t->start_ns != 0 && t->start_ns < start_ns)
            start_ns = t->start_ns;
        if (t->end_ns > end_ns)
            end_ns = t->end_ns;
    }
    s->seconds = end_ns > start_ns ? (double)(end_ns - start_ns) / 1e9 : 0;
}

static double
ratio(double a, double b)
{
    return b > 0 ? a / b : 0;
}

static const struct {
    const char *name;
    double share;
} percentiles[] = { { "min", 0 }, { "p50", 0.5 }, { "p90", 0.9 }, { "p99", 0.99 }, { "p999", 0.999 }, { "max", 1 } };

#define NB_PERCENTILES (sizeof(percentiles) / sizeof(percentiles[0]))

static double
percentile_us(const struct totals *s, unsigned i)
{
    return (double)hist_percentile(&s->latency, percentiles[i].share) / 1e3;
}

static void
json_perf(const struct totals *s, FILE *out)
{
    for (unsigned i = 0; i < PERFCTR_COUNT; i++) {
        double v = (double)s->perf.v[i];

        if (s->perf.valid[i])
            fprintf(out, ",\n  \"%s\": {\"total\": %" PRIu64 ", \"per_message\": %.2f, \"per_kb\": %.2f}",
                    perf_names[i], s->perf.v[i], ratio(v, (double)s->messages), ratio(v, (double)s->bytes / 1024));
        else
            fprintf(out, ",\n  \"%s\": null", perf_names[i]);
    }
    fprintf(out, ",\n  \"counted\": \"%s\"", s->perf.user_only ? "user" : "user+kernel");
}

static void
print_json(const struct run *run, const struct totals *s, FILE *out)
{
    const struct options *o = run->o;

    fprintf(out, "{\n  \"role\": \"%s\",\n  \"target\": \"", o->serve ? "serve" : role_names[o->hello.role]);
    for (const char *p = o->target; *p != '\0'; p++)
        fprintf(out, *p == '"' || *p == '\\' ? "\\%c" : "%c", *p);
    fprintf(out, "\",\n  \"threads\": %u", o->threads);
    if (!o->serve)
        fprintf(out,
                ",\n  \"connections\": %u,\n  \"size_bytes\": %u,\n  \"depth\": %u,\n  \"rate\": %.0f,\n  \"setup_s\": "
                "%.6f",
                o->connections, o->hello.size_bytes, o->depth, o->rate, (double)run->setup_ns / 1e9);
    fprintf(out, ",\n  \"seconds\": %.6f,\n  \"messages\": %" PRIu64 ",\n  \"bytes\": %" PRIu64, s->seconds,
            s->messages, s->bytes);
    fprintf(out, ",\n  \"connects\": %" PRIu64 ",\n  \"errors\": %" PRIu64, s->connects, s->errors);
    fprintf(out, ",\n  \"messages_per_s\": %.1f,\n  \"bytes_per_s\": %.1f", ratio((double)s->messages, s->seconds),
            ratio((double)s->bytes, s->seconds));
    if (s->has_latency && s->latency.count > 0) {
        fprintf(out, ",\n  \"latency_us\": {");
        for (unsigned i = 0; i < NB_PERCENTILES; i++)
            fprintf(out, "%s\"%s\": %.3f", i > 0 ? ", " : "", percentiles[i].name, percentile_us(s, i));
        fprintf(out, "}");
    } else {
        fprintf(out, ",\n  \"latency_us\": null");
    }
    json_perf(s, out);
    fprintf(out, ",\n  \"cpu_s\": [");
    for (uint32_t i = 0; i < o->threads; i++)
        fprintf(out, "%s%.6f", i > 0 ? ", " : "", (double)run->tallies[i].cpu_ns / 1e9);
    fprintf(out, "],\n  \"stack\": ");
    if (counters_print(out, true) != 0)
        fprintf(out, "null");
    fprintf(out, "\n}\n");
}

static void
print_table(const struct run *run, const struct totals *s, FILE *out)
{
    const struct options *o = run->o;

    fprintf(out, "%-14s %s %s", "role", o->serve ? "serve" : role_names[o->hello.role], o->target);
    if (!o->serve)
        fprintf(out, ", %u connections, %u bytes, depth %u", o->connections, o->hello.size_bytes, o->depth);
    fprintf(out, ", %u threads, %.3f s\n", o->threads, s->seconds);
    fprintf(out, "%-14s %" PRIu64 ", %.0f/s\n", "messages", s->messages, ratio((double)s->messages, s->seconds));
    fprintf(out, "%-14s %" PRIu64 ", %.3f Mb/s\n", "bytes", s->bytes, ratio((double)s->bytes * 8, s->seconds) / 1e6);
    fprintf(out, "%-14s %" PRIu64 " made, %" PRIu64 " failed\n", "connections", s->connects, s->errors);
    if (s->has_latency && s->latency.count > 0) {
        fprintf(out, "%-14s", "latency us");
        for (unsigned i = 0; i < NB_PERCENTILES; i++)
            fprintf(out, " %s %.2f", percentiles[i].name, percentile_us(s, i));
        fprintf(out, "\n");
    }
    for (unsigned i = 0; i < PERFCTR_COUNT; i++) {
        if (s->perf.valid[i])
            fprintf(out, "%-14s %.1f a message, %.1f a KB%s\n", perf_names[i],
                    ratio((double)s->perf.v[i], (double)s->messages),
                    ratio((double)s->perf.v[i], (double)s->bytes / 1024), s->perf.user_only ? ", user only" : "");
        else
            fprintf(out, "%-14s not to be had here\n", perf_names[i]);
    }
    fprintf(out, "%-14s", "cpu");
    for (uint32_t i = 0; i < o->threads; i++)
        fprintf(out, " %.3f s", (double)run->tallies[i].cpu_ns / 1e9);
    fprintf(out, "\n");
    counters_print(out, false);
}

int
report_print(const struct run *run, FILE *out)
{
    struct totals *s = calloc(1, sizeof(*s));
    int status;

    if (s == NULL) {
        fprintf(stderr, "isobench: out of memory\n");
        return 1;
    }
    totals_sum(s, run);
    if (run->o->json)
        print_json(run, s, out);
    else
        print_table(run, s, out);
    status = s->errors > 0 && !run->o->serve ? 1 : 0;
    free(s);
    return status;
}
