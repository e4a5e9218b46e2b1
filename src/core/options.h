/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef CORE_OPTIONS_H
#define CORE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/**
 * @file
 * One table of options feeds the command line, the configuration file, --help, the sample file and the docs.
 *
 * A row names a field of the caller's configuration struct by its offset; the type says what C type that field has.
 * A value comes from the default, the file or the command line; the later of these wins, in whichever order they are
 * parsed (the file's name is itself an option). All functions: control path, one thread. Every err is one line
 * that names the option, the value and what is allowed.
 */

enum option_type {
    OPTION_BOOL, /**< bool; on|off (yes|no, true|false, 1|0 too); on the command line `--x` and `--no-x` as well */
    OPTION_U32, /**< uint32_t within [min, max] */
    OPTION_SIZE, /**< uint64_t bytes within [min, max]; suffixes k, M, G are powers of 1024 */
    OPTION_STRING, /**< char *, owned by the options; NULL if there is no default */
    OPTION_ENUM, /**< int: index in choices */
    OPTION_LIST, /**< struct option_list; each use adds an item */
};

struct option_list {
    char **items;
    unsigned count;
};

enum option_flags {
    OPTION_HIDDEN = 1, /**< absent from the help and docs */
    OPTION_COMMAND_LINE_ONLY = 2, /**< absent from the configuration file */
};

struct option_row {
    const char *name; /**< without dashes */
    const char *default_text; /**< as a user would write it; NULL: false, 0, NULL or empty */
    const char *metavar; /**< what stands for the value in the help, e.g. "ADDR/LEN"; NULL: by type */
    const char *unit; /**< NULL if none */
    const char *help; /**< one sentence */
    const char *section; /**< heading that the row stands under; rows of one section are adjacent */
    const char *const *choices; /**< OPTION_ENUM: NULL-terminated */
    /** Further check of a text value: 0, or -errno with the reason in err; NULL if none. */
    int (*check)(const char *text, char *err, size_t err_len);
    uint64_t min, max; /**< OPTION_U32 and OPTION_SIZE; max = 0: the type's own */
    size_t offset; /**< of the field */
    enum option_type type;
    unsigned flags;
    char short_flag; /**< 0 if none */
};

enum option_source {
    OPTION_FROM_DEFAULT,
    OPTION_FROM_FILE,
    OPTION_FROM_COMMAND_LINE,
};

struct options {
    const struct option_row *rows;
    unsigned count;
    void *target; /**< the caller's configuration struct */
    uint8_t *source; /**< enum option_source of each row's value */
};

/**
 * Give every field its default. target: zeroed by the caller; it and rows outlive o. Returns 0, or -ENOMEM, or
 * -EINVAL if a default is not a value of its own row (err says which). Release with options_fini.
 */
int options_init(struct options *o, const struct option_row *rows, unsigned count, void *target, char *err,
                 size_t err_len);

/** Free the strings and lists of the target. */
void options_fini(struct options *o);

/**
 * Parse argv[1..]: --name value, --name=value, -x value, -xvalue; `--` ends the options, as does the first word that
 * is no option. Returns the index of the first word that was not parsed, or -EINVAL (err).
 */
int options_parse_argv(struct options *o, int argc, char **argv, char *err, size_t err_len);

/**
 * Parse an INI file: one section [isosock] of `name = value` lines, `#` starts a comment. Returns 0, -EINVAL for a
 * bad line, -ENOENT or another -errno if the file cannot be read.
 */
int options_parse_file(struct options *o, const char *path, char *err, size_t err_len);

/** Set one option from text. 0, or -EINVAL. A value of a higher source stays (and 0 is returned). */
int options_set(struct options *o, const char *name, const char *text, enum option_source source, char *err,
                size_t err_len);

/** Where the value of an option that exists comes from. */
enum option_source options_source(const struct options *o, const char *name);

/** The help's option list, grouped by section. */
void options_print_help(const struct options *o, FILE *out);

/** A configuration file that holds every option with its default, commented out. */
void options_print_sample(const struct options *o, FILE *out);

/** A markdown table for each section. */
void options_print_markdown(const struct options *o, FILE *out);

/** The values in force and where each came from, one line each: `name = value  # source`. */
void options_print_values(const struct options *o, FILE *out);

/**
 * Knob lists: `isostack,queues=percpu,aggregate=on` or `0,impair=loss:1%,delay:10ms`. The first word is the head.
 * Copies the head (truncated to head_len) and returns the rest, "" if there is none.
 */
const char *knobs_split_head(const char *text, char *head, size_t head_len);

/**
 * Parse `name=value,...` into the options o made by options_init from a table of knobs. A piece without '=' that
 * holds a ':' goes with the value before it (impair's own text has commas); one without either is a bool knob that is
 * turned on. what: whose knobs they are, for err (e.g. "--mode isostack"). Returns 0 or -EINVAL.
 */
int knobs_parse(struct options *o, const char *text, const char *what, char *err, size_t err_len);

#endif /* CORE_OPTIONS_H */
