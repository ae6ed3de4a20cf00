/* A few threads that help whoever copies a large batch, for some ten microseconds at a time.
 *
 * The caller publishes a job and works on it itself, chunk by chunk; a helper that is awake takes a seat, and chunks.
 * Only helpers that are at a chunk when none is left are waited for, so one that comes late costs nothing. They look
 * out for the next job for a moment, as waking a thread takes as long as copying a batch, and then sleep; where batches
 * come more seldom, as in a training, they sleep at once.
 *
 * There is one job at a time. A caller that finds another one's does its own alone; one that finds a job that was left
 * to the helpers ends it first. Helpers start with the first job that is large enough, take no signals, and end with
 * the process. A forked child has none of them and starts its own; a job that was left is done again there. */
#define _GNU_SOURCE
#include "parallel.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

typedef int64_t i64;

enum { CHUNKS_EACH = 4, MAX_HELPERS = 7, PAUSES = 64, A_ROW = 20, LOOK_OUT_NS = 1000 * 1000 };

enum { FREE, TAKEN, LEFT, ENDING }; /* no job; its caller is at it; it was left; somebody ends one that was left */

static atomic_llong min_bytes_each = 256 << 10; /* waking a thread for less is not worth it */

static struct {
    atomic_int state; /* who makes it TAKEN or ENDING has the job, and may write what stands here next */
    int num_helpers;  /* that were started */
    Work work;        /* of the job: helpers read it, and what follows, with a seat */
    _Alignas(16) char job[MAX_JOB_BYTES];
    i64 num_items, per_chunk;
    atomic_llong next;  /* item that nobody has */
    atomic_int seats;   /* of the job that nobody has; 0 or less: there are none */
    atomic_int inside;  /* helpers with a seat, and those that are about to find that there is none */
    atomic_llong num_jobs;
    pthread_mutex_t lock; /* of those who sleep */
    pthread_cond_t is_there;
    atomic_int asleep;
} crew = {.lock = PTHREAD_MUTEX_INITIALIZER, .is_there = PTHREAD_COND_INITIALIZER};

static inline void pause_a_little(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static i64 now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (i64)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void take_chunks(void) {
    for (i64 first; (first = atomic_fetch_add(&crew.next, crew.per_chunk)) < crew.num_items;) {
        i64 stop = first + crew.per_chunk;
        crew.work(crew.job, first, stop < crew.num_items ? stop : crew.num_items);
    }
}

/* How many jobs there were, once that is not `seen`. It looks out where many in a row came soon enough for that: more
 * than one batch has. */
static i64 wait_for_a_job(i64 seen) {
    static _Thread_local i64 num_soon;
    i64 found, begun = now_ns(), until = num_soon > A_ROW ? begun + LOOK_OUT_NS : begun;
    while (now_ns() < until)
        for (int pause = 0; pause < PAUSES; pause++) {
            if ((found = atomic_load(&crew.num_jobs)) != seen) return found;
            pause_a_little();
        }
    pthread_mutex_lock(&crew.lock);
    atomic_fetch_add(&crew.asleep, 1); /* and then looks: who brings a job counts it, and then looks here */
    while ((found = atomic_load(&crew.num_jobs)) == seen) pthread_cond_wait(&crew.is_there, &crew.lock);
    atomic_fetch_sub(&crew.asleep, 1);
    pthread_mutex_unlock(&crew.lock);
    num_soon = now_ns() - begun < LOOK_OUT_NS ? num_soon + 1 : 0;
    return found;
}

static void *help(void *nothing) {
    for (i64 seen = 0;;) {
        seen = wait_for_a_job(seen);
        atomic_fetch_add(&crew.inside, 1); /* and then a seat: who ends a job takes the seats, and then looks here */
        if (atomic_fetch_sub(&crew.seats, 1) > 0) take_chunks();
        atomic_fetch_sub(&crew.inside, 1);
    }
    return nothing;
}

/* A child has the memory of its parent, in whatever state that was, and none of its threads but this one, which is not
 * in here. */
static void forget_the_helpers(void) {
    static const pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static const pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
    int state = atomic_load(&crew.state);
    crew.lock = mutex;
    crew.is_there = condition;
    crew.num_helpers = 0;
    atomic_store(&crew.seats, 0);
    atomic_store(&crew.inside, 0);
    atomic_store(&crew.asleep, 0);
    atomic_store(&crew.next, 0); /* chunks may be half done */
    atomic_store(&crew.state, state == LEFT || state == ENDING ? LEFT : FREE);
}

static void look_out_for_forks(void) { pthread_atfork(NULL, NULL, forget_the_helpers); }

/* Signals are for threads of the interpreter; faults are those of whoever makes them. */
static int start_a_helper(void) {
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    sigset_t every, before;
    pthread_t thread;
    sigfillset(&every);
    for (unsigned fault = 0; fault < sizeof faults / sizeof *faults; fault++) sigdelset(&every, faults[fault]);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    int failed = pthread_create(&thread, NULL, help, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!failed) {
#ifdef __linux__
        pthread_setname_np(thread, "hpcdata-copy");
#endif
        pthread_detach(thread);
    }
    return !failed;
}

static void publish(Work work, const void *job, i64 job_bytes, i64 num_items, i64 num_helpers) {
    i64 per_chunk = num_items / (CHUNKS_EACH * (num_helpers + 1));
    crew.work = work;
    memcpy(crew.job, job, (size_t)job_bytes);
    crew.num_items = num_items;
    crew.per_chunk = per_chunk > 0 ? per_chunk : 1;
    atomic_store(&crew.next, 0);
    atomic_store(&crew.seats, (int)num_helpers);
    atomic_fetch_add(&crew.num_jobs, 1);
    if (atomic_load(&crew.asleep)) {
        pthread_mutex_lock(&crew.lock);
        for (i64 helper = 0; helper < num_helpers; helper++) pthread_cond_signal(&crew.is_there);
        pthread_mutex_unlock(&crew.lock);
    }
}

static void end_the_job(void) {
    take_chunks();
    atomic_store(&crew.seats, 0);
    for (int pause = 0; atomic_load(&crew.inside); pause++)
        if (pause < PAUSES) pause_a_little();
        else sched_yield(); /* its core may be ours */
    atomic_store(&crew.state, FREE);
}

static int take(int state, int as) { return atomic_compare_exchange_strong(&crew.state, &state, as); }

i64 in_parallel(Work work, const void *job, i64 job_bytes, i64 num_items, i64 num_bytes, i64 num_threads,
                int may_leave) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    i64 num_helpers = num_threads - 1, most = num_bytes / atomic_load(&min_bytes_each) - 1, number = 0;
    if (num_helpers > MAX_HELPERS) num_helpers = MAX_HELPERS;
    if (num_helpers > most) num_helpers = most;
    if (num_helpers > num_items - 1) num_helpers = num_items - 1; /* none: `work` is called all the same */
    if (num_helpers > 0) {
        pthread_once(&once, look_out_for_forks);
        if (take(LEFT, ENDING)) end_the_job();
    }
    if (num_helpers < 1 || job_bytes > MAX_JOB_BYTES || !take(FREE, TAKEN)) {
        work(job, 0, num_items);
        return 0;
    }
    while (crew.num_helpers < num_helpers && start_a_helper()) crew.num_helpers++;
    publish(work, job, job_bytes, num_items, num_helpers);
    if (may_leave && crew.num_helpers) {
        number = atomic_load(&crew.num_jobs);
        atomic_store(&crew.state, LEFT);
    } else end_the_job();
    return number;
}

i64 set_min_bytes_each(i64 num_bytes) { return atomic_exchange(&min_bytes_each, num_bytes); }

i64 finish(i64 number) {
    for (int pause = 0;; pause++) {
        int state = atomic_load(&crew.state);
        if (number < 0 ? state != LEFT && state != ENDING : state == FREE || atomic_load(&crew.num_jobs) != number)
            return 0;
        if (take(LEFT, ENDING)) end_the_job();
        else if (pause < PAUSES) pause_a_little();
        else sched_yield();
    }
}
