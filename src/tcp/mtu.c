/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp/mtu.h"

static uint16_t
lesser(uint16_t a, uint16_t b)
{
    return a < b ? a : b;
}

void
tcp_mtu_init(struct tcp_mtu *m, uint16_t low, uint16_t high)
{
    *m = (struct tcp_mtu){ .low = lesser(low, high), .high = high };
}

uint16_t
tcp_mtu_next(const struct tcp_mtu *m, uint16_t used)
{
    uint16_t low = m->low;
    uint16_t middle = (uint16_t)((low + m->high) / 2);

    if (middle <= used) { /* it would teach nothing: what is used goes through, as far as anybody knows */
        low = used;
        middle = (uint16_t)((low + m->high) / 2);
    }
    if (m->high < low + TCP_MTU_NEAR)
        return 0;
    /* Where nothing was lost the last step tries the end itself: most paths take what the ports do. */
    return m->nb_lost == 0 && m->high - middle < TCP_MTU_NEAR ? m->high : middle;
}

void
tcp_mtu_delivered(struct tcp_mtu *m)
{
    m->low = m->probe;
    m->probe = 0;
}

void
tcp_mtu_lost(struct tcp_mtu *m, uint16_t said)
{
    m->high = (uint16_t)(m->probe - 1);
    if (said != 0)
        m->high = lesser(m->high, said);
    m->low = lesser(m->low, m->high);
    m->probe = 0;
    m->nb_lost++;
}

uint16_t
tcp_mtu_black_hole(struct tcp_mtu *m, uint16_t used, uint16_t base, uint16_t floor)
{
    uint16_t size = used > base ? base : used / 2;

    if (size < floor)
        size = lesser(floor, used);
    m->low = lesser(m->low, size);
    m->probe = 0;
    return size;
}
