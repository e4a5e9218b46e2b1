/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <rte_cfgfile.h>
#include <rte_log.h>

#include "core/options.h"

#define SECTION "isosock"

/*
 * rte_cfgfile says what is wrong with a line only in a log message, so that is caught. It stops at the first
 * error: there is one line at most.
 */
static struct rte_cfgfile *
load(const char *path, char *reason, size_t reason_len)
{
    const struct rte_cfgfile_parameters params = { .comment_character = '#' };
    char *text = NULL;
    size_t len = 0;
    FILE *log = open_memstream(&text, &len);
    struct rte_cfgfile *cfg;

    if (log == NULL) {
        snprintf(reason, reason_len, "%s", strerror(errno));
        return NULL;
    }
    rte_openlog_stream(log);
    cfg = rte_cfgfile_load_with_params(path, CFG_FLAG_EMPTY_VALUES, &params);
    rte_openlog_stream(NULL);
    fclose(log);
    if (cfg == NULL) {
        const char *colon = strstr(text, "(): "); /* the library's function comes first */
        const char *start = colon != NULL ? colon + 4 : text;

        snprintf(reason, reason_len, "%.*s", (int)strcspn(start, "\n"), start);
    }
    free(text);
    return cfg;
}

/*
 * rte_cfgfile passes over a line that is neither a section nor `name = value`, cuts a long one, and gives no reason for
 * an entry before the first section. Here each is an error.
 */
static int
check_lines(const char *path, char *err, size_t err_len)
{
    char line[CFG_VALUE_LEN + CFG_NAME_LEN];
    const char *reason = NULL;
    bool in_section = false;
    unsigned number = 0;
    FILE *f = fopen(path, "re");

    if (f == NULL) {
        int rc = -errno;

        snprintf(err, err_len, "%s: %s", path, strerror(errno));
        return rc;
    }
    while (reason == NULL && fgets(line, sizeof(line), f) != NULL) {
        char *start = line + strspn(line, " \t");
        size_t len = strcspn(start, "#\r\n");

        number++;
        if (strlen(line) >= CFG_VALUE_LEN)
            reason = "longer than 255 characters";
        else if (strchr(line, '\n') == NULL && !feof(f))
            reason = "a byte of zero";
        else if (*start == '[')
            in_section = true;
        else if (len > 0 && memchr(start, '=', len) == NULL)
            reason = "neither '[section]' nor 'name = value'";
        else if (len > 0 && !in_section)
            reason = "[" SECTION "] must come first";
        line[strcspn(line, "\r\n")] = '\0';
    }
    if (reason == NULL && ferror(f)) {
        int rc = -errno;

        snprintf(err, err_len, "%s: %s", path, strerror(errno));
        fclose(f);
        return rc;
    }
    fclose(f);
    if (reason == NULL)
        return 0;
    snprintf(err, err_len, "%s: line %u: '%.60s': %s", path, number, line, reason);
    return -EINVAL;
}

/* Of one option but a list's. */
static bool
is_given_before(const struct option_row *row, const struct rte_cfgfile_entry *entries, int i)
{
    for (int k = 0; k < i && row->type != OPTION_LIST; k++)
        if (strcmp(entries[k].name, entries[i].name) == 0)
            return true;
    return false;
}

/* entries[i], behind those before it. */
static int
apply_entry(struct options *o, const char *path, const struct rte_cfgfile_entry *entries, int i, char *err,
            size_t err_len)
{
    const struct rte_cfgfile_entry *entry = &entries[i];
    const struct option_row *row = NULL;
    char reason[512];
    int rc;

    for (unsigned k = 0; k < o->count && row == NULL; k++)
        if (strcmp(o->rows[k].name, entry->name) == 0)
            row = &o->rows[k];
    if (row == NULL || (row->flags & OPTION_COMMAND_LINE_ONLY) != 0) {
        snprintf(err, err_len, "%s: '%s = %s': %s", path, entry->name, entry->value,
                 row == NULL ? "no such option, --help lists them" : "allowed on the command line only");
        return -EINVAL;
    }
    if (is_given_before(row, entries, i)) {
        snprintf(err, err_len, "%s: '%s = %s': given twice", path, entry->name, entry->value);
        return -EINVAL;
    }
    rc = options_set(o, entry->name, entry->value, OPTION_FROM_FILE, reason, sizeof(reason));
    if (rc != 0)
        snprintf(err, err_len, "%s: %s", path, reason);
    return rc;
}

static int
apply_section(struct options *o, const char *path, struct rte_cfgfile *cfg, int index, char *err, size_t err_len)
{
    char name[CFG_NAME_LEN] = "";
    int count = rte_cfgfile_section_num_entries_by_index(cfg, name, index);
    struct rte_cfgfile_entry *entries;
    int rc = 0;

    if (strcmp(name, SECTION) != 0) {
        snprintf(err, err_len, "%s: '[%s]': no such section, allowed: [" SECTION "]", path, name);
        return -EINVAL;
    }
    entries = calloc(count > 0 ? (size_t)count : 1, sizeof(entries[0]));
    if (entries == NULL) {
        snprintf(err, err_len, "%s: out of memory", path);
        return -ENOMEM;
    }
    rte_cfgfile_section_entries_by_index(cfg, index, name, entries, count);
    for (int i = 0; rc == 0 && i < count; i++)
        rc = apply_entry(o, path, entries, i, err, err_len);
    free(entries);
    return rc;
}

int
options_parse_file(struct options *o, const char *path, char *err, size_t err_len)
{
    struct rte_cfgfile *cfg;
    char reason[512];
    int rc;

    rc = check_lines(path, err, err_len);
    if (rc != 0)
        return rc;
    cfg = load(path, reason, sizeof(reason));
    if (cfg == NULL) {
        snprintf(err, err_len, "%s: %s", path, reason);
        return -EINVAL;
    }
    int sections = rte_cfgfile_num_sections(cfg, NULL, 0);

    for (int i = 0; rc == 0 && i < sections; i++)
        rc = apply_section(o, path, cfg, i, err, err_len);
    rte_cfgfile_close(cfg);
    return rc;
}
