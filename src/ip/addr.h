/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef IP_ADDR_H
#define IP_ADDR_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/**
 * @file
 * An IP address of either family: 16 bytes in network order, IPv4 as v4-mapped (::ffff:a.b.c.d, RFC 4291 section
 * 2.5.5.2). One type everywhere above the wire, so that IPv6 moves no wall.
 */
struct ip_addr {
    uint32_t w[4]; /**< network byte order */
};

/** ::ffff: in network order, as the third word of a v4-mapped address (little-endian machines). */
#define IP_ADDR_V4_PREFIX 0xffff0000u

static inline struct ip_addr
ip_addr_v4(uint32_t be)
{
    return (struct ip_addr){ { 0, 0, IP_ADDR_V4_PREFIX, be } };
}

static inline bool
ip_addr_is_v4(const struct ip_addr *a)
{
    return (a->w[0] | a->w[1] | (a->w[2] ^ IP_ADDR_V4_PREFIX)) == 0;
}

/** The IPv4 address in network order; meaningful only if ip_addr_is_v4. */
static inline uint32_t
ip_addr_to_v4(const struct ip_addr *a)
{
    return a->w[3];
}

/** 0.0.0.0 or ::. */
static inline bool
ip_addr_is_any(const struct ip_addr *a)
{
    return a->w[0] == 0 && a->w[1] == 0 && (a->w[2] == 0 || a->w[2] == IP_ADDR_V4_PREFIX) && a->w[3] == 0;
}

static inline bool
ip_addr_equal(const struct ip_addr *a, const struct ip_addr *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

/** Does a lie within prefix_len (of 128) bits of prefix? */
bool ip_prefix_covers(const struct ip_addr *prefix, uint8_t prefix_len, const struct ip_addr *a);

#define IP_ADDR_STRLEN 46

/** "10.66.0.2" or "fe80::1" into out (IP_ADDR_STRLEN bytes); returns out. */
const char *ip_addr_format(const struct ip_addr *a, char *out);

/** Parse either form. Returns 0 or -EINVAL. */
int ip_addr_parse(const char *text, struct ip_addr *a);

/** Parse "10.66.0.2/24" (prefix length required). Returns 0 or -EINVAL. */
int ip_prefix_parse(const char *text, struct ip_addr *a, uint8_t *prefix_len);

#endif /* IP_ADDR_H */
