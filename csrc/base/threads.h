/* A pool of threads for one caller at a time, and a lock. */
#ifndef ONEBIT_BASE_THREADS_H
#define ONEBIT_BASE_THREADS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct onebit_threads onebit_threads;

/* One share of a task: the part `index` of `count`, 0 <= index < count. Returns whether there was anything to
 * do in it. */
typedef bool (*onebit_task)(void *context, unsigned index, unsigned count);

/* A pool of `threads` threads, the caller of onebit_threads_run included, so 1 starts none. They compute in
 * the default floating-point environment, whatever the caller's is. Whoever is free takes the next share, the
 * caller too, unless each thread has its `own` share: then thread i does share i, for tests that must see
 * every thread at work. NULL when threads is not in 1..65535 or when the system refuses memory or a thread.
 */
onebit_threads *onebit_threads_create(unsigned threads, bool own);
/* Joins the threads. NULL is allowed. No run may be in progress. */
void onebit_threads_destroy(onebit_threads *pool);

/* Runs every share of the task, one a thread, and returns when all are done. Allocates nothing, except
 * for the first run in a forked child, which has to start its own threads (where they cannot be had it
 * runs all shares itself: the results are the same). The caller has entered the default floating-point
 * environment. One caller at a time. */
void onebit_threads_run(onebit_threads *pool, onebit_task task, void *context);

/* shares[i]: how many shares with anything to do thread i has done so far; thread 0 is the caller. */
void onebit_threads_shares(const onebit_threads *pool, uint64_t *shares);

typedef struct onebit_lock onebit_lock;
/* In a forked child a lock is free, even if another thread held it at the fork. */
onebit_lock *onebit_lock_create(void); /* NULL when memory is out */
void onebit_lock_destroy(onebit_lock *lock);
void onebit_lock_acquire(onebit_lock *lock);
void onebit_lock_release(onebit_lock *lock);

#endif
