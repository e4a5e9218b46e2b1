/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The broadcast ring of core/bcast.c, scheme BCAST_REFCOUNT: PRODUCERS producers, REPLICAS replicas, each atomic access a step of its own.
 * Memory is sequentially consistent here; that the acquires and releases are enough is argued beside them in the source.
 *
 * Checked: every replica sees every entry once and in order (an entry's content is its position), one primary for each entry, no
 * slot is written while somebody has yet to read it, and nobody waits for ever (an invalid end state is an error).
 */
#define REPLICAS 2 /* an assertion names them */
#define PRODUCERS 2
#define ENTRIES 2
#define ITEMS 4

#define SLOT(p) ((p) % ENTRIES)

byte tail = 0;  /* bcast.tail */
byte limit = ENTRIES; /* bcast.limit */
byte head = 0;  /* bcast.head */
byte tag[ENTRIES];   /* slot.word: position + 1 */
byte count[ENTRIES]; /* slot.word: references */
byte data[ENTRIES];
byte seen[REPLICAS]; /* each replica's position */
byte primaries[ITEMS];

/* bcast_reserve, refresh_limit and bcast_put of one entry each time */
proctype producer()
{
    byte mine, known, fresh;
    do
    :: tail == ITEMS -> break
    :: else ->
        mine = tail;
        known = limit;
        if
        :: known <= mine ->
            fresh = head + ENTRIES;
            atomic {
                if
                :: limit == known && fresh > known -> limit = fresh
                :: else
                fi
            };
            known = fresh
        :: else
        fi;
        if
        :: known <= mine -> head + ENTRIES > limit || limit > mine || tail != mine /* full: wait for a change */
        :: mine == ITEMS -> skip
        :: else ->
            atomic {
                if
                :: tail == mine -> tail++
                :: else -> mine = ITEMS
                fi
            };
            if
            :: mine < ITEMS ->
                atomic {
                    assert(mine < seen[0] + ENTRIES && mine < seen[1] + ENTRIES); /* not freed early */
                    data[SLOT(mine)] = mine
                };
                atomic { tag[SLOT(mine)] = mine + 1; count[SLOT(mine)] = REPLICAS }
            :: else
            fi
        fi
    od
}

/* dequeue_refcount */
proctype replica(byte me)
{
    byte next = 0, left;
    do
    :: next == ITEMS -> break
    :: else ->
        tag[SLOT(next)] == next + 1;
        atomic {
            assert(data[SLOT(next)] == next);
            seen[me] = next + 1 /* has read it; what follows must not need the entry any more */
        };
        atomic { count[SLOT(next)]--; left = count[SLOT(next)] }; /* the decrement */
        if
        :: left == REPLICAS - 1 -> primaries[next]++
        :: else
        fi;
        if
        :: left == 0 -> head++ /* the last one frees */
        :: else
        fi;
        next++
    od
}

init {
    byte i;
    atomic {
        for (i : 1 .. PRODUCERS) { run producer() }
        for (i : 0 .. REPLICAS - 1) { run replica(i) }
    };
    _nr_pr == 1;
    for (i : 0 .. ITEMS - 1) { assert(primaries[i] == 1) }
    assert(head == ITEMS)
}
