/* A pool of threads for one caller at a time, and a lock. */
#ifndef ONEBIT_BASE_THREADS_H
#define ONEBIT_BASE_THREADS_H

enum { ONEBIT_MAX_THREADS = 256 };

typedef struct onebit_threads onebit_threads;

/* One share of a task: the part `index` of `count`, 0 <= index < count. */
typedef void (*onebit_task)(void *context, unsigned index, unsigned count);

/* A pool of `threads` threads, the caller of onebit_threads_run included, so 1 starts none.
 * NULL when threads is not in 1..ONEBIT_MAX_THREADS or when the system refuses memory or a thread. */
onebit_threads *onebit_threads_create(unsigned threads);
/* Joins the threads. NULL is allowed. No run may be in progress. */
void onebit_threads_destroy(onebit_threads *pool);

/* Runs every share of the task, one a thread, and returns when all are done. Allocates nothing, except
 * for the first run in a forked child, which has to start its own threads (where they cannot be had it
 * runs all shares itself: the results are the same). One caller at a time. */
void onebit_threads_run(onebit_threads *pool, onebit_task task, void *context);

typedef struct onebit_lock onebit_lock;
/* In a forked child a lock is free, even if another thread held it at the fork. */
onebit_lock *onebit_lock_create(void); /* NULL when memory is out */
void onebit_lock_destroy(onebit_lock *lock);
void onebit_lock_acquire(onebit_lock *lock);
void onebit_lock_release(onebit_lock *lock);

#endif
