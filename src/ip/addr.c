/* SPDX-License-Identifier: BSD-3-Clause */
#include "ip/addr.h"

#include <arpa/inet.h>
#include <errno.h>

const char *
ip_addr_format(const struct ip_addr *a, char *out)
{
    const char *done;

    /* A v4-mapped address is an IPv4 address to a person, also where inet_ntop would write ::ffff:10.66.0.2. */
    if (ip_addr_is_v4(a)) {
        done = inet_ntop(AF_INET, &a->w[3], out, IP_ADDR_STRLEN);
    } else {
        done = inet_ntop(AF_INET6, a->w, out, IP_ADDR_STRLEN);
    }
    return done == NULL ? strcpy(out, "?") : done;
}

int
ip_addr_parse(const char *text, struct ip_addr *a)
{
    uint32_t v4;

    if (inet_pton(AF_INET, text, &v4) == 1) {
        *a = ip_addr_v4(v4);
        return 0;
    }
    return inet_pton(AF_INET6, text, a->w) == 1 ? 0 : -EINVAL;
}

bool
ip_prefix_covers(const struct ip_addr *prefix, uint8_t prefix_len, const struct ip_addr *a)
{
    const uint8_t *x = (const uint8_t *)prefix->w, *y = (const uint8_t *)a->w;
    unsigned whole = prefix_len / 8, rest = prefix_len % 8;

    return memcmp(x, y, whole) == 0 && (rest == 0 || (x[whole] ^ y[whole]) >> (8 - rest) == 0);
}

int
ip_prefix_parse(const char *text, struct ip_addr *a, uint8_t *prefix_len)
{
    char addr[IP_ADDR_STRLEN];
    const char *slash = strchr(text, '/');
    const char *p;
    struct ip_addr parsed;
    unsigned len = 0;

    if (slash == NULL || (size_t)(slash - text) >= sizeof(addr)) {
        return -EINVAL;
    }
    memcpy(addr, text, (size_t)(slash - text));
    addr[slash - text] = '\0';
    if (ip_addr_parse(addr, &parsed) != 0) {
        return -EINVAL;
    }
    /* Digits alone, at most three: strtoul would take blanks, signs and any number of zeros. */
    for (p = slash + 1; *p >= '0' && *p <= '9' && p - slash <= 3; p++) {
        len = len * 10 + (unsigned)(*p - '0');
    }
    if (p == slash + 1 || *p != '\0' || len > (ip_addr_is_v4(&parsed) ? 32u : 128u)) {
        return -EINVAL;
    }
    *a = parsed;
    *prefix_len = (uint8_t)len;
    return 0;
}
