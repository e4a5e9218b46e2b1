/* SPDX-License-Identifier: BSD-3-Clause */
#include "input.h"

#include <dirent.h>
#include <string.h>

/**
 * @file
 * Takes libFuzzer's place with any compiler: runs each file of a folder through the target, and then each of its halves, and fails if there is
 * none. What a target finds ends the process.
 */

#define INPUT_MAX_BYTES 65536u

static size_t
read_file(const char *dir, const char *name, uint8_t *data)
{
    char path[4096];
    size_t size;
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "rb");
    FUZZ_CHECK(f != NULL);
    size = fread(data, 1, INPUT_MAX_BYTES, f);
    fclose(f);
    return size;
}

static void
run(const char *name, const uint8_t *data, size_t size)
{
    /* On the heap and of that size, so that the sanitizers see a read beyond the end. */
    uint8_t *copy = malloc(size > 0 ? size : 1);

    FUZZ_CHECK(copy != NULL);
    memcpy(copy, data, size);
    fprintf(stderr, "%s: %zu bytes\n", name, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static int
is_input(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

int
main(int argc, char **argv)
{
    static uint8_t data[INPUT_MAX_BYTES];
    struct dirent **names;
    int n;

    if (argc != 2) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    LLVMFuzzerInitialize(&argc, &argv);
    n = scandir(argv[1], &names, is_input, alphasort);
    if (n <= 0) {
        fprintf(stderr, "%s: no inputs\n", argv[1]);
        return 1;
    }
    for (int i = 0; i < n; i++) {
        size_t size = read_file(argv[1], names[i]->d_name, data);

        run(names[i]->d_name, data, size);
        run(names[i]->d_name, data, size / 2);
        free(names[i]);
    }
    free(names);
    return 0;
}
