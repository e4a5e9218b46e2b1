/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/options.h"

__attribute__((format(printf, 3, 4))) static int
fail(char *err, size_t err_len, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(err, err_len, fmt, ap);
    va_end(ap);
    return -EINVAL;
}

static void *
field(const struct options *o, const struct option_row *row)
{
    return (char *)o->target + row->offset;
}

/* Index of the row of that name (len bytes), o->count if there is none. */
static unsigned
find_row(const struct options *o, const char *name, size_t len)
{
    unsigned i = 0;

    while (i < o->count && (strlen(o->rows[i].name) != len || strncmp(o->rows[i].name, name, len) != 0))
        i++;
    return i;
}

static bool
parse_bool(const char *text, bool *value)
{
    static const char *const words[] = { "off", "on", "no", "yes", "false", "true", "0", "1" };

    for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(text, words[i]) == 0) {
            *value = i % 2 == 1;
            return true;
        }
    }
    return false;
}

/* Digits, and for sizes a suffix; no sign, no blank. */
static bool
parse_number(const char *text, bool is_size, uint64_t *value)
{
    static const char suffixes[] = "kKmMgG";
    char *end;

    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    *value = strtoull(text, &end, 0);
    if (errno != 0 || end == text)
        return false;
    if (is_size && *end != '\0') {
        const char *suffix = strchr(suffixes, *end);

        if (suffix == NULL)
            return false;
        unsigned shift = 10 * (1 + (unsigned)(suffix - suffixes) / 2);

        if (*value > UINT64_MAX >> shift)
            return false;
        *value <<= shift;
        end++;
    }
    return *end == '\0';
}

static uint64_t
row_max(const struct option_row *row)
{
    uint64_t type_max = row->type == OPTION_U32 ? UINT32_MAX : UINT64_MAX;

    return row->max != 0 ? row->max : type_max;
}

/* What a value of this row may be, in words. */
static const char *
allowed_text(const struct option_row *row, char *text, size_t len)
{
    const char *unit = row->unit != NULL ? row->unit : "";
    const char *space = row->unit != NULL ? " " : "";
    size_t n = 0;

    text[0] = '\0';
    switch (row->type) {
    case OPTION_BOOL:
        snprintf(text, len, "on or off");
        break;
    case OPTION_U32:
    case OPTION_SIZE:
        snprintf(text, len, "a whole number from %llu to %llu%s%s%s", (unsigned long long)row->min,
                 (unsigned long long)row_max(row), space, unit,
                 row->type == OPTION_SIZE ? ", k, M or G may follow" : "");
        break;
    case OPTION_ENUM:
        for (const char *const *c = row->choices; *c != NULL && n < len; c++)
            n += (size_t)snprintf(text + n, len - n, "%s%s", n > 0 ? ", " : "one of ", *c);
        break;
    case OPTION_STRING:
    case OPTION_LIST:
        snprintf(text, len, "%s", row->metavar != NULL ? row->metavar : "text");
        break;
    }
    return text;
}

static int
bad_value(const struct option_row *row, const char *text, char *err, size_t err_len)
{
    char allowed[512];

    return fail(err, err_len, "%s: '%s' is not allowed: %s", row->name, text,
                allowed_text(row, allowed, sizeof(allowed)));
}

static void
list_clear(struct option_list *list)
{
    for (unsigned i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
    *list = (struct option_list){ 0 };
}

static int
list_append(struct option_list *list, const char *text)
{
    char **items = realloc(list->items, (list->count + 1) * sizeof(items[0]));

    if (items == NULL)
        return -ENOMEM;
    list->items = items;
    list->items[list->count] = strdup(text);
    if (list->items[list->count] == NULL)
        return -ENOMEM;
    list->count++;
    return 0;
}

static int
store_text(const struct options *o, const struct option_row *row, const char *text, char *err, size_t err_len)
{
    char reason[256];
    char *copy;

    if (row->check != NULL && row->check(text, reason, sizeof(reason)) != 0)
        return fail(err, err_len, "%s: '%s' is not allowed: %s", row->name, text, reason);
    if (row->type == OPTION_LIST)
        return list_append(field(o, row), text);
    copy = strdup(text);
    if (copy == NULL)
        return -ENOMEM;
    free(*(char **)field(o, row));
    *(char **)field(o, row) = copy;
    return 0;
}

static int
store_number(const struct options *o, const struct option_row *row, const char *text, char *err, size_t err_len)
{
    uint64_t value;

    if (!parse_number(text, row->type == OPTION_SIZE, &value) || value < row->min || value > row_max(row))
        return bad_value(row, text, err, err_len);
    if (row->type == OPTION_U32)
        *(uint32_t *)field(o, row) = (uint32_t)value;
    else
        *(uint64_t *)field(o, row) = value;
    return 0;
}

static int
store(const struct options *o, const struct option_row *row, const char *text, char *err, size_t err_len)
{
    switch (row->type) {
    case OPTION_BOOL:
        return parse_bool(text, field(o, row)) ? 0 : bad_value(row, text, err, err_len);
    case OPTION_U32:
    case OPTION_SIZE:
        return store_number(o, row, text, err, err_len);
    case OPTION_ENUM:
        for (int i = 0; row->choices[i] != NULL; i++) {
            if (strcmp(text, row->choices[i]) == 0) {
                *(int *)field(o, row) = i;
                return 0;
            }
        }
        return bad_value(row, text, err, err_len);
    case OPTION_STRING:
    case OPTION_LIST:
        return store_text(o, row, text, err, err_len);
    }
    return -EINVAL;
}

static int
set_row(struct options *o, unsigned i, const char *text, enum option_source source, char *err, size_t err_len)
{
    const struct option_row *row = &o->rows[i];

    if (source < o->source[i])
        return 0;
    if (row->type == OPTION_LIST && source > o->source[i])
        list_clear(field(o, row));
    int rc = store(o, row, text, err, err_len);

    if (rc == -ENOMEM)
        fail(err, err_len, "%s: out of memory", row->name);
    if (rc == 0)
        o->source[i] = (uint8_t)source;
    return rc;
}

int
options_init(struct options *o, const struct option_row *rows, unsigned count, void *target, char *err, size_t err_len)
{
    *o = (struct options){ .rows = rows, .count = count, .target = target };
    o->source = calloc(count > 0 ? count : 1, sizeof(o->source[0]));
    if (o->source == NULL) {
        fail(err, err_len, "options: out of memory");
        return -ENOMEM;
    }
    for (unsigned i = 0; i < count; i++) {
        int rc =
            rows[i].default_text == NULL ? 0 : set_row(o, i, rows[i].default_text, OPTION_FROM_DEFAULT, err, err_len);

        if (rc != 0) {
            options_fini(o);
            return rc;
        }
    }
    return 0;
}

void
options_fini(struct options *o)
{
    for (unsigned i = 0; i < o->count; i++) {
        const struct option_row *row = &o->rows[i];

        if (row->type == OPTION_LIST) {
            list_clear(field(o, row));
        } else if (row->type == OPTION_STRING) {
            free(*(char **)field(o, row));
            *(char **)field(o, row) = NULL;
        }
    }
    free(o->source);
    *o = (struct options){ 0 };
}

int
options_set(struct options *o, const char *name, const char *text, enum option_source source, char *err, size_t err_len)
{
    unsigned i = find_row(o, name, strlen(name));

    if (i == o->count)
        return fail(err, err_len, "%s: no such option", name);
    return set_row(o, i, text, source, err, err_len);
}

enum option_source
options_source(const struct options *o, const char *name)
{
    unsigned i = find_row(o, name, strlen(name));

    return i < o->count ? (enum option_source)o->source[i] : OPTION_FROM_DEFAULT;
}

/* State of a pass over argv. */
struct words {
    int argc;
    char **argv;
    int next;
};

/* The value of a row: what was attached to its word, else the next word. */
static int
take_value(struct options *o, struct words *w, unsigned i, const char *attached, const char *spelled, char *err,
           size_t err_len)
{
    char allowed[512];

    if (attached == NULL) {
        if (w->next >= w->argc)
            return fail(err, err_len, "%s: a value must follow: %s", spelled,
                        allowed_text(&o->rows[i], allowed, sizeof(allowed)));
        attached = w->argv[w->next++];
    }
    return set_row(o, i, attached, OPTION_FROM_COMMAND_LINE, err, err_len);
}

static int
parse_long(struct options *o, struct words *w, const char *word, char *err, size_t err_len)
{
    const char *name = word + 2;
    size_t len = strcspn(name, "=");
    const char *attached = name[len] == '=' ? name + len + 1 : NULL;
    unsigned i = find_row(o, name, len);

    if (i == o->count && strncmp(name, "no-", 3) == 0 && attached == NULL) {
        i = find_row(o, name + 3, len - 3);
        if (i < o->count && o->rows[i].type == OPTION_BOOL)
            return set_row(o, i, "off", OPTION_FROM_COMMAND_LINE, err, err_len);
        i = o->count;
    }
    if (i == o->count)
        return fail(err, err_len, "%.*s: no such option, --help lists them", (int)len + 2, word);
    if (o->rows[i].type == OPTION_BOOL && attached == NULL)
        attached = "on";
    return take_value(o, w, i, attached, word, err, err_len);
}

/* -x, -xvalue, -x value; flags without a value may be joined (-ab). */
static int
parse_short(struct options *o, struct words *w, const char *word, char *err, size_t err_len)
{
    for (const char *c = word + 1; *c != '\0'; c++) {
        char spelled[] = { '-', *c, '\0' };
        unsigned i = 0;
        int rc;

        while (i < o->count && o->rows[i].short_flag != *c)
            i++;
        if (i == o->count)
            return fail(err, err_len, "%s: no such option, --help lists them", spelled);
        if (o->rows[i].type != OPTION_BOOL)
            return take_value(o, w, i, c[1] != '\0' ? c + 1 : NULL, spelled, err, err_len);
        rc = set_row(o, i, "on", OPTION_FROM_COMMAND_LINE, err, err_len);
        if (rc != 0)
            return rc;
    }
    return 0;
}

int
options_parse_argv(struct options *o, int argc, char **argv, char *err, size_t err_len)
{
    struct words w = { .argc = argc, .argv = argv, .next = 1 };

    while (w.next < argc) {
        const char *word = argv[w.next];
        int rc;

        if (word[0] != '-' || word[1] == '\0')
            break;
        w.next++;
        if (strcmp(word, "--") == 0)
            break;
        rc = word[1] == '-' ? parse_long(o, &w, word, err, err_len) : parse_short(o, &w, word, err, err_len);
        if (rc != 0)
            return rc;
    }
    return w.next;
}

const char *
knobs_split_head(const char *text, char *head, size_t head_len)
{
    size_t len = strcspn(text, ",");

    snprintf(head, head_len, "%.*s", (int)len, text);
    /* A comma that nothing follows is left to knobs_parse, which says so. */
    return text[len] == ',' && text[len + 1] != '\0' ? text + len + 1 : text + len;
}

/* End of the piece that starts here: a comma, but not one before a piece that has a ':' and no '='. */
static const char *
knob_end(const char *text)
{
    const char *end = text + strcspn(text, ",");

    while (*end == ',') {
        size_t len = strcspn(end + 1, ",");

        if (memchr(end + 1, ':', len) == NULL || memchr(end + 1, '=', len) != NULL)
            break;
        end += 1 + len;
    }
    return end;
}

static const char *
knob_names(const struct options *o, char *text, size_t len)
{
    size_t n = 0;

    snprintf(text, len, "none");
    for (unsigned i = 0; i < o->count && n < len; i++)
        n += (size_t)snprintf(text + n, len - n, "%s%s", n > 0 ? ", " : "", o->rows[i].name);
    return text;
}

static int
parse_knob(struct options *o, char *piece, const char *what, char *err, size_t err_len)
{
    char *equals = strchr(piece, '=');
    size_t len = equals != NULL ? (size_t)(equals - piece) : strlen(piece);
    unsigned i = find_row(o, piece, len);
    char names[512];
    char reason[512];
    int rc;

    if (i == o->count)
        return fail(err, err_len, "%s: '%.*s' is no knob of it, allowed: %s", what, (int)len, piece,
                    knob_names(o, names, sizeof(names)));
    if (o->source[i] == OPTION_FROM_COMMAND_LINE && o->rows[i].type != OPTION_LIST)
        return fail(err, err_len, "%s: '%.*s' is given twice", what, (int)len, piece);
    if (equals == NULL && o->rows[i].type != OPTION_BOOL)
        return fail(err, err_len, "%s: '%s' needs a value: %s", what, piece,
                    allowed_text(&o->rows[i], names, sizeof(names)));
    rc = set_row(o, i, equals != NULL ? equals + 1 : "on", OPTION_FROM_COMMAND_LINE, reason, sizeof(reason));
    if (rc != 0)
        fail(err, err_len, "%s: %s", what, reason);
    return rc;
}

int
knobs_parse(struct options *o, const char *text, const char *what, char *err, size_t err_len)
{
    if (strcmp(text, ",") == 0)
        return fail(err, err_len, "%s: nothing follows the last comma", what);
    while (*text != '\0') {
        const char *end = knob_end(text);
        char *piece = strndup(text, (size_t)(end - text));
        int rc;

        if (piece == NULL) {
            fail(err, err_len, "%s: out of memory", what);
            return -ENOMEM;
        }
        rc = parse_knob(o, piece, what, err, err_len);
        free(piece);
        if (rc != 0)
            return rc;
        if (*end == ',' && end[1] == '\0')
            return fail(err, err_len, "%s: nothing follows the last comma", what);
        text = *end == ',' ? end + 1 : end;
    }
    return 0;
}
