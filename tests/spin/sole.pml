/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * src/sockets/client/sole.h: one thread changes a word by plain instructions, inside; others end its term, and are sole then, or all of them use locked
 * instructions once TERMS terms are over.
 *
 * Stores of the sole thread wait in its store buffer (buf), in order, and become visible at any later time; a locked instruction and the barrier that membarrier
 * has every thread execute empty it.
 *
 * Checked: no change of the word is lost.
 */
#define THREADS 3
#define TERMS 2
#define NOBODY 9
#define INSIDE 0
#define WORD 1

byte term = 1;          /* 2 * number + 1; even: being ended */
bool inside[TERMS];     /* as others see it */
byte word = 0;          /* as others see it */
byte done = 0;

mtype = { into, out, add };
chan buf[THREADS] = [3] of { mtype, byte };

inline make_visible(t)
{
    buf[t]?what,value;
    if
    :: what == into -> inside[value] = true
    :: what == out -> inside[value] = false
    :: what == add -> word = value
    fi
}

proctype thread(byte me; byte mine)
{
    byte seen, next, value;
    bool changed = false;
    mtype what;

    do
    :: changed -> break
    :: else ->
        seen = term;
        if
        :: seen == NOBODY ->
            atomic { word++; changed = true }
        :: seen == mine && seen != NOBODY ->
            buf[me]!into,mine / 2;
            if
            :: term == mine ->
                value = word;
                buf[me]!add,value + 1;
                changed = true
            :: else
            fi;
            buf[me]!out,mine / 2
        :: else ->
            if
            :: seen % 2 == 1 ->
                atomic { if :: term == seen -> term = seen - 1 :: else fi };
                next = seen + 2;
                seen = seen - 1
            :: else -> next = seen + 3
            fi;
            /* membarrier */
            d_step {
                do
                :: nempty(buf[0]) -> make_visible(0)
                :: empty(buf[0]) && nempty(buf[1]) -> make_visible(1)
                :: empty(buf[0]) && empty(buf[1]) && nempty(buf[2]) -> make_visible(2)
                :: else -> break
                od;
                value = 0
            };
            if
            :: seen != NOBODY && seen / 2 < TERMS -> !inside[seen / 2]
            :: else
            fi;
            if
            :: next / 2 >= TERMS -> next = NOBODY
            :: else
            fi;
            atomic {
                if
                :: term == seen -> term = next; if :: next != NOBODY -> mine = next :: else fi
                :: else
                fi
            }
        fi
    od;
    done++
}

/* The store buffers empty themselves. */
proctype memory()
{
    byte value;
    mtype what;

end:
    do
    :: atomic { nempty(buf[0]) -> make_visible(0) }
    :: atomic { nempty(buf[1]) -> make_visible(1) }
    :: atomic { nempty(buf[2]) -> make_visible(2) }
    od
}

proctype check()
{
    done == THREADS && empty(buf[0]) && empty(buf[1]) && empty(buf[2]);
    assert(word == THREADS)
}

init
{
    atomic {
        run thread(0, 1);
        run thread(1, 200);
        run thread(2, 200);
        run memory();
        run check()
    }
}
