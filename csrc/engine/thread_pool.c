/* Thread pools as the public interface has them: threads, and a lock around each run of the engines on them.
 */
#include <stdlib.h>

#include "engine/internal.h"

onebit_status onebit_thread_pool_create(uint32_t threads, onebit_sharing sharing, onebit_thread_pool **pool) {
    if (!pool)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "there is no place to store the pool: it is NULL");
    *pool = NULL;
    if (threads < 1 || threads > ONEBIT_MAX_THREADS)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "threads is %u; it must be 1 .. %d", (unsigned)threads,
                           ONEBIT_MAX_THREADS);
    if ((unsigned)sharing > ONEBIT_SHARE_ALWAYS)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "there is no sharing %d", (int)sharing);
    onebit_thread_pool *made = calloc(1, sizeof *made);
    if (!made)
        return onebit_fail(ONEBIT_ERROR_MEMORY, "the system refused memory for a pool");
    atomic_init(&made->references, 1);
    made->count = threads;
    made->sharing = sharing;
    made->lock = onebit_lock_create();
    made->threads = made->lock ? onebit_threads_create(threads, sharing == ONEBIT_SHARE_ALWAYS) : NULL;
    if (!made->threads) {
        onebit_thread_pool_release(made);
        return onebit_fail(ONEBIT_ERROR_MEMORY, "the system refused %u threads", (unsigned)threads);
    }
    *pool = made;
    return ONEBIT_OK;
}

void onebit_thread_pool_release(onebit_thread_pool *pool) {
    if (!pool || atomic_fetch_sub(&pool->references, 1) != 1)
        return;
    onebit_threads_destroy(pool->threads);
    onebit_lock_destroy(pool->lock);
    free(pool);
}

onebit_status onebit_thread_pool_shares(const onebit_thread_pool *pool, uint64_t *shares) {
    if (!pool || !shares)
        return onebit_fail(ONEBIT_ERROR_ARGUMENT, "the pool or the place for the answer is NULL");
    onebit_threads_shares(pool->threads, shares);
    return ONEBIT_OK;
}
