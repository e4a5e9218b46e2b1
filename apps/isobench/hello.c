/* SPDX-License-Identifier: BSD-3-Clause */
#include "hello.h"

#include <arpa/inet.h>
#include <string.h>

#define HELLO_MAGIC 0x49534f42u /* "ISOB" */
#define HELLO_VERSION 1u

const char *const role_names[ROLE_COUNT] = { "rr", "tx", "rx", "crr", "idle" };

void
hello_write(const struct hello *hello, uint8_t out[HELLO_BYTES])
{
    const uint32_t words[4] = { htonl(HELLO_MAGIC), htonl(HELLO_VERSION), htonl((uint32_t)hello->role),
                                htonl(hello->size_bytes) };

    memcpy(out, words, HELLO_BYTES);
}

int
hello_read(struct hello *hello, const uint8_t in[HELLO_BYTES])
{
    uint32_t words[4];

    memcpy(words, in, HELLO_BYTES);
    for (unsigned i = 0; i < 4; i++)
        words[i] = ntohl(words[i]);
    if (words[0] != HELLO_MAGIC || words[1] != HELLO_VERSION || words[2] >= ROLE_COUNT)
        return -1;
    if (words[3] == 0 || words[3] > HELLO_SIZE_MAX)
        return -1;
    hello->role = (enum role)words[2];
    hello->size_bytes = words[3];
    return 0;
}
