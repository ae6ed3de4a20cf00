/* Work that several threads do at once: see parallel.c. */
#ifndef HPCDATA_PARALLEL_H
#define HPCDATA_PARALLEL_H
#include <stdint.h>

enum { MAX_JOB_BYTES = 160 };

/* Does items `first` to `stop` - 1 of a job, whatever other threads do of it at the same time. In a forked child items
 * of a job that was left are done once more, so it writes nothing that it reads. */
typedef void (*Work)(const void *job, int64_t first, int64_t stop);

/* All items of a job that is described in `job_bytes` and writes `num_bytes`, in this thread and in up to `num_threads`
 * - 1 others. `may_leave`: the caller may leave it to the others for now. Returns 0 when it is done, or the number of
 * the job that is left to them: until `finish` was called with it, nobody touches what it reads and writes. */
__attribute__((visibility("hidden"))) int64_t in_parallel(Work work, const void *job, int64_t job_bytes,
                                                          int64_t num_items, int64_t num_bytes, int64_t num_threads,
                                                          int may_leave);

/* A thread takes part where there are as many bytes for each; returns what it was. For tests of small batches. */
int64_t set_min_bytes_each(int64_t num_bytes);

/* Returns when the job that was left is done; a negative number is that of any. In any thread, also in a forked child,
 * and as often as one likes. */
int64_t finish(int64_t number);

#endif
