/* SPDX-License-Identifier: BSD-3-Clause */
#include <inttypes.h>
#include <string.h>

#include "core/options.h"

#define HELP_COLUMN 32
#define HELP_WIDTH 100

static bool
is_shown(const struct option_row *row, unsigned hidden_by)
{
    return (row->flags & (hidden_by | OPTION_HIDDEN)) == 0;
}

/* The heading, when a row opens a new section among those that are shown. */
static const char *
new_section(const struct option_row *row, const char **last)
{
    if (row->section == NULL || (*last != NULL && strcmp(*last, row->section) == 0))
        return NULL;
    *last = row->section;
    return row->section;
}

/* What stands for the value; NULL for a flag. */
static const char *
metavar(const struct option_row *row, char *text, size_t len)
{
    size_t n = 0;

    if (row->metavar != NULL)
        return row->metavar;
    switch (row->type) {
    case OPTION_BOOL:
        return NULL;
    case OPTION_U32:
        return "N";
    case OPTION_SIZE:
        return "SIZE";
    case OPTION_ENUM:
        text[0] = '\0';
        for (const char *const *c = row->choices; *c != NULL && n < len; c++)
            n += (size_t)snprintf(text + n, len - n, "%s%s", n > 0 ? "|" : "", *c);
        return text;
    case OPTION_STRING:
    case OPTION_LIST:
        break;
    }
    return "TEXT";
}

/* Bounds, unit and default in brackets after the help; "" if there is nothing to say. */
static const char *
facts(const struct option_row *row, char *text, size_t len)
{
    size_t n = 0;

    text[0] = '\0';
    if ((row->type == OPTION_U32 || row->type == OPTION_SIZE) && row->max != 0)
        n += (size_t)snprintf(text + n, len - n, "%" PRIu64 " to %" PRIu64, row->min, row->max);
    if (row->unit != NULL)
        n += (size_t)snprintf(text + n, len - n, "%s%s", n > 0 ? " " : "in ", row->unit);
    if (row->default_text != NULL)
        n += (size_t)snprintf(text + n, len - n, "%sdefault %s", n > 0 ? ", " : "", row->default_text);
    if (row->type == OPTION_LIST)
        snprintf(text + n, len - n, "%smay be repeated", n > 0 ? ", " : "");
    return text;
}

/* Print text in words from column on, broken before HELP_WIDTH. */
static void
print_wrapped(FILE *out, const char *text, int column, int start)
{
    int at = column;

    while (*text != '\0') {
        int len = (int)strcspn(text, " ");

        if (at > start && at + 1 + len > HELP_WIDTH) {
            fprintf(out, "\n%*s", start, "");
            at = start;
        }
        at += fprintf(out, "%s%.*s", at > start ? " " : "", len, text);
        text += len;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

void
options_print_help(const struct options *o, FILE *out)
{
    const char *section = NULL;

    for (unsigned i = 0; i < o->count; i++) {
        const struct option_row *row = &o->rows[i];
        char flag[8], left[256], value[128], extra[256], text[1024];
        const char *var;

        if (!is_shown(row, 0))
            continue;
        if (new_section(row, &section) != NULL)
            fprintf(out, "%s%s:\n", i > 0 ? "\n" : "", section);
        var = metavar(row, value, sizeof(value));
        facts(row, extra, sizeof(extra));
        snprintf(text, sizeof(text), "%s%s%s%s", row->help, extra[0] != '\0' ? " (" : "", extra,
                 extra[0] != '\0' ? ")" : "");
        snprintf(flag, sizeof(flag), row->short_flag != 0 ? "-%c, " : "    ", row->short_flag);
        int n = snprintf(left, sizeof(left), "  %s--%s%s%s", flag, row->name, var != NULL ? " " : "",
                         var != NULL ? var : "");

        fputs(left, out);
        if (n + 2 > HELP_COLUMN)
            fprintf(out, "\n%*s", HELP_COLUMN, "");
        else
            fprintf(out, "%*s", HELP_COLUMN - n, "");
        print_wrapped(out, text, HELP_COLUMN, HELP_COLUMN);
    }
}

void
options_print_sample(const struct options *o, FILE *out)
{
    const char *section = NULL;

    fputs("# Each line shows an option with its default; remove the '#' before the name to change it.\n"
          "# The command line goes before this file.\n"
          "[isosock]\n",
          out);
    for (unsigned i = 0; i < o->count; i++) {
        const struct option_row *row = &o->rows[i];
        char value[128], extra[256];
        const char *var = metavar(row, value, sizeof(value));

        if (!is_shown(row, OPTION_COMMAND_LINE_ONLY))
            continue;
        if (new_section(row, &section) != NULL)
            fprintf(out, "\n# --- %s ---\n", section);
        facts(row, extra, sizeof(extra));
        fprintf(out, "\n# %s%s%s%s\n", row->help, extra[0] != '\0' ? " (" : "", extra, extra[0] != '\0' ? ")" : "");
        fprintf(out, "#%s = %s\n", row->name,
                row->default_text != NULL ? row->default_text : (var != NULL ? var : "off"));
    }
}

/* A '|' would end the table's cell. */
static void
print_cell(FILE *out, const char *text)
{
    for (; *text != '\0'; text++)
        fprintf(out, "%s%c", *text == '|' ? "\\" : "", *text);
}

void
options_print_markdown(const struct options *o, FILE *out)
{
    const char *section = NULL;

    for (unsigned i = 0; i < o->count; i++) {
        const struct option_row *row = &o->rows[i];
        char value[128], extra[256];
        const char *var = metavar(row, value, sizeof(value));

        if (!is_shown(row, 0))
            continue;
        if (new_section(row, &section) != NULL)
            fprintf(out, "%s### %s\n\n| option | meaning |\n| --- | --- |\n", i > 0 ? "\n" : "", section);
        fputs("| `", out);
        if (row->short_flag != 0)
            fprintf(out, "-%c`, `", row->short_flag);
        fprintf(out, "--%s%s", row->name, var != NULL ? " " : "");
        print_cell(out, var != NULL ? var : "");
        fputs("` | ", out);
        print_cell(out, row->help);
        if (facts(row, extra, sizeof(extra))[0] != '\0') {
            fputs(" (", out);
            print_cell(out, extra);
            fputc(')', out);
        }
        fputs(" |\n", out);
    }
}

static void
print_value(const struct option_row *row, const void *field, FILE *out)
{
    const struct option_list *list = field;

    switch (row->type) {
    case OPTION_BOOL:
        fputs(*(const bool *)field ? "on" : "off", out);
        break;
    case OPTION_U32:
        fprintf(out, "%" PRIu32, *(const uint32_t *)field);
        break;
    case OPTION_SIZE:
        fprintf(out, "%" PRIu64, *(const uint64_t *)field);
        break;
    case OPTION_ENUM:
        fputs(row->choices[*(const int *)field], out);
        break;
    case OPTION_STRING:
        fputs(*(char *const *)field != NULL ? *(char *const *)field : "", out);
        break;
    case OPTION_LIST:
        for (unsigned i = 0; i < list->count; i++)
            fprintf(out, "%s%s", i > 0 ? " " : "", list->items[i]);
        break;
    }
}

void
options_print_values(const struct options *o, FILE *out)
{
    static const char *const sources[] = { "default", "file", "command line" };

    for (unsigned i = 0; i < o->count; i++) {
        const struct option_row *row = &o->rows[i];

        if (!is_shown(row, 0))
            continue;
        fprintf(out, "%s = ", row->name);
        print_value(row, (const char *)o->target + row->offset, out);
        fprintf(out, "  # %s\n", sources[o->source[i]]);
    }
}
