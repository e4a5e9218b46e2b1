/* SPDX-License-Identifier: BSD-3-Clause */
#include "libc.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <sys/syscall.h>

/*
 * What an allocator may need while dlsym runs. In the interposer syscall() is ours too, and its own would be found by the table that is
 * being filled, hence the instruction itself.
 */
static long
bare_syscall(long nr, ...)
{
    va_list ap;
    long a[6], rc;
    int i;

    va_start(ap, nr);
    for (i = 0; i < 6; i++)
        a[i] = va_arg(ap, long);
    va_end(ap);
#if defined(__x86_64__)
    register long r10 __asm__("r10") = a[3];
    register long r8 __asm__("r8") = a[4];
    register long r9 __asm__("r9") = a[5];

    __asm__ volatile("syscall"
                     : "=a"(rc)
                     : "a"(nr), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = nr;
    register long x0 __asm__("x0") = a[0];
    register long x1 __asm__("x1") = a[1];
    register long x2 __asm__("x2") = a[2];
    register long x3 __asm__("x3") = a[3];
    register long x4 __asm__("x4") = a[4];
    register long x5 __asm__("x5") = a[5];

    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    rc = x0;
#else
#error "bare_syscall: write the instruction of this architecture"
#endif
    if (rc < 0 && rc > -4096) {
        errno = (int)-rc;
        return -1;
    }
    return rc;
}

static ssize_t
bare_read(int fd, void *buf, size_t n)
{
    return bare_syscall(SYS_read, fd, buf, n);
}

static ssize_t
bare_write(int fd, const void *buf, size_t n)
{
    return bare_syscall(SYS_write, fd, buf, n);
}

static int
bare_close(int fd)
{
    return (int)bare_syscall(SYS_close, fd);
}

static int
bare_fcntl(int fd, int cmd, ...)
{
    va_list ap;
    void *arg;

    va_start(ap, cmd);
    arg = va_arg(ap, void *);
    va_end(ap);
    return (int)bare_syscall(SYS_fcntl, fd, cmd, arg);
}

static int
bare_epoll_pwait2(int fd, struct epoll_event *events, int max, const struct timespec *timeout, const sigset_t *mask)
{
    return (int)bare_syscall(SYS_epoll_pwait2, fd, events, max, timeout, mask, 8);
}

static int
bare_close_range(unsigned first, unsigned last, int flags)
{
    return (int)bare_syscall(SYS_close_range, first, last, flags);
}

/** For a function that the C library has not, and for what is called too early. */
static long
missing(void)
{
    errno = ENOSYS;
    return -1;
}

/* Assigning through void pointers: ISO C has no conversion from an object pointer (dlsym's) to a function pointer, POSIX has. */
static void
set_entry(void *entry, void *fn)
{
    *(void **)entry = fn;
}

struct libc_table libc_table = {
    .read = bare_read,
    .write = bare_write,
    .close = bare_close,
    .fcntl = bare_fcntl,
    .syscall = bare_syscall,
};
bool libc_ready;

void
libc_resolve(void)
{
    static __thread bool resolving;
    struct libc_table t;
    int saved_errno = errno;

    if (resolving)
        return;
    resolving = true;
#define LIBC_RESOLVE(name, ret, params)                                                                                \
    set_entry(&t.name, dlsym(RTLD_NEXT, #name));                                                                       \
    if (t.name == NULL)                                                                                                \
        set_entry(&t.name, (void *)(uintptr_t)missing);
    LIBC_FUNCTIONS(LIBC_RESOLVE)
#undef LIBC_RESOLVE
    if ((uintptr_t)t.epoll_pwait2 == (uintptr_t)missing)
        t.epoll_pwait2 = bare_epoll_pwait2;
    if ((uintptr_t)t.close_range == (uintptr_t)missing)
        t.close_range = bare_close_range;
    libc_table = t; /* two threads that come here at once store the same values */
    __atomic_store_n(&libc_ready, true, __ATOMIC_RELEASE);
    resolving = false;
    errno = saved_errno;
}
