/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The wake-up protocol of sockets/shm.h: stack -> application.
 *
 * A thread that finds nothing sets its bit in front->sleepers, looks again and sleeps on event_seq (FUTEX_WAIT sleeps only if the word still
 * holds the value that was read before looking). A second thread sleeps on an event queue: sleeping = 1, look again, read the eventfd. The
 * stack publishes ITEMS items: rx_tail, event_seq, the queue entry, then looks at who sleeps.
 *
 * Checked: both consumers see everything (a lost wake-up is an invalid end state).
 */
#define ITEMS 3

byte rx_tail = 0;    /* back->rx_tail */
byte event_seq = 0;  /* back->event_seq */
bool sleeper = false; /* front->sleepers & SHM_SLEEP_READ */
bool parked = false; /* the kernel's futex queue */
byte q_tail = 0;     /* back eventq tail */
byte q_head = 0;     /* front eventq head */
bool q_sleeping = false;
byte eventfd = 0;

proctype stack()
{
    byte i = 0;
    do
    :: i < ITEMS ->
        rx_tail++;
        event_seq++;
        /* the socket is appended unless it stands in the queue already */
        if
        :: q_tail == q_head -> q_tail++
        :: else
        fi;
        /* fence */
        if
        :: sleeper -> atomic { if :: parked -> parked = false :: else fi } /* FUTEX_WAKE */
        :: else
        fi;
        if
        :: q_sleeping -> eventfd++
        :: else
        fi;
        i++
    :: else -> break
    od
}

proctype futex_reader()
{
    byte seq, seen = 0;
    do
    :: seen == ITEMS -> break
    :: else ->
        sleeper = true;
        /* fence */
        seq = event_seq;
        if
        :: rx_tail != seen -> skip
        :: else ->
            /* FUTEX_WAIT(event_seq, seq): compare and park are one step */
            atomic { if :: event_seq == seq -> parked = true :: else fi };
            !parked
        fi;
        sleeper = false;
        seen = rx_tail
    od
}

proctype queue_reader()
{
    byte seen = 0;
    do
    :: seen == ITEMS -> break
    :: else ->
        if
        :: q_head != q_tail ->
            q_head = q_tail;
            /* fence: the entry is taken before the socket is looked at */
            seen = rx_tail
        :: else ->
            q_sleeping = true;
            /* fence */
            if
            :: q_head != q_tail -> skip
            :: else -> atomic { eventfd > 0 -> eventfd = 0 }
            fi;
            q_sleeping = false
        fi
    od
}

init { atomic { run stack(); run futex_reader(); run queue_reader() } }
