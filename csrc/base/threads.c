#include "base/threads.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/float_env.h"

/* A waiting thread first spins, because the next op of a network follows within microseconds, then gives
 * its processor to others, and at last sleeps. */
enum { SPINS = 4000, YIELDS = 16, SHARE_BITS = 16 };

/* A thread of a pool, or its caller, which has no handle. */
typedef struct {
    onebit_threads *pool;
    unsigned index;
    pthread_t handle;
    _Atomic uint64_t done; /* shares with anything to do */
    char apart[64];        /* counters of two threads share no cache line */
} worker;

struct onebit_threads {
    unsigned threads;
    bool own;            /* thread i does share i */
    unsigned fork_count; /* forks seen when the threads were started: a child process has none of them */
    worker *workers;     /* [threads]; 0 is the caller */
    onebit_task task;
    void *context;
    _Atomic uint64_t board;   /* number of the newest task << SHARE_BITS | its next unclaimed share */
    _Atomic unsigned pending; /* shares not yet done */
    _Atomic int stop;
    _Atomic unsigned sleepers; /* workers asleep or about to be */
    _Atomic int caller_sleeps;
    pthread_mutex_t mutex;
    pthread_cond_t wake, done;
};

static _Atomic unsigned fork_count;

static void count_fork(void) {
    atomic_fetch_add(&fork_count, 1);
}

static void watch_forks(void) {
    pthread_atfork(NULL, NULL, count_fork);
}

static pthread_once_t forks_watched = PTHREAD_ONCE_INIT;

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static uint64_t newest(const onebit_threads *pool) {
    return atomic_load_explicit(&pool->board, memory_order_acquire) >> SHARE_BITS;
}

/* The sleeper counts itself under the mutex before it looks again, and the caller posts the task before it
 * looks for sleepers (all sequentially consistent): one of the two always sees the other. */
static void await_task(onebit_threads *pool, uint64_t seen) {
    for (int spin = 0; spin < SPINS + YIELDS; ++spin) {
        if (newest(pool) != seen)
            return;
        if (spin < SPINS)
            relax();
        else
            sched_yield();
    }
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->sleepers, 1);
    while (atomic_load(&pool->board) >> SHARE_BITS == seen)
        pthread_cond_wait(&pool->wake, &pool->mutex);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->mutex);
}

static void await_shares(onebit_threads *pool) {
    for (int spin = 0; spin < SPINS + YIELDS; ++spin) {
        if (atomic_load_explicit(&pool->pending, memory_order_acquire) == 0)
            return;
        if (spin < SPINS)
            relax();
        else
            sched_yield();
    }
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->caller_sleeps, 1);
    while (atomic_load(&pool->pending) != 0)
        pthread_cond_wait(&pool->done, &pool->mutex);
    atomic_store(&pool->caller_sleeps, 0);
    pthread_mutex_unlock(&pool->mutex);
}

static void run_share(worker *self, unsigned share) {
    onebit_threads *pool = self->pool;
    if (pool->task(pool->context, share, pool->threads))
        atomic_store_explicit(&self->done, atomic_load_explicit(&self->done, memory_order_relaxed) + 1,
                              memory_order_relaxed);
    if (atomic_fetch_sub(&pool->pending, 1) == 1 && atomic_load(&pool->caller_sleeps)) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_signal(&pool->done);
        pthread_mutex_unlock(&pool->mutex);
    }
}

/* Claims and runs shares of one task until none is left. Whoever comes first takes a share, the caller too:
 * on a busy machine nobody waits for a thread that the system has not woken yet. A claim succeeds for the
 * newest task only, and that task stands until its last share is done, so a late worker touches nothing.
 * Where each has its own share no task ends without each: whoever sees one is in time for it. */
static void run_shares(worker *self, uint64_t number) {
    onebit_threads *pool = self->pool;
    if (pool->own) {
        run_share(self, self->index);
        return;
    }
    uint64_t board = atomic_load(&pool->board);
    for (;;) {
        unsigned share = (unsigned)(board & ((1u << SHARE_BITS) - 1));
        if (board >> SHARE_BITS != number || share >= pool->threads)
            return;
        if (!atomic_compare_exchange_weak(&pool->board, &board, board + 1))
            continue;
        run_share(self, share);
        board = atomic_load(&pool->board);
    }
}

static void *work(void *argument) {
    worker *self = argument;
    onebit_threads *pool = self->pool;
    onebit_float_env_enter(); /* for good: the environment of the thread's maker is not to be felt */
    for (uint64_t seen = 0;;) {
        await_task(pool, seen);
        seen = newest(pool); /* before the look at stop: the post that follows a stop is no task */
        if (atomic_load(&pool->stop))
            return NULL;
        run_shares(self, seen);
    }
}

/* Posts the next task, all of whose shares are free, and wakes who sleeps; returns its number. */
static uint64_t post(onebit_threads *pool) {
    uint64_t number = newest(pool) + 1;
    atomic_store(&pool->board, number << SHARE_BITS);
    if (atomic_load(&pool->sleepers) == 0)
        return number;
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
    return number;
}

/* Starts threads from a clean state; returns how many run. Signals stay with the caller's own threads. */
static unsigned start_workers(onebit_threads *pool) {
    atomic_init(&pool->board, 0);
    atomic_init(&pool->pending, 0);
    atomic_init(&pool->stop, 0);
    atomic_init(&pool->sleepers, 0);
    atomic_init(&pool->caller_sleeps, 0);
    pool->fork_count = atomic_load(&fork_count);
    if (pthread_mutex_init(&pool->mutex, NULL) || pthread_cond_init(&pool->wake, NULL) ||
        pthread_cond_init(&pool->done, NULL))
        return 0;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    unsigned started = 0;
    while (started + 1 < pool->threads) {
        worker *next = &pool->workers[started + 1];
        if (pthread_create(&next->handle, NULL, work, next) != 0)
            break;
        ++started;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

static void stop_workers(onebit_threads *pool, unsigned started) {
    atomic_store(&pool->stop, 1);
    post(pool);
    for (unsigned i = 0; i < started; ++i)
        pthread_join(pool->workers[i + 1].handle, NULL);
    pthread_mutex_destroy(&pool->mutex);
    pthread_cond_destroy(&pool->wake);
    pthread_cond_destroy(&pool->done);
}

onebit_threads *onebit_threads_create(unsigned threads, bool own) {
    pthread_once(&forks_watched, watch_forks);
    if (threads < 1 || threads >= 1u << SHARE_BITS)
        return NULL;
    onebit_threads *pool = calloc(1, sizeof *pool);
    if (!pool)
        return NULL;
    pool->threads = threads;
    pool->own = own;
    pool->workers = calloc(threads, sizeof *pool->workers);
    if (!pool->workers) {
        free(pool);
        return NULL;
    }
    for (unsigned i = 0; i < threads; ++i)
        pool->workers[i].pool = pool, pool->workers[i].index = i;
    if (threads == 1)
        return pool;
    unsigned started = start_workers(pool);
    if (started + 1 < threads) {
        stop_workers(pool, started);
        free(pool->workers);
        free(pool);
        return NULL;
    }
    return pool;
}

void onebit_threads_destroy(onebit_threads *pool) {
    if (!pool)
        return;
    if (pool->threads > 1 && pool->fork_count == atomic_load(&fork_count))
        stop_workers(pool, pool->threads - 1);
    free(pool->workers);
    free(pool);
}

/* After a fork the child has the pool's memory but none of its threads, and the mutex may be locked for
 * ever by one that is gone: start anew. */
static void revive_after_fork(onebit_threads *pool) {
    unsigned started = start_workers(pool);
    if (started + 1 == pool->threads)
        return;
    stop_workers(pool, started);
    pool->fork_count = atomic_load(&fork_count) - 1;
}

void onebit_threads_run(onebit_threads *pool, onebit_task task, void *context) {
    if (pool->threads == 1) {
        task(context, 0, 1);
        return;
    }
    if (pool->fork_count != atomic_load_explicit(&fork_count, memory_order_relaxed))
        revive_after_fork(pool);
    if (pool->fork_count != atomic_load_explicit(&fork_count, memory_order_relaxed)) {
        for (unsigned index = 0; index < pool->threads; ++index)
            task(context, index, pool->threads);
        return;
    }
    pool->task = task;
    pool->context = context;
    atomic_store(&pool->pending, pool->threads);
    run_shares(&pool->workers[0], post(pool));
    await_shares(pool);
}

void onebit_threads_shares(const onebit_threads *pool, uint64_t *shares) {
    for (unsigned i = 0; i < pool->threads; ++i)
        shares[i] = atomic_load_explicit(&pool->workers[i].done, memory_order_relaxed);
}

struct onebit_lock {
    pthread_mutex_t mutex;
    _Atomic unsigned forks; /* fork_count when the mutex was made; RENEWING while it is made anew */
};

enum { RENEWING = UINT_MAX };

onebit_lock *onebit_lock_create(void) {
    pthread_once(&forks_watched, watch_forks);
    onebit_lock *lock = malloc(sizeof *lock);
    if (lock && pthread_mutex_init(&lock->mutex, NULL) != 0) {
        free(lock);
        return NULL;
    }
    if (lock)
        atomic_init(&lock->forks, atomic_load(&fork_count));
    return lock;
}

void onebit_lock_destroy(onebit_lock *lock) {
    if (!lock)
        return;
    pthread_mutex_destroy(&lock->mutex);
    free(lock);
}

/* In a forked child the mutex may be held by a thread of the parent, which the child does not have: the
 * child's first taker makes it anew, and those that come meanwhile wait for that. */
static void renew_after_fork(onebit_lock *lock, unsigned now) {
    unsigned forks = atomic_load(&lock->forks);
    if (forks != now && forks != RENEWING && atomic_compare_exchange_strong(&lock->forks, &forks, RENEWING)) {
        pthread_mutex_init(&lock->mutex, NULL);
        atomic_store(&lock->forks, now);
    }
    while (atomic_load(&lock->forks) != now)
        sched_yield();
}

void onebit_lock_acquire(onebit_lock *lock) {
    unsigned now = atomic_load_explicit(&fork_count, memory_order_relaxed);
    if (atomic_load_explicit(&lock->forks, memory_order_acquire) != now)
        renew_after_fork(lock, now);
    pthread_mutex_lock(&lock->mutex);
}

void onebit_lock_release(onebit_lock *lock) {
    pthread_mutex_unlock(&lock->mutex);
}
