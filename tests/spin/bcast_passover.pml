/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The broadcast ring of core/bcast.c: passing over a replica and taking it back. One producer; replica 0 goes on; replica 1 may stand
 * still between any two steps, which is when the monitor passes it over, up to EXPELS times. Each atomic access is a step of its own;
 * memory is sequentially consistent here, and that the acquires and releases are enough is argued in the source.
 *
 * Checked: a replica that was passed over claims nothing afterwards; it never takes overwritten bytes for an entry; one claim
 * for each entry, and its work done by the primary or by who adopts the orphan; no slot is written that a replica which is in
 * has yet to read, also while it comes in; nobody waits for ever (an invalid end state is an error).
 */
#define ENTRIES 2
#define WINDOW 1
#define ITEMS 5
#define EXPELS 2

#define SLOT(p) ((p) % ENTRIES)

mtype = { IN, FENCED, OUT };

byte limit = ENTRIES, generation = 0; /* bcast.limit, one word */
byte head0 = 0;                       /* replica 0's word; it is always in */
byte head1 = 0;                       /* replica 1's word ... */
mtype state1 = IN;                    /* ... the other part of it */
byte tag[ENTRIES], claim[ENTRIES];    /* slot.word: position + 1, and 1 + the primary */
byte data[ENTRIES];

byte seen0 = 0, seen1 = 0; /* positions */
bool member1 = true;       /* replica 1 counts: bcast_skip succeeded, and nobody has let it go since */
byte claims[ITEMS];
byte done[ITEMS];          /* the primary's work */
bool finished = false;     /* replica 1 */

proctype producer()
{
    byte mine = 0, known, gen, lowest;
    do
    :: mine == ITEMS -> break
    :: mine < ITEMS && limit > mine ->
        assert(mine < seen0 + ENTRIES);
        assert(!member1 || mine < seen1 + ENTRIES); /* not freed early */
        data[SLOT(mine)] = mine;
        atomic { tag[SLOT(mine)] = mine + 1; claim[SLOT(mine)] = 0 };
        mine++
    :: mine < ITEMS && limit <= mine && head0 + ENTRIES > limit && (state1 == OUT || head1 + ENTRIES > limit) ->
        /* refresh_limit; the guard only spares looking in vain */
        atomic { known = limit; gen = generation };
        lowest = head0;
        atomic {
            if
            :: state1 != OUT && head1 < lowest -> lowest = head1
            :: else
            fi
        };
        atomic {
            if
            :: lowest + ENTRIES > known && limit == known && generation == gen -> limit = lowest + ENTRIES
            :: else
            fi
        }
    od
}

proctype steady()
{
    bool mine;
    do
    :: seen0 == ITEMS -> break
    :: else ->
        head0 = seen0; /* publish */
        tag[SLOT(seen0)] == seen0 + 1;
        atomic {
            mine = (claim[SLOT(seen0)] == 0);
            if
            :: mine -> claim[SLOT(seen0)] = 1; claims[seen0]++
            :: else
            fi
        };
        assert(data[SLOT(seen0)] == seen0);
        if
        :: mine -> done[seen0]++
        :: else
        fi;
        seen0++
    od;
    head0 = seen0
}

proctype laggard()
{
    byte next = 0, published = 0, value, known, gen;
    bool mine, stale;
    do
    :: next == ITEMS -> break
    :: else ->
        mine = false;
        stale = (state1 != IN);
        if
        :: !stale && next + 1 - published > WINDOW ->
            atomic { /* publish */
                if
                :: state1 == IN -> head1 = next; published = next
                :: else -> stale = true
                fi
            }
        :: else
        fi;
        if
        :: !stale -> tag[SLOT(next)] == next + 1 || state1 != IN
        :: else
        fi;
        if
        :: !stale && tag[SLOT(next)] == next + 1 ->
            atomic { /* claim */
                if
                :: tag[SLOT(next)] == next + 1 && claim[SLOT(next)] == 0 ->
                    claim[SLOT(next)] = 2;
                    claims[next]++;
                    assert(state1 == IN);
                    mine = true
                :: else
                fi
            };
            value = data[SLOT(next)];
            if
            :: state1 == IN -> /* still in: the copy is good */
                assert(value == next);
                if
                :: mine -> done[next]++
                :: else
                fi;
                next++;
                seen1 = next
            :: else -> stale = true
            fi
        :: !stale && tag[SLOT(next)] != next + 1 -> stale = true
        :: else
        fi;
        if
        :: stale ->
            /* bcast_skip: roll forward to what replica 0 has given away */
again:
            state1 == OUT;
            value = head0;
            if
            :: value < next -> value = next
            :: else
            fi;
            atomic { head1 = value; state1 = IN };
            do
            :: true ->
                atomic { known = limit; gen = generation };
                if
                :: known > value + ENTRIES ->
                    atomic {
                        if
                        :: state1 == IN -> state1 = OUT
                        :: else /* somebody has fenced it */
                        fi
                    };
                    goto again
                :: else ->
                    atomic {
                        if
                        :: limit == known && generation == gen ->
                            generation++;
                            next = value;
                            published = value;
                            seen1 = value;
                            member1 = (state1 != OUT);
                            break
                        :: else
                        fi
                    }
                fi
            od
        :: else
        fi
    od;
    atomic {
        if
        :: state1 == IN -> head1 = next
        :: else
        fi;
        finished = true
    }
}

/* bcast_expel, bcast_orphan, bcast_let_go */
proctype monitor()
{
    byte h, p, times = 0;
    do
    :: times == EXPELS -> break
    :: finished -> break
    :: times < EXPELS && state1 == IN && head0 >= head1 + WINDOW ->
        h = head1;
        if
        :: head0 >= h + WINDOW ->
            atomic {
                if
                :: state1 == IN && head1 == h -> state1 = FENCED
                :: else -> h = 255
                fi
            };
            if
            :: h != 255 ->
                times++;
                for (p : h .. h + WINDOW - 1) {
                    if
                    :: tag[SLOT(p)] == p + 1 && claim[SLOT(p)] == 2 ->
                        assert(data[SLOT(p)] == p);
                        done[p]++
                    :: else
                    fi
                }
                atomic { state1 = OUT; member1 = false }
            :: else
            fi
        :: else
        fi
    od
}

init {
    byte i;
    atomic {
        run producer();
        run steady();
        run laggard();
        run monitor()
    };
    _nr_pr == 1;
    for (i : 0 .. ITEMS - 1) {
        assert(claims[i] == 1);
        assert(done[i] >= 1)
    }
}
