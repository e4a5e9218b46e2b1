/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The broadcast ring of core/bcast.c, scheme BCAST_CLAIM, nobody passed over: PRODUCERS producers that take the minimum of the published
 * heads only when they run out of room, REPLICAS replicas that claim by compare-and-swap and publish by WINDOW. Each atomic access is a
 * step of its own; memory is sequentially consistent here, and that the acquires and releases are enough is argued in the source.
 *
 * Checked: every replica sees every entry once and in order (an entry's content is its position), one primary for each entry, no
 * slot is written while somebody has yet to read it, and nobody waits for ever (an invalid end state is an error).
 */
#define REPLICAS 2 /* the producer's wait and its assertion name them */
#define PRODUCERS 2
#define ENTRIES 2
#define WINDOW 2
#define ITEMS 4

#define SLOT(p) ((p) % ENTRIES)

byte tail = 0;  /* bcast.tail */
byte limit = ENTRIES; /* bcast.limit */
byte heads[REPLICAS]; /* replica.word, as published */
byte tag[ENTRIES];   /* slot.word: position + 1 */
byte claim[ENTRIES]; /* slot.word: 1 + the primary, 0 for none */
byte data[ENTRIES];
byte seen[REPLICAS]; /* each replica's position */
byte primaries[ITEMS];

/* bcast_reserve, refresh_limit and bcast_put of one entry each time */
proctype producer()
{
    byte mine, known, lowest, r;
    do
    :: tail == ITEMS -> break
    :: else ->
        mine = tail;
        known = limit;
        if
        :: known <= mine ->
            lowest = 255;
            r = 0;
            do
            :: r < REPLICAS ->
                atomic {
                    if
                    :: heads[r] < lowest -> lowest = heads[r]
                    :: else
                    fi;
                    r++
                }
            :: else -> break
            od;
            atomic {
                if
                :: limit == known && lowest + ENTRIES > known -> limit = lowest + ENTRIES
                :: else
                fi;
                known = limit
            }
        :: else
        fi;
        if
        :: known <= mine ->
            /* full: wait for a change */
            (heads[0] + ENTRIES > known && heads[1] + ENTRIES > known) || limit != known || tail != mine
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
                atomic { tag[SLOT(mine)] = mine + 1; claim[SLOT(mine)] = 0 }
            :: else
            fi
        fi
    od
}

/* dequeue_claim, one entry each time */
proctype replica(byte me)
{
    byte next = 0, owner;
    do
    :: next == ITEMS -> break
    :: else ->
        if
        :: next + 1 - heads[me] > WINDOW -> heads[me] = next /* the window is used up */
        :: else
        fi;
        if
        :: tag[SLOT(next)] != next + 1 ->
            heads[me] = next /* nothing there */
        :: else
        fi;
        atomic { tag[SLOT(next)] == next + 1 -> owner = claim[SLOT(next)] };
        if
        :: owner == 0 ->
            atomic {
                owner = claim[SLOT(next)]; /* the exchange looks again */
                if
                :: owner == 0 -> claim[SLOT(next)] = me + 1; primaries[next]++
                :: else
                fi
            }
        :: else
        fi;
        atomic {
            assert(tag[SLOT(next)] == next + 1 && data[SLOT(next)] == next);
            next++;
            seen[me] = next
        }
    od;
    heads[me] = next /* bcast_release */
}

init {
    byte i;
    atomic {
        for (i : 1 .. PRODUCERS) { run producer() }
        for (i : 0 .. REPLICAS - 1) { run replica(i) }
    };
    _nr_pr == 1;
    for (i : 0 .. ITEMS - 1) { assert(primaries[i] == 1) }
}
