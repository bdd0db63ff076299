/* nonce_ledger.pml - the reservation of long-term nonces, for Spin. No process of ours: run by check.py in this folder.
 * See docs/protocol.md §6. What must never happen: a counter used twice under one nonce key.
 *
 * Every interleaving is tried of: vaults that start, reserve and issue; a disk that writes when it likes, tears and fails;
 * kills and power cuts between any two system calls; a second vault with the same long-term key; old copies of the state
 * put back; a clock that steps. All of it bounded by the numbers below, and small: R = 1.
 *
 * Promises (assertions, by number):
 *   1  no counter is issued twice under one nonce key, by whichever vault
 *   2  a counter is issued only below a bound that is durable at that moment
 *   3  the durable bound of a file never goes down, but by a restore or by rot
 *   4  after opening (a restored state, too) the nonce key is fresh, or the counter lies above all issued under it
 *   5  crashes and failing system calls alone never damage both slots: the vault opens
 *
 * The model and vaultd/nonce_ledger.cc, part by part:
 *   SLOT, DAMAGED          Slot, encode(), decode(): a slot is whole or damaged (its checksum covers all of it). Of NonceFacts
 *                          only `place` is here: `keyId` leads to the same suspect().
 *   readState              readState(), down to `bound_ = next_`; suspicion = suspect(): a fresh instance id
 *   applyClock             applyClock(), without the ten years: that guards against waste, not against repetition
 *   writeSlot              writeSlot(): disk_->write (here: all, nothing, a part), disk_->sync (all, or an error)
 *   the body of vault      open(): readState, its writeSlot(newest), refill(); then draw() for ever
 *   refill                 refill() and store(); END is END
 *   poisoned               poison(): nothing is issued until the process is gone
 *   the lock in vault      lock() in vaultd/nonce_file.cc
 *   instances, issued      freshInstance(), and what an observer with the key would see. The nonce key is a function of the
 *                          long-term secret, which all vaults here share, and the instance id: so it is the instance id here.
 *   init                   newImage() in fill() in vaultd/nonce_file.cc, once for each file
 *
 * Left out, because the ledger can't see it and the nonce's random half covers it: a machine cloned while it runs. And a disk
 * that reports success for what it dropped: no rule survives that.
 *
 * A mutant is chosen by -DNAME (the #ifdef's below); check.py lists each with the promise that it must break.
 */

#ifndef VAULTS   /* processes; each has a file of its own, the second may try the first's as well */
#define VAULTS 1
#endif
#ifndef LIVES    /* starts, of all vaults together */
#define LIVES 3
#endif
#ifndef ERRORS   /* writes and syncs that fail */
#define ERRORS 0
#endif
#ifndef ROT      /* slots that decay while nobody uses the file */
#define ROT 0
#endif
#ifndef RESTORES /* copies of a state put back, or to the other vault's place */
#define RESTORES 0
#endif
#ifndef STEPS    /* of the clock */
#define STEPS 0
#endif
/* CALM: no power cuts, and a disk that does at once what it is told: for worlds whose troubles are others. */
#ifndef END
#define END 8
#endif
#ifndef PROMISES
#define PROMISES 31
#endif

#define R 1
#define promise(number, holds) assert((PROMISES >> (number - 1)) % 2 == 0 || (holds))
#define max(a, b) ((a) > (b) -> (a) : (b))

/* A slot in one number. */
#define DAMAGED 0
#define SLOT(generation, bound, wall, instance, place) \
  (1 + 2 * (generation) + 64 * (bound) + 2048 * (wall) + 16384 * (instance) + 262144 * (place))
#define GENERATION(slot) ((slot) / 2 % 32)
#define BOUND(slot) ((slot) / 64 % 32)      /* 0 in a damaged slot */
#define WALL(slot) ((slot) / 2048 % 8)
#define INSTANCE(slot) ((slot) / 16384 % 16)
#define PLACE(slot) ((slot) / 262144)

/* Slots 2 f and 2 f + 1 are those of file f. What a reader sees, what a power cut leaves, and where they may differ. */
int cached[2 * VAULTS];
int durable[2 * VAULTS];
bool dirty[2 * VAULTS];
byte place[VAULTS];    /* machine, inode and birth of the file */
byte reserved[VAULTS]; /* when the last bound was written, for IN_PLACE */
int copy[2];           /* somebody's backup */
bool copied;

byte clock = 1;
byte places, instances, lives, errors, rot, restores, steps;
int issued[VAULTS + LIVES]; /* a set of counters for each instance */

byte file[VAULTS]; /* 1 + the file that a vault has open and locked; 0: it doesn't run */
#define unused(f) (file[0] != 1 + (f) && file[VAULTS - 1] != 1 + (f))

#ifdef NO_LOCK
#define mayOpen(f) true
#else
#define mayOpen(f) unused(f)
#endif

#define durableBound(f) max(BOUND(durable[2 * (f)]), BOUND(durable[2 * (f) + 1]))
#define floor(wall) ((wall) == 0 -> 0 : 2 * R * ((wall) - 1))

/* --- the disk ------------------------------------------------------------------------------------------------------- */

inline settle(slot, content) { /* `content` reaches the platter */
  d_step {
    before = durableBound((slot) / 2);
    durable[slot] = content;
    printf("slot %d on the disk: generation %d, bound %d\n", slot, GENERATION(content), BOUND(content));
    promise(3, rot > 0 || durableBound((slot) / 2) >= before);
    before = 0;
  }
}

/* A slot that was on its way: it arrives, it doesn't, or some of its sectors do. The same bytes again can't tear. */
inline maybeSettle(slot) {
  if
  :: dirty[slot] && durable[slot] != cached[slot] -> settle(slot, cached[slot])
  :: dirty[slot] && durable[slot] != cached[slot] -> settle(slot, DAMAGED)
  :: true
  fi
  dirty[slot] = false
}

/* As Linux does: after a failure the pages are clean, whatever became of them, and the cache still shows them. */
inline syncFails(f) {
  maybeSettle(2 * (f));
  maybeSettle(2 * (f) + 1);
  errors++
}

inline syncWorks(f) {
  if :: dirty[2 * (f)] -> settle(2 * (f), cached[2 * (f)]); dirty[2 * (f)] = false :: else fi;
  if :: dirty[2 * (f) + 1] -> settle(2 * (f) + 1, cached[2 * (f) + 1]); dirty[2 * (f) + 1] = false :: else fi
}

/* --- a vault -------------------------------------------------------------------------------------------------------- */

inline applyClock() {
  if :: clock > wall -> wall = clock :: else fi
}

inline readState() {
  d_step {
    newest = 2 * f + (cached[2 * f + 1] != DAMAGED && GENERATION(cached[2 * f + 1]) > GENERATION(cached[2 * f]));
#ifdef ONE_SLOT
    newest = 2 * f;
#endif
    older = newest ^ 1;
    promise(5, rot > 0 || cached[newest] != DAMAGED);
    generation = GENERATION(cached[newest]);
    wall = WALL(cached[newest]);
    instance = INSTANCE(cached[newest]);
    next = BOUND(cached[newest]);

    suspicion = false;
#ifndef KEEPS_KEY_WHEN_DAMAGED
    if :: cached[older] == DAMAGED -> suspicion = true :: else fi;
#endif
    if
    :: cached[older] != DAMAGED ->
       suspicion = suspicion || generation - GENERATION(cached[older]) != 1 ||
                   (INSTANCE(cached[older]) == instance && BOUND(cached[older]) > next);
       next = max(next, BOUND(cached[older]))
    :: else
    fi;
#ifndef KEEPS_KEY_WHEN_COPIED
    suspicion = suspicion || PLACE(cached[newest]) != place[f];
#endif
    suspicion = suspicion || clock < wall;
#ifdef ONE_SLOT
    suspicion = false;
#endif
    if :: suspicion -> instance = instances; instances++ :: else fi;
    applyClock();
#ifndef NO_FLOOR
    next = max(next, floor(wall));
#endif
    bound = next;
    printf("vault %d starts with file %d: counter %d, nonce key %d\n", v, f, next, instance);
    older = 0; suspicion = false
  }
}

/* Two system calls, and anything may happen between them. */
inline writeSlot(slot, content) {
  atomic {
    if
    :: cached[slot] = content; dirty[slot] = true
    :: errors < ERRORS -> errors++; printf("vault %d: its write fails\n", v); goto poisoned
    :: errors < ERRORS ->
       errors++; cached[slot] = (cached[slot] == content -> content : DAMAGED); dirty[slot] = true; printf("vault %d: a short write\n", v);
#ifndef IGNORES_SHORT_WRITES
       goto poisoned
#endif
    fi
  }
#ifndef NO_SYNC
  atomic {
    if
    :: syncWorks(f)
    :: errors < ERRORS -> printf("vault %d: its sync fails\n", v); syncFails(f);
#ifdef RETRIES_SYNC
       syncWorks(f)
#else
       goto poisoned
#endif
    fi
  }
#endif
}

inline refill() {
  atomic {
#ifdef IN_PLACE
    /* At most one reservation a second: on average fewer than 2 R counters. */
    clock > reserved[f];
    reserved[f] = clock;
#endif
    if :: next > END - 2 * R -> goto poisoned :: else fi;
    applyClock();
    generation++
  }
#ifdef ONE_SLOT
  writeSlot(2 * f, SLOT(generation, next + 2 * R, wall, instance, place[f]));
#else
  writeSlot(2 * f + generation % 2, SLOT(generation, next + 2 * R, wall, instance, place[f]));
#endif
  bound = next + 2 * R
}

inline issue() {
  d_step {
    printf("vault %d issues %d under nonce key %d\n", v, next, instance);
    promise(2, next < durableBound(f));
    promise(1, (issued[instance] >> next) % 2 == 0);
    issued[instance] = issued[instance] | (1 << next);
    next++
  }
}

proctype vault(byte v) {
  byte f, newest, older, before;
  byte next, bound, generation, wall, instance;
  bool suspicion;

down:
  atomic {
    if
    :: lives < LIVES && mayOpen(v) -> f = v
    :: lives < LIVES && v == 1 && mayOpen(0) -> f = 0
    fi;
    file[v] = 1 + f;
    lives++
  }
  {
#ifdef LITERAL_CURVE_TUN
    /* "Whenever the counter C passes a multiple of B we store C + 2 B on disk, and start from there": B = 2, slot 0 alone. */
    atomic { next = BOUND(cached[2 * f]); printf("vault %d starts: counter %d\n", v, next) }
    do
    :: atomic {
         next < END -> issue();
         if
         :: next % 2 == 0 -> cached[2 * f] = SLOT(0, next + 4, 1, 0, 0); dirty[2 * f] = true
         :: else
         fi
       }
    od;
#else
    readState();
    promise(4, (issued[instance] >> next) == 0);
#ifndef NO_REWRITE
    writeSlot(newest, cached[newest]);
#endif
    refill();
    do
    :: atomic { bound - next > R -> issue() }
    :: bound - next <= R -> refill()
    od;
#endif
poisoned:
    false
  } unless {
    atomic {
      file[v] == 0;
      f = 0; newest = 0; next = 0; bound = 0; generation = 0; wall = 0; instance = 0;
      goto down
    }
  }
}

/* --- what happens to them ------------------------------------------------------------------------------------------- */

#ifndef CALM
proctype disk(byte f) {
  byte before;
  do
  /* In its own time and order. */
  :: atomic { dirty[2 * f] -> settle(2 * f, cached[2 * f]); dirty[2 * f] = false }
  :: atomic { dirty[2 * f + 1] -> settle(2 * f + 1, cached[2 * f + 1]); dirty[2 * f + 1] = false }
  /* It fails with nobody there to be told. */
  :: atomic { errors < ERRORS && unused(f) && (dirty[2 * f] || dirty[2 * f + 1]) -> syncFails(f) }
  /* A slot decays. */
  :: atomic {
       rot < ROT && unused(f);
       rot++;
       if
       :: cached[2 * f] = DAMAGED; durable[2 * f] = DAMAGED; dirty[2 * f] = false
       :: cached[2 * f + 1] = DAMAGED; durable[2 * f + 1] = DAMAGED; dirty[2 * f + 1] = false
       fi
     }
  od
}
#endif

proctype crash(byte f) {
  byte before;
  do
  :: atomic { file[0] == 1 + f -> printf("vault 0 is killed\n"); file[0] = 0 }
#if VAULTS > 1
  :: atomic { file[1] == 1 + f -> printf("vault 1 is killed\n"); file[1] = 0 }
#endif
#ifndef CALM
  :: atomic {
       !unused(f) || dirty[2 * f] || dirty[2 * f + 1];
       printf("a power cut\n");
       maybeSettle(2 * f);
       maybeSettle(2 * f + 1);
       cached[2 * f] = durable[2 * f];
       cached[2 * f + 1] = durable[2 * f + 1];
       if :: file[0] == 1 + f -> file[0] = 0 :: else fi;
#if VAULTS > 1
       if :: file[1] == 1 + f -> file[1] = 0 :: else fi
#endif
     }
#endif
  od
}

#if defined IN_PLACE && !defined WITHIN_A_SECOND
#define mayRestore(f) (clock > reserved[f])
#else
#define mayRestore(f) true
#endif

#if RESTORES > 0
proctype operator(byte f) {
  do
  :: atomic { !copied -> printf("file %d is copied\n", f); copied = true; copy[0] = cached[2 * f]; copy[1] = cached[2 * f + 1] }
  :: atomic {
       copied && restores < RESTORES && unused(f) && mayRestore(f);
#ifndef IN_PLACE
       place[f] = places;
       places++;
#endif
       printf("the copy is put into the place of file %d\n", f);
       restores++;
       cached[2 * f] = copy[0]; durable[2 * f] = copy[0]; dirty[2 * f] = false;
       cached[2 * f + 1] = copy[1]; durable[2 * f + 1] = copy[1]; dirty[2 * f + 1] = false
     }
  od
}
#endif

#if STEPS > 0
proctype time() {
  do
  :: atomic { steps < STEPS -> steps++; clock++ }
#ifndef IN_PLACE
  :: atomic { steps < STEPS && clock > 0 -> steps++; clock-- }
#endif
  od
}
#endif

init {
  byte f;
  atomic {
    for (f : 0 .. VAULTS - 1) {
      place[f] = places;
      cached[2 * f] = SLOT(2, 0, 1, instances, places);
      cached[2 * f + 1] = SLOT(1, 0, 1, instances, places);
      durable[2 * f] = cached[2 * f];
      durable[2 * f + 1] = cached[2 * f + 1];
#ifndef SHARED_INSTANCE
      instances++;
#endif
      places++
    }
    instances = VAULTS;
    for (f : 0 .. VAULTS - 1) {
      run vault(f);
#ifndef CALM
      run disk(f);
#endif
      run crash(f);
#if RESTORES > 0
      run operator(f);
#endif
    }
#if STEPS > 0
    run time();
#endif
    f = 0
  }
}
