/* SPDX-License-Identifier: BSD-3-Clause */
#include "ip/sum.h"

#include <string.h>

#include <rte_byteorder.h>

#define BLOCK_BYTES 128u

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED
#endif
#endif

typedef uint64_t lanes __attribute__((vector_size(32), aligned(8)));

/* Of 64-bit words: their total, which may overflow, and that of their upper halves, which cannot. The lower halves' is what the first has beyond the second. */
struct halves {
    lanes total;
    lanes upper;
};

static inline __attribute__((always_inline)) void
add_lanes(struct halves *h, const uint8_t *p)
{
    lanes x;

    memcpy(&x, p, sizeof(x));
    h->upper += x >> 32;
    h->total += x;
}

/* Two sums side by side, so that neither waits for its own last addition. Without AVX2 the compiler makes the same of narrower vectors. */
static inline __attribute__((always_inline)) uint64_t
add_blocks(const uint8_t *p, size_t n_blocks)
{
    struct halves a = { 0 }, b = { 0 };
    lanes sum;

    for (; n_blocks > 0; n_blocks--, p += BLOCK_BYTES) {
        add_lanes(&a, p);
        add_lanes(&b, p + 32);
        add_lanes(&a, p + 64);
        add_lanes(&b, p + 96);
    }
    a.upper += b.upper;
    sum = a.total + b.total - (a.upper << 32) + a.upper;
    return sum[0] + sum[1] + sum[2] + sum[3];
}

#if defined(__x86_64__)
static __attribute__((target("avx2"))) uint64_t
add_blocks_avx2(const uint8_t *p, size_t n_blocks)
{
    return add_blocks(p, n_blocks);
}
#endif

static uint64_t
add_many(const uint8_t *p, size_t n_blocks)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        return add_blocks_avx2(p, n_blocks);
#endif
    return add_blocks(p, n_blocks);
}

static inline uint64_t
word_at(const uint8_t *p)
{
    uint64_t x;

    memcpy(&x, p, sizeof(x));
    return x;
}

/* Less than eight bytes, as if zeros followed. */
static inline uint64_t
tail_at(const uint8_t *p, size_t n_bytes)
{
    uint64_t sum = 0;
    uint32_t four;

    if (n_bytes & 4) {
        memcpy(&four, p, sizeof(four));
        sum = four;
        p += sizeof(four);
    }
    if (n_bytes & 2) {
        uint16_t two;

        memcpy(&two, p, sizeof(two));
        sum += two;
        p += sizeof(two);
    }
    return n_bytes & 1 ? sum + rte_cpu_to_le_16(*p) : sum;
}

/* Four words, whose carries come round: the compiler does not keep them in the flag. A sanitizer does not see what assembly reads, so for it the compiler does as it does. */
static inline uint64_t
add_32(uint64_t sum, const uint8_t *p)
{
#if defined(__x86_64__) && !defined(SANITIZED)
    const struct {
        uint64_t word[4];
    } __attribute__((packed, may_alias)) *four = (const void *)p;

    /* The sum is written before the last word is read. */
    __asm__("add %1, %0\n\tadc %2, %0\n\tadc %3, %0\n\tadc %4, %0\n\tadc $0, %0"
            : "+&r"(sum)
            : "m"(four->word[0]), "m"(four->word[1]), "m"(four->word[2]), "m"(four->word[3])
            : "cc");
    return sum;
#else
    return sum_carry(sum_carry(sum_carry(sum_carry(sum, word_at(p)), word_at(p + 8)), word_at(p + 16)),
                     word_at(p + 24));
#endif
}

/* Short of the vectors' use: 64-bit words. */
static inline uint64_t
add_words(uint64_t sum, const uint8_t *p, size_t n_bytes)
{
    for (const uint8_t *end = p + (n_bytes & ~(size_t)31); p != end; p += 32)
        sum = add_32(sum, p);
    for (n_bytes &= 31; n_bytes >= 8; n_bytes -= 8, p += 8)
        sum = sum_carry(sum, word_at(p));
    if (n_bytes > 0)
        sum = sum_carry(sum, tail_at(p, n_bytes));
    return (sum & UINT32_MAX) + (sum >> 32);
}

/* Of its own, so that the short sums keep no registers for it. */
static __attribute__((noinline)) uint64_t
add_long(const uint8_t *p, size_t n_bytes)
{
    size_t n_blocks = n_bytes / BLOCK_BYTES;

    return add_words(add_many(p, n_blocks), p + n_blocks * BLOCK_BYTES, n_bytes % BLOCK_BYTES);
}

uint64_t
sum_add(const void *bytes, size_t n_bytes)
{
    return n_bytes < BLOCK_BYTES ? add_words(0, bytes, n_bytes) : add_long(bytes, n_bytes);
}
