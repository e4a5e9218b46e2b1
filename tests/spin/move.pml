/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A connection that goes from its home to a guest domain and back (src/sockets/move.c), while packets arrive at home. Messages and packets that
 * one worker hands over to the other stay in order. No packet may be applied where the connection is not, or its peer would be reset, and none may get lost on
 * the way; the order of packets that cross with a move is not promised.
 */
#define PACKETS 4
#define MOVES 3
#define QUEUE 8

mtype = { CONNECTION, PACKET, LEFT };
chan to_home = [QUEUE] of { mtype };
chan to_guest = [QUEUE] of { mtype };
byte wire = PACKETS; /* packets that have not arrived yet */
byte applied, moves;
bool home_has = true, guest_has;
bool home_passes; /* home's entry: the guest has it */
bool guest_returns; /* the guest's: it is on its way home */

active proctype home()
{
end:
    do
    :: atomic { wire > 0 ->
        wire--;
        if
        :: home_has -> applied++
        :: else -> assert(home_passes); to_guest!PACKET
        fi }
    :: atomic { home_has && moves < MOVES ->
        moves++;
        home_has = false;
        home_passes = true; /* gives it away */
        to_guest!CONNECTION }
    :: atomic { to_home?CONNECTION ->
        home_has = true;
        home_passes = false; /* the connection takes the entry's place */
        to_guest!LEFT }
    :: atomic { to_home?PACKET ->
        if
        :: home_has -> applied++
        :: else -> assert(home_passes); to_guest!PACKET
        fi }
    od
}

active proctype guest()
{
end:
    do
    :: atomic { to_guest?CONNECTION ->
        guest_has = true;
        guest_returns = false }
    :: atomic { to_guest?PACKET ->
        if
        :: guest_has -> applied++
        :: else -> assert(guest_returns); to_home!PACKET
        fi }
    :: atomic { guest_has && moves < MOVES ->
        moves++;
        guest_has = false;
        guest_returns = true; /* leaves an entry behind */
        to_home!CONNECTION }
    :: atomic { to_guest?LEFT ->
        guest_returns = false }
    od
}

active proctype monitor()
{
    timeout -> assert(applied == PACKETS && (home_has || guest_has) && !guest_returns)
}
