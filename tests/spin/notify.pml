/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The notification and sleep protocol of sockets/shm.h: front-end -> stack.
 *
 * One socket, NTHREADS application threads that take turns by the socket's lock, one stack worker. Each thread appends ITEMS
 * items (bytes, commands: whatever `tail` counts) and notifies by the rule; the worker dequeues, services, and sleeps when it finds
 * nothing. Memory is sequentially consistent here, as the fences make it at the places where it matters; each atomic access is a step of its own.
 *
 * Checked: no lost wake-up and no lost item (the run ends only when everything was serviced: an invalid end state is an error), and
 * the socket stands in the ring at most once (the ring never holds more than one entry).
 */
#define NTHREADS 2
#define ITEMS 2

byte tail = 0;      /* front->tx_tail */
byte notified = 0;  /* front->notified */
byte serviced = 0;  /* back->serviced */
byte ring = 0;      /* entries in the notification ring */
bool sleeping = false; /* stack_page->sleeping */
byte doorbell = 0;  /* eventfd's counter */
bool lock = false;  /* the front-end's lock of the socket */
byte taken = 0;     /* the worker's private copy of what it has taken */

inline acquire() { atomic { !lock -> lock = true } }
inline release() { lock = false }

proctype app()
{
    byte i = 0;
    bool pending;
    do
    :: i < ITEMS ->
        acquire();
        tail++;
        /* fence */
        pending = (serviced != notified);
        if
        :: !pending ->
            notified++;
            ring++;
            assert(ring <= 1);
            /* fence */
            if
            :: sleeping -> doorbell++
            :: else
            fi
        :: else
        fi;
        release();
        i++
    :: else -> break
    od
}

proctype worker()
{
    byte n;
    do
    :: taken == NTHREADS * ITEMS -> break
    :: else ->
        if
        :: ring > 0 ->
            ring--;
            n = notified;
            serviced = n;
            /* fence */
            taken = tail
        :: else ->
            /* nothing to do: announce sleep, fence, look again */
            sleeping = true;
            if
            :: ring > 0 -> sleeping = false
            :: else ->
                /* epoll_wait on the doorbell */
                atomic { doorbell > 0 -> doorbell = 0 };
                sleeping = false
            fi
        fi
    od
}

init {
    byte i;
    atomic {
        run worker();
        for (i : 1 .. NTHREADS) { run app() }
    }
}
