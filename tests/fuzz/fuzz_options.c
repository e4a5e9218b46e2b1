/* SPDX-License-Identifier: BSD-3-Clause */
#include "input.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <rte_log.h>

#include "config.h"
#include "core/impair.h"

/**
 * @file
 * What a user writes: the configuration file, the command line, knobs and the text of an impairment. The first byte says which. Whatever is
 * refused comes with one line of reason; whatever is taken is within its bounds, and its printed form is taken again.
 */

#define WORDS_MAX 32
#define TEXT_MAX 16384u
#define PPM 1000000u

/* A reason is one line that says something. */
static void
check_reason(int rc, const char *err)
{
    FUZZ_CHECK(rc < 0);
    FUZZ_CHECK(err[0] != '\0');
}

static void
check_config(struct config *cfg)
{
    char err[512] = "";
    struct tcp_params p;
    int rc = config_check(cfg, err, sizeof(err));

    if (rc != 0) {
        check_reason(rc, err);
        return;
    }
    FUZZ_CHECK(cfg->ip.prefix_len <= 32 && cfg->mode_ops != NULL && cfg->mode_knobs != NULL);
    FUZZ_CHECK(cfg->control != NULL && cfg->port_min <= cfg->port_max && cfg->port_max <= UINT16_MAX);
    FUZZ_CHECK(cfg->mtu_bytes <= UINT16_MAX);
    config_tcp_params(cfg, &p);
    FUZZ_CHECK(tcp_domain_bytes(&p) > 0);
}

static void
fuzz_words(char **words, int n)
{
    struct config cfg;
    struct options o;
    char err[512] = "";
    int rc = config_load(&cfg, &o, n, words, err, sizeof(err));
    FILE *out;

    if (rc != 0) {
        check_reason(rc, err);
        return;
    }
    out = fopen("/dev/null", "w");
    FUZZ_CHECK(out != NULL);
    options_print_values(&o, out);
    fclose(out);
    check_config(&cfg);
    options_fini(&o);
}

static void
fuzz_file(const char *text, size_t len)
{
    char path[64];
    char *words[] = { (char[]){ "fuzz" }, (char[]){ "--config" }, path };
    int fd = memfd_create("fuzz-config", MFD_CLOEXEC);

    FUZZ_CHECK(fd >= 0 && write(fd, text, len) == (ssize_t)len);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    fuzz_words(words, 3);
    close(fd);
}

/* One word a line. Files that the input names are not its business. */
static void
fuzz_command_line(char *text)
{
    char *words[WORDS_MAX + 1] = { (char[]){ "fuzz" } };
    char *rest = text;
    int n = 1;

    while (n < WORDS_MAX && rest != NULL)
        words[n++] = strsep(&rest, "\n");
    for (int i = 1; i < n; i++)
        if (strncmp(words[i], "--config", 8) == 0)
            return;
    fuzz_words(words, n);
}

static void
fuzz_impair(const char *text)
{
    struct impair_config cfg;
    char err[256] = "";
    int rc = impair_parse(text, &cfg, err, sizeof(err));

    if (rc != 0) {
        check_reason(rc, err);
        return;
    }
    FUZZ_CHECK(cfg.loss_ppm <= PPM && cfg.reorder_ppm <= PPM && cfg.dup_ppm <= PPM && cfg.corrupt_ppm <= PPM);
}

struct knobs {
    char *impair;
    uint64_t bytes;
    uint32_t number;
    int choice;
    bool on;
};

static void
fuzz_knobs(const char *text)
{
    static const char *const choices[] = { "percpu", "perthread", NULL };
    static const struct option_row rows[] = {
        { .name = "impair", .type = OPTION_STRING, .offset = offsetof(struct knobs, impair) },
        { .name = "bytes", .type = OPTION_SIZE, .max = 1 << 20, .offset = offsetof(struct knobs, bytes) },
        { .name = "number",
          .type = OPTION_U32,
          .min = 1,
          .max = 9,
          .default_text = "5",
          .offset = offsetof(struct knobs, number) },
        { .name = "queues",
          .type = OPTION_ENUM,
          .choices = choices,
          .default_text = "percpu",
          .offset = offsetof(struct knobs, choice) },
        { .name = "on", .type = OPTION_BOOL, .offset = offsetof(struct knobs, on) },
    };
    struct knobs k = { 0 };
    struct options o;
    char head[16], err[512] = "";
    const char *rest = knobs_split_head(text, head, sizeof(head));
    int rc;

    FUZZ_CHECK(strlen(head) < sizeof(head));
    FUZZ_CHECK(options_init(&o, rows, sizeof(rows) / sizeof(rows[0]), &k, err, sizeof(err)) == 0);
    rc = knobs_parse(&o, rest, "fuzz", err, sizeof(err));
    if (rc != 0)
        check_reason(rc, err);
    FUZZ_CHECK(k.bytes <= 1 << 20 && k.number >= 1 && k.number <= 9 && k.choice >= 0 && k.choice <= 1);
    options_fini(&o);
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    setenv("ISOSOCK_CONTROL", "/run/isosock.sock", 1);
    /* rte_cfgfile logs each line that it refuses. */
    rte_log_set_global_level(RTE_LOG_EMERG);
    return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text;
    size_t len;

    if (size == 0 || size > TEXT_MAX)
        return 0;
    len = size - 1;
    text = malloc(len + 1);
    FUZZ_CHECK(text != NULL);
    memcpy(text, data + 1, len);
    text[len] = '\0';
    switch (data[0] % 4) {
    case 0:
        fuzz_file(text, len);
        break;
    case 1:
        fuzz_command_line(text);
        break;
    case 2:
        fuzz_impair(text);
        break;
    default:
        fuzz_knobs(text);
        break;
    }
    free(text);
    return 0;
}
