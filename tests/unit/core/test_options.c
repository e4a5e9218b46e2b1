/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/options.h"

struct config {
    char *address;
    char *file;
    uint32_t count;
    uint64_t size_bytes;
    int idle;
    bool interactive;
    bool fast;
    struct option_list ports;
};

static int
check_address(const char *text, char *err, size_t err_len)
{
    if (strchr(text, '/') != NULL)
        return 0;
    snprintf(err, err_len, "ADDR/LEN, e.g. 10.66.0.2/24");
    return -EINVAL;
}

static const char *const idle_choices[] = { "poll", "adaptive", "sleep", NULL };

static const struct option_row rows[] = {
    { .name = "address",
      .type = OPTION_STRING,
      .offset = offsetof(struct config, address),
      .check = check_address,
      .metavar = "ADDR/LEN",
      .section = "Network",
      .help = "The stack's address." },
    { .name = "port",
      .type = OPTION_LIST,
      .offset = offsetof(struct config, ports),
      .metavar = "N[,KNOB...]",
      .section = "Network",
      .help = "A port to use." },
    { .name = "config",
      .short_flag = 'c',
      .type = OPTION_STRING,
      .offset = offsetof(struct config, file),
      .flags = OPTION_COMMAND_LINE_ONLY,
      .metavar = "FILE",
      .section = "Running",
      .help = "Read options from a file." },
    { .name = "count",
      .short_flag = 'n',
      .type = OPTION_U32,
      .offset = offsetof(struct config, count),
      .min = 1,
      .max = 64,
      .default_text = "4",
      .unit = "things",
      .section = "Running",
      .help = "How many." },
    { .name = "size",
      .type = OPTION_SIZE,
      .offset = offsetof(struct config, size_bytes),
      .default_text = "64k",
      .section = "Running",
      .help = "How large." },
    { .name = "idle",
      .type = OPTION_ENUM,
      .offset = offsetof(struct config, idle),
      .choices = idle_choices,
      .default_text = "adaptive",
      .section = "Running",
      .help = "What to do when nothing happens." },
    { .name = "interactive",
      .short_flag = 'i',
      .type = OPTION_BOOL,
      .offset = offsetof(struct config, interactive),
      .section = "Running",
      .help = "Show a prompt." },
    { .name = "fast",
      .short_flag = 'f',
      .type = OPTION_BOOL,
      .offset = offsetof(struct config, fast),
      .default_text = "on",
      .section = "Running",
      .flags = OPTION_HIDDEN,
      .help = "Hidden." },
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

struct fixture {
    struct options o;
    struct config cfg;
    char err[256];
    char path[64];
};

static int
set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    *state = f;
    return options_init(&f->o, rows, ROWS, &f->cfg, f->err, sizeof(f->err));
}

static int
tear_down(void **state)
{
    struct fixture *f = *state;

    options_fini(&f->o);
    if (f->path[0] != '\0')
        unlink(f->path);
    free(f);
    return 0;
}

/* Parse the words of one line, separated by single blanks. */
static int
parse(struct fixture *f, const char *line)
{
    char text[256] = "program ";
    char *argv[32];
    int argc = 0;

    strcat(text, line);
    for (char *w = strtok(text, " "); w != NULL; w = strtok(NULL, " "))
        argv[argc++] = w;
    argv[argc] = NULL;
    return options_parse_argv(&f->o, argc, argv, f->err, sizeof(f->err));
}

static int
parse_bytes(struct fixture *f, const char *text, size_t len)
{
    strcpy(f->path, "/tmp/isosock-test-options-XXXXXX");
    int fd = mkstemp(f->path);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, len), len);
    close(fd);
    return options_parse_file(&f->o, f->path, f->err, sizeof(f->err));
}

static int
parse_file(struct fixture *f, const char *text)
{
    return parse_bytes(f, text, strlen(text));
}

static void
test_defaults(void **state)
{
    const struct fixture *f = *state;

    assert_null(f->cfg.address);
    assert_int_equal(f->cfg.count, 4);
    assert_int_equal(f->cfg.size_bytes, 65536);
    assert_int_equal(f->cfg.idle, 1);
    assert_false(f->cfg.interactive);
    assert_true(f->cfg.fast);
    assert_int_equal(f->cfg.ports.count, 0);
}

static void
test_every_spelling(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(parse(f, "--address 10.0.0.1/8 -n7 --size=2M --idle sleep -if --port 0 --port=1,impair=loss:1%"),
                     11);
    assert_string_equal(f->cfg.address, "10.0.0.1/8");
    assert_int_equal(f->cfg.count, 7);
    assert_int_equal(f->cfg.size_bytes, 2 << 20);
    assert_int_equal(f->cfg.idle, 2);
    assert_true(f->cfg.interactive);
    assert_int_equal(f->cfg.ports.count, 2);
    assert_string_equal(f->cfg.ports.items[1], "1,impair=loss:1%");
    assert_int_equal(parse(f, "--no-fast -n 0x10 --interactive=off --address 1.2.3.4/5"), 7);
    assert_false(f->cfg.fast);
    assert_false(f->cfg.interactive);
    assert_int_equal(f->cfg.count, 16);
    assert_string_equal(f->cfg.address, "1.2.3.4/5");
}

static void
test_options_end(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(parse(f, "-i -- --bogus"), 3);
    assert_int_equal(parse(f, "-i nginx --bogus"), 2);
    assert_int_equal(parse(f, "- -i"), 1);
}

static void
test_errors_name_option_value_and_what_is_allowed(void **state)
{
    static const struct {
        const char *line, *err;
    } cases[] = {
        { "--bogus", "--bogus: no such option, --help lists them" },
        { "--bogus=1", "--bogus: no such option, --help lists them" },
        { "--no-count", "--no-count: no such option, --help lists them" },
        { "-x", "-x: no such option, --help lists them" },
        { "--count", "--count: a value must follow: a whole number from 1 to 64 things" },
        { "--count 0", "count: '0' is not allowed: a whole number from 1 to 64 things" },
        { "--count 65", "count: '65' is not allowed: a whole number from 1 to 64 things" },
        { "--count -1", "count: '-1' is not allowed: a whole number from 1 to 64 things" },
        { "--count 4k", "count: '4k' is not allowed: a whole number from 1 to 64 things" },
        { "--count=", "count: '' is not allowed: a whole number from 1 to 64 things" },
        { "--idle snooze", "idle: 'snooze' is not allowed: one of poll, adaptive, sleep" },
        { "--interactive=maybe", "interactive: 'maybe' is not allowed: on or off" },
        { "--address 10.0.0.1", "address: '10.0.0.1' is not allowed: ADDR/LEN, e.g. 10.66.0.2/24" },
        { "--size 99999999999G",
          "size: '99999999999G' is not allowed: a whole number from 0 to 18446744073709551615, k, M or G may follow" },
    };

    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(parse(f, cases[i].line), -EINVAL);
        assert_string_equal(f->err, cases[i].err);
    }
    assert_int_equal(f->cfg.count, 4); /* a refused value changes nothing */
}

static void
test_file(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(parse_file(f, "# a comment\n[isosock]\naddress = 10.0.0.1/8 # another\ncount=9\n\nport = 0\n"
                                   "port = 1,impair=loss:1%,delay:10ms\ninteractive = on\n"),
                     0);
    assert_string_equal(f->cfg.address, "10.0.0.1/8");
    assert_int_equal(f->cfg.count, 9);
    assert_int_equal(f->cfg.ports.count, 2);
    assert_string_equal(f->cfg.ports.items[1], "1,impair=loss:1%,delay:10ms");
    assert_true(f->cfg.interactive);
}

static void
test_file_errors(void **state)
{
    static const struct {
        const char *text, *err;
    } cases[] = {
        { "[isosock]\nbogus = 1\n", "'bogus = 1': no such option, --help lists them" },
        { "[isosock]\nconfig = x\n", "'config = x': allowed on the command line only" },
        { "[isosock]\ncount = 99\n", "count: '99' is not allowed: a whole number from 1 to 64 things" },
        { "[other]\ncount = 9\n", "'[other]': no such section, allowed: [isosock]" },
        { "[isosock\n", "line 1 - no terminating ']' character found" },
        { "[isosock]\n\n nothing here \n", "line 3: ' nothing here ': neither '[section]' nor 'name = value'" },
        { "[isosock]\ncount = 9\nidle = poll\ncount = 9\n", "'count = 9': given twice" },
        { "# first\ncount = 9\n", "line 2: 'count = 9': [isosock] must come first" },
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(parse_file(f, cases[i].text), -EINVAL);
        assert_memory_equal(f->err, f->path, strlen(f->path)); /* the line names the file ... */
        assert_null(strchr(f->err, '\n'));
        assert_true(strlen(f->err) > strlen(f->path) + 2);
        assert_string_equal(f->err + strlen(f->path) + 2, cases[i].err); /* ... and the reason */
        unlink(f->path);
    }
    assert_int_equal(options_parse_file(&f->o, "/nonexistent/file", f->err, sizeof(f->err)), -ENOENT);
    assert_string_equal(f->err, "/nonexistent/file: No such file or directory");
    assert_int_equal(options_parse_file(&f->o, "/", f->err, sizeof(f->err)), -EISDIR);
    assert_string_equal(f->err, "/: Is a directory");
    assert_int_equal(parse_bytes(f, "[isosock]\ncount = 9\0 9\n", 24), -EINVAL);
    assert_non_null(strstr(f->err, "line 2: 'count = 9': a byte of zero"));
    unlink(f->path);
}

/* The file's name comes from the command line, so that is parsed first; it wins all the same. */
static void
test_precedence(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(parse(f, "--count 5 --port 7"), 5);
    assert_int_equal(parse_file(f, "[isosock]\ncount = 9\nidle = poll\nport = 1\n"), 0);
    assert_int_equal(f->cfg.count, 5);
    assert_int_equal(f->cfg.idle, 0);
    assert_int_equal(f->cfg.ports.count, 1);
    assert_string_equal(f->cfg.ports.items[0], "7");
    assert_int_equal(parse(f, "--idle=sleep"), 2);
    assert_int_equal(f->cfg.idle, 2);
}

static void
test_bad_default_is_found(void **state)
{
    static const struct option_row bad[] = {
        { .name = "n", .type = OPTION_U32, .default_text = "9", .max = 8, .help = "x" }
    };
    struct options o;
    struct config cfg = { 0 };
    char err[256];

    (void)state;
    assert_int_equal(options_init(&o, bad, 1, &cfg, err, sizeof(err)), -EINVAL);
    assert_string_equal(err, "n: '9' is not allowed: a whole number from 0 to 8");
}

static char *
printed(const struct options *o, void (*print)(const struct options *, FILE *))
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    print(o, out);
    fclose(out);
    return text;
}

/* The printed sample, with all its comments opened, is a file that the parser accepts. */
static void
test_sample_file_parses(void **state)
{
    struct fixture *f = *state;
    char *text = printed(&f->o, options_print_sample);

    assert_int_equal(parse_file(f, text), 0);
    assert_non_null(strstr(text, "\n#count = 4\n"));
    assert_null(strstr(text, "config")); /* belongs on the command line */
    assert_null(strstr(text, "fast")); /* hidden */
    for (char *c = text; *c != '\0'; c++)
        if (c[0] == '#' && c[1] >= 'a' && c[1] <= 'z')
            c[0] = ' ';
    unlink(f->path);
    assert_int_equal(parse_file(f, text), 0);
    assert_string_equal(f->cfg.address, "ADDR/LEN");
    free(text);
}

static void
test_printing(void **state)
{
    struct fixture *f = *state;
    char *help = printed(&f->o, options_print_help);
    char *markdown = printed(&f->o, options_print_markdown);

    assert_non_null(strstr(help, "Network:\n"));
    assert_non_null(strstr(help, "  -n, --count N                 How many. (1 to 64 things, default 4)\n"));
    assert_non_null(strstr(help, "      --idle poll|adaptive|sleep\n"));
    assert_null(strstr(help, "fast"));
    assert_non_null(strstr(markdown, "| `-n`, `--count N` | How many. (1 to 64 things, default 4) |\n"));
    assert_non_null(strstr(markdown, "`--idle poll\\|adaptive\\|sleep`"));
    free(help);
    free(markdown);
    assert_true(parse(f, "--count 5 --port 0 --port 1") > 0);
    char *values = printed(&f->o, options_print_values);

    assert_non_null(strstr(values, "count = 5  # command line\n"));
    assert_non_null(strstr(values, "idle = adaptive  # default\n"));
    assert_non_null(strstr(values, "port = 0 1  # command line\n"));
    free(values);
}

struct knobs {
    char *impair;
    int queues;
    bool aggregate;
    uint32_t instances;
};

static const char *const queue_choices[] = { "percpu", "perthread", NULL };
static const struct option_row knob_rows[] = {
    { .name = "queues",
      .type = OPTION_ENUM,
      .offset = offsetof(struct knobs, queues),
      .choices = queue_choices,
      .default_text = "percpu",
      .help = "q" },
    { .name = "aggregate", .type = OPTION_BOOL, .offset = offsetof(struct knobs, aggregate), .help = "a" },
    { .name = "impair", .type = OPTION_STRING, .offset = offsetof(struct knobs, impair), .help = "i" },
    { .name = "instances",
      .type = OPTION_U32,
      .offset = offsetof(struct knobs, instances),
      .min = 1,
      .default_text = "1",
      .help = "n" },
};

static int
parse_knobs(const char *text, struct knobs *k, struct options *o, char *err, size_t err_len)
{
    memset(k, 0, sizeof(*k));
    assert_int_equal(options_init(o, knob_rows, sizeof(knob_rows) / sizeof(knob_rows[0]), k, err, err_len), 0);
    return knobs_parse(o, text, "--mode isostack", err, err_len);
}

static void
test_knobs(void **state)
{
    struct options o;
    struct knobs k;
    char err[256], head[16];

    (void)state;
    const char *rest = knobs_split_head("isostack,queues=perthread,aggregate,instances=2", head, sizeof(head));

    assert_string_equal(head, "isostack");
    assert_int_equal(parse_knobs(rest, &k, &o, err, sizeof(err)), 0);
    assert_int_equal(k.queues, 1);
    assert_true(k.aggregate);
    assert_int_equal(k.instances, 2);
    options_fini(&o);

    rest = knobs_split_head("0,impair=loss:1%,delay:10ms,seed:7,instances=3", head, sizeof(head));
    assert_string_equal(head, "0");
    assert_int_equal(parse_knobs(rest, &k, &o, err, sizeof(err)), 0);
    assert_string_equal(k.impair, "loss:1%,delay:10ms,seed:7");
    assert_int_equal(k.instances, 3);
    options_fini(&o);

    rest = knobs_split_head("up", head, sizeof(head));
    assert_string_equal(head, "up");
    assert_string_equal(rest, "");
    assert_int_equal(parse_knobs(rest, &k, &o, err, sizeof(err)), 0);
    options_fini(&o);
}

static void
test_knob_errors(void **state)
{
    static const struct {
        const char *text, *err;
    } cases[] = {
        { "quues=x", "--mode isostack: 'quues' is no knob of it, allowed: queues, aggregate, impair, instances" },
        { "loss:1%", "--mode isostack: 'loss:1%' is no knob of it, allowed: queues, aggregate, impair, instances" },
        { "queues=x", "--mode isostack: queues: 'x' is not allowed: one of percpu, perthread" },
        { "instances", "--mode isostack: 'instances' needs a value: a whole number from 1 to 4294967295" },
        { "aggregate,", "--mode isostack: nothing follows the last comma" },
        { ",", "--mode isostack: nothing follows the last comma" },
        { "instances=2,aggregate,instances=3", "--mode isostack: 'instances' is given twice" },
        { ",aggregate", "--mode isostack: '' is no knob of it, allowed: queues, aggregate, impair, instances" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct options o;
        struct knobs k;
        char err[256];

        assert_int_equal(parse_knobs(cases[i].text, &k, &o, err, sizeof(err)), -EINVAL);
        assert_string_equal(err, cases[i].err);
        options_fini(&o);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_defaults, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_every_spelling, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_options_end, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_errors_name_option_value_and_what_is_allowed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_file_errors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_precedence, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_default_is_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_sample_file_parses, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_printing, set_up, tear_down),
        cmocka_unit_test(test_knobs),
        cmocka_unit_test(test_knob_errors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
