/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who is sole: a thread alone, threads that come after each other and at once, signal handlers, a fork. The state is the process's and begins once, so each
 * test runs in a child.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lock.h"
#include "sole.h"

#define ADDS 200000u
#define THREADS 3u
#define SKIPPED 77

static uint32_t count;
static uint64_t tagged;

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) {                                                                                                    \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);                                                    \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

static bool
is_sole(void)
{
    uint32_t term = sole_enter();

    if (term != SOLE_NOBODY)
        sole_leave(term);
    return term != SOLE_NOBODY;
}

static void
in_child(void (*body)(void))
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        sole_begin();
        if (!is_sole())
            _exit(SKIPPED);
        body();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == SKIPPED) {
        print_message("no thread can be sole here\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

static pthread_barrier_t start;

static void
run(void *(*fn)(void *), unsigned n)
{
    pthread_t threads[THREADS];

    CHECK(pthread_barrier_init(&start, NULL, n) == 0);
    for (unsigned i = 0; i < n; i++)
        CHECK(pthread_create(&threads[i], NULL, fn, NULL) == 0);
    for (unsigned i = 0; i < n; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

static void *
add_many(void *arg)
{
    pthread_barrier_wait(&start);
    for (unsigned i = 0; i < ADDS; i++) {
        uint64_t seen = __atomic_load_n(&tagged, __ATOMIC_RELAXED);

        while (!sole_cas64(&tagged, &seen, seen + 1))
            ;
        sole_add_fetch(&count, 1);
    }
    return arg;
}

static void
alone(void)
{
    uint32_t word = 5, expected = 4;

    CHECK(sole_enter() == 1 && sole_enter() == 1);
    sole_leave(1);
    sole_leave(1);
    CHECK(!sole_cas32(&word, &expected, 7) && expected == 5 && word == 5);
    CHECK(sole_cas32(&word, &expected, 7) && word == 7);
    CHECK(sole_add_fetch(&word, UINT32_MAX) == 6 && word == 6);
    CHECK(front->sole.inside[1] == 0);
}

static void
a_thread_alone_is_sole(void **state)
{
    (void)state;
    in_child(alone);
}

static void *
takes_over(void *arg)
{
    CHECK(is_sole());
    return arg;
}

static void
after_each_other(void)
{
    for (unsigned i = 0; i < SOLE_TERMS / 2 - 1; i++) {
        run(takes_over, 1);
        CHECK(is_sole());
    }
    run(takes_over, 1);
    CHECK(!is_sole());
    CHECK(front->sole.term == SOLE_NOBODY);
    sole_begin();
    CHECK(!is_sole());
}

static void
threads_after_each_other_are_sole_until_there_were_many(void **state)
{
    (void)state;
    in_child(after_each_other);
}

static void
at_once(void)
{
    count = 0;
    run(add_many, THREADS);
    CHECK(count == THREADS * ADDS && tagged == count);
}

static void
threads_at_once_lose_no_change(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 20; i++)
        in_child(at_once);
}

static uint32_t left_inside;

static void *
comes_in(void *arg)
{
    CHECK(is_sole());
    CHECK(__atomic_load_n(&left_inside, __ATOMIC_ACQUIRE) == 1);
    return arg;
}

/* The term is being ended when the nested enter comes. */
static void
one_waits(void)
{
    pthread_t other;

    CHECK(sole_enter() == 1);
    CHECK(pthread_create(&other, NULL, comes_in, NULL) == 0);
    while (__atomic_load_n(&front->sole.term, __ATOMIC_ACQUIRE) == 1)
        sched_yield();
    CHECK(sole_enter() == 1);
    sole_leave(1);
    __atomic_store_n(&left_inside, 1, __ATOMIC_RELEASE);
    sole_leave(1);
    CHECK(pthread_join(other, NULL) == 0);
}

static void
one_comes_in_when_the_other_has_left(void **state)
{
    (void)state;
    in_child(one_waits);
}

static uint32_t lock, handled;

static void
on_alarm(int signal)
{
    (void)signal;
    if (lock_acquire(&lock)) {
        count++;
        lock_release(&lock);
    }
    sole_add_fetch(&handled, 1);
}

/* The handler interrupts the thread anywhere, inside too, while another thread takes the lock in turn with it. */
static void
interrupted(void)
{
    const struct sigaction sa = { .sa_handler = on_alarm };
    pthread_t other;
    uint32_t own = 0;

    count = 0;
    CHECK(sigaction(SIGUSR1, &sa, NULL) == 0);
    CHECK(pthread_barrier_init(&start, NULL, 1) == 0);
    CHECK(pthread_create(&other, NULL, add_many, NULL) == 0);
    while (own < 2000) {
        sole_add_fetch(&own, 1);
        raise(SIGUSR1);
        pthread_kill(other, SIGUSR1);
    }
    CHECK(pthread_join(other, NULL) == 0);
    CHECK(tagged == ADDS && lock == 0 && own == 2000);
}

static void
a_signal_handler_finds_no_half_of_a_change(void **state)
{
    (void)state;
    in_child(interrupted);
}

static void
ended(void)
{
    CHECK(sole_enter() == 1);
    sole_end(); /* as in a handler that has interrupted us inside */
    sole_leave(1);
    CHECK(!is_sole());
    run(add_many, THREADS);
    CHECK(count == THREADS * ADDS);
}

static void
before_a_fork_it_ends_for_good(void **state)
{
    (void)state;
    in_child(ended);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_alone_is_sole),
        cmocka_unit_test(threads_after_each_other_are_sole_until_there_were_many),
        cmocka_unit_test(threads_at_once_lose_no_change),
        cmocka_unit_test(one_comes_in_when_the_other_has_left),
        cmocka_unit_test(a_signal_handler_finds_no_half_of_a_change),
        cmocka_unit_test(before_a_fork_it_ends_for_good),
    };

    return cmocka_run_group_tests_name("sole", tests, NULL, NULL);
}
