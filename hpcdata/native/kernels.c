/* The inner loops of the loader, compiled. Each does what the NumPy code beside its caller does, and nothing else: see
 * compiled.py, writers.py and structs.py for what they are given. All of them check what they index before they touch
 * it, and return -1 when a place is outside of its array; those that write batches have then touched nothing.
 *
 * Rows of a shuffled batch come from all over the memory. What makes copying them fast is to ask for the next row while
 * this one is copied: the processor does not see by itself where it begins. */
#include "parallel.h"
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef int64_t i64;

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES(...) __attribute__((target_clones("default", __VA_ARGS__)))
#else
#define CLONES(...)
#endif
#if __GNUC__ >= 12
#define FOR_EACH_CPU CLONES("avx2", "arch=x86-64-v4")
#define FOR_EACH_CPU_THAT_MULTIPLIES CLONES("arch=x86-64-v4") /* 64 bits, in vectors */
#else
#define FOR_EACH_CPU CLONES("avx2")
#define FOR_EACH_CPU_THAT_MULTIPLIES
#endif
#define INLINE static inline __attribute__((always_inline))

enum { VERSION = 9, FAR = 16, LINE = 64, BLOCK_BYTES = 1 << 14, MOST_ROWS = 64 };

i64 kernels_version(void) { return VERSION; }

/* For what comes soon, not next: into the second cache, as it is too much for the first. */
INLINE void fetch(const char *from, i64 num_bytes) {
    const char *end = from + num_bytes;
    for (from -= (uintptr_t)from % LINE; from < end; from += LINE) __builtin_prefetch(from, 0, 2);
}

/* out = ids + value for `count` ids; out = value. */
#define DEFINE_COPY(NAME, IN, OUT)                                                                                     \
    INLINE void NAME(OUT *restrict out, const IN *restrict ids, i64 count, i64 value) {                                \
        const OUT added = (OUT)value;                                                                                  \
        for (i64 at = 0; at < count; at++) out[at] = (OUT)ids[at] + added;                                             \
    }
#define DEFINE_FILL(NAME, OUT)                                                                                         \
    INLINE void NAME(OUT *restrict out, i64 count, i64 value) {                                                        \
        const OUT element = (OUT)value;                                                                                \
        for (i64 at = 0; at < count; at++) out[at] = element;                                                          \
    }
#define DEFINE_COUNT(NAME, OUT)                                                                                        \
    INLINE void NAME(OUT *restrict out, i64 count, i64 first) {                                                        \
        for (i64 at = 0; at < count; at++) out[at] = (OUT)(first + at);                                                \
    }
DEFINE_COPY(copy_2_2, uint16_t, uint16_t)
DEFINE_COPY(copy_2_4, uint16_t, uint32_t)
DEFINE_COPY(copy_2_8, uint16_t, uint64_t)
DEFINE_COPY(copy_4_4, int32_t, uint32_t)
DEFINE_COPY(copy_4_8, int32_t, uint64_t)
DEFINE_FILL(fill_1, uint8_t)
DEFINE_FILL(fill_2, uint16_t)
DEFINE_FILL(fill_4, uint32_t)
DEFINE_FILL(fill_8, uint64_t)
DEFINE_COUNT(count_2, uint16_t)
DEFINE_COUNT(count_4, uint32_t)
DEFINE_COUNT(count_8, uint64_t)

#define IN_PARALLEL(WORK, NUM_ITEMS, NUM_BYTES)                                                                        \
    in_parallel(WORK, &all, sizeof all, NUM_ITEMS, NUM_BYTES, num_threads, may_leave != 0)

static int runs_fit(const i64 *at, const i64 *length, i64 num_runs, i64 size) {
    i64 is_outside = 0;
    for (i64 run = 0; run < num_runs; run++)
        is_outside |= at[run] < 0 || length[run] < 0 || length[run] > size - at[run];
    return !is_outside;
}

/* What can be copied to what: bytes of an id, 10 times, and of an element of out. */
static int is_pair(i64 pair) { return pair == 22 || pair == 24 || pair == 28 || pair == 44 || pair == 48; }

/* How many rows of so many bytes are asked for at a time, before the same number is copied. */
static i64 rows_of_block(i64 row_bytes) {
    i64 number = BLOCK_BYTES / (row_bytes > 0 ? row_bytes : 1);
    return number < 1 ? 1 : number > MOST_ROWS ? MOST_ROWS : number;
}

/* Row `rows[r]` of out (NULL: row r) = `length[r]` ids from `start[r]`, plus `shift`, and `pad` up to `width`. */
typedef struct {
    const void *ids;
    const i64 *start, *length, *rows;
    void *out;
    i64 pair, stride, width, shift, pad, block;
} Rows;

#define PLACE_ROWS(IN, OUT, COPY, FILL)                                                                                \
    const IN *ids = all.ids;                                                                                           \
    for (i64 row = first, fetched = first; row < stop; row++) {                                                        \
        OUT *to = (OUT *)all.out + (all.rows ? all.rows[row] : row) * all.stride;                                      \
        if (fetched - row <= all.block)                                                                                \
            for (i64 next = fetched + all.block; fetched < next && fetched < stop; fetched++)                          \
                fetch((const char *)(ids + all.start[fetched]), all.length[fetched] * (i64)sizeof(IN));                \
        COPY(to, ids + all.start[row], all.length[row], all.shift);                                                    \
        FILL(to + all.length[row], all.width - all.length[row], all.pad);                                              \
    }                                                                                                                  \
    return
FOR_EACH_CPU
void place_these_rows(const void *job, i64 first, i64 stop) {
    const Rows all = *(const Rows *)job;
    switch (all.pair) {
    case 22: { PLACE_ROWS(uint16_t, uint16_t, copy_2_2, fill_2); }
    case 24: { PLACE_ROWS(uint16_t, uint32_t, copy_2_4, fill_4); }
    case 28: { PLACE_ROWS(uint16_t, uint64_t, copy_2_8, fill_8); }
    case 44: { PLACE_ROWS(int32_t, uint32_t, copy_4_4, fill_4); }
    case 48: { PLACE_ROWS(int32_t, uint64_t, copy_4_8, fill_8); }
    }
}

i64 place_rows(const void *ids, i64 num_ids, i64 id_bytes, const i64 *start, const i64 *length, const i64 *rows,
               i64 num_rows, void *out, i64 out_bytes, i64 out_rows, i64 stride, i64 width, i64 shift, i64 pad,
               i64 num_threads, i64 may_leave) {
    const Rows all = {ids, start, length, rows, out, 10 * id_bytes + out_bytes, stride, width, shift, pad,
                      rows_of_block(width * id_bytes)};
    i64 is_outside = !runs_fit(start, length, num_rows, num_ids) || (!rows && num_rows > out_rows);
    for (i64 row = 0; row < num_rows; row++)
        is_outside |= length[row] > width || (rows && (rows[row] < 0 || rows[row] >= out_rows));
    if (is_outside || !is_pair(all.pair)) return -1;
    return IN_PARALLEL(place_these_rows, num_rows, num_rows * width * out_bytes);
}

/* Runs stand at `dest` - `base` in out, in this order, and do not overlap. */
static int runs_are_apart(const i64 *dest, const i64 *length, i64 num_runs, i64 base, i64 size) {
    i64 is_wrong = 0, end = 0;
    for (i64 run = 0; run < num_runs; run++) {
        i64 at = dest[run] - base;
        is_wrong |= at < end || at > size || length[run] < 0 || length[run] > size - at;
        end = at + length[run];
    }
    return !is_wrong;
}

/* Runs of out, and `pad` between, before and behind them. A run is `length` ids from `start`, plus `value`, or `value`
 * alone where `start` is negative or NULL. */
typedef struct {
    const void *ids;
    const i64 *start, *value, *dest, *length;
    void *out;
    i64 num_runs, pair, base, size, pad, block;
} Runs;

#define TILE(OUT, FILL, WRITE)                                                                                         \
    OUT *to = all.out;                                                                                                 \
    i64 end = first ? all.dest[first - 1] - all.base + all.length[first - 1] : 0, fetched = first;                     \
    (void)fetched;                                                                                                     \
    for (i64 run = first; run < stop; run++) {                                                                         \
        i64 at = all.dest[run] - all.base, length = all.length[run];                                                   \
        FILL(to + end, at - end, all.pad);                                                                             \
        WRITE;                                                                                                         \
        end = at + length;                                                                                             \
    }                                                                                                                  \
    if (stop == all.num_runs) FILL(to + end, all.size - end, all.pad);                                                 \
    return

#define PLACE_RUNS(IN, OUT, COPY, FILL)                                                                                \
    TILE(OUT, FILL, {                                                                                                  \
        const IN *ids = all.ids;                                                                                       \
        if (fetched - run <= all.block)                                                                                \
            for (i64 next = fetched + all.block; fetched < next && fetched < stop; fetched++)                          \
                if (all.start[fetched] >= 0)                                                                           \
                    fetch((const char *)(ids + all.start[fetched]), all.length[fetched] * (i64)sizeof(IN));            \
        if (all.start[run] < 0) FILL(to + at, length, all.value[run]);                                                 \
        else COPY(to + at, ids + all.start[run], length, all.value[run]);                                              \
    })
FOR_EACH_CPU
void place_these_runs(const void *job, i64 first, i64 stop) {
    const Runs all = *(const Runs *)job;
    switch (all.pair) {
    case 22: { PLACE_RUNS(uint16_t, uint16_t, copy_2_2, fill_2); }
    case 24: { PLACE_RUNS(uint16_t, uint32_t, copy_2_4, fill_4); }
    case 28: { PLACE_RUNS(uint16_t, uint64_t, copy_2_8, fill_8); }
    case 44: { PLACE_RUNS(int32_t, uint32_t, copy_4_4, fill_4); }
    case 48: { PLACE_RUNS(int32_t, uint64_t, copy_4_8, fill_8); }
    }
}

i64 place_runs(const void *ids, i64 num_ids, i64 id_bytes, const i64 *start, const i64 *value, const i64 *dest,
               const i64 *length, i64 num_runs, i64 base, void *out, i64 out_bytes, i64 size, i64 pad,
               i64 num_threads, i64 may_leave) {
    const Runs all = {ids, start, value, dest, length, out, num_runs, 10 * id_bytes + out_bytes, base, size, pad,
                      rows_of_block(size * id_bytes / (num_runs > 0 ? num_runs : 1))};
    i64 is_outside = !runs_are_apart(dest, length, num_runs, base, size);
    for (i64 run = 0; run < num_runs; run++) is_outside |= start[run] >= 0 && length[run] > num_ids - start[run];
    if (is_outside || !is_pair(all.pair)) return -1;
    return IN_PARALLEL(place_these_runs, num_runs, size * out_bytes);
}

/* One value for each run. */
#define FILL_RUNS(OUT, FILL) TILE(OUT, FILL, FILL(to + at, length, all.value[run]))
FOR_EACH_CPU
void fill_these_runs(const void *job, i64 first, i64 stop) {
    const Runs all = *(const Runs *)job;
    switch (all.pair) {
    case 1: { FILL_RUNS(uint8_t, fill_1); }
    case 2: { FILL_RUNS(uint16_t, fill_2); }
    case 4: { FILL_RUNS(uint32_t, fill_4); }
    case 8: { FILL_RUNS(uint64_t, fill_8); }
    }
}

i64 fill_runs(const i64 *value, const i64 *dest, const i64 *length, i64 num_runs, i64 base, void *out, i64 out_bytes,
              i64 size, i64 pad, i64 num_threads, i64 may_leave) {
    const Runs all = {NULL, NULL, value, dest, length, out, num_runs, out_bytes, base, size, pad, 0};
    if (!runs_are_apart(dest, length, num_runs, base, size)) return -1;
    if (out_bytes != 1 && out_bytes != 2 && out_bytes != 4 && out_bytes != 8) return -1;
    return IN_PARALLEL(fill_these_runs, num_runs, size * out_bytes);
}

/* Runs that count up from `value`. */
#define COUNT_RUNS(OUT, FILL, COUNT) TILE(OUT, FILL, COUNT(to + at, length, all.value[run]))
FOR_EACH_CPU
void count_these_runs(const void *job, i64 first, i64 stop) {
    const Runs all = *(const Runs *)job;
    switch (all.pair) {
    case 2: { COUNT_RUNS(uint16_t, fill_2, count_2); }
    case 4: { COUNT_RUNS(uint32_t, fill_4, count_4); }
    case 8: { COUNT_RUNS(uint64_t, fill_8, count_8); }
    }
}

i64 count_runs(const i64 *first, const i64 *dest, const i64 *length, i64 num_runs, i64 base, void *out, i64 out_bytes,
               i64 size, i64 pad, i64 num_threads, i64 may_leave) {
    const Runs all = {NULL, NULL, first, dest, length, out, num_runs, out_bytes, base, size, pad, 0};
    if (!runs_are_apart(dest, length, num_runs, base, size)) return -1;
    if (out_bytes != 2 && out_bytes != 4 && out_bytes != 8) return -1;
    return IN_PARALLEL(count_these_runs, num_runs, size * out_bytes);
}

/* All arrays of whole rows, one row after the other, while its ids are in the cache. Row r has `taken[r]` (NULL: all)
 * ids from `start[r]`, and `pad` behind them; or (`start` is NULL) its ids are there already. It consists of the runs
 * from `first_run[r]` up to `first_run[r + 1]`, which fill its `width` columns; `kind` says what they are. An array that
 * is NULL is not wanted; runs that are NULL are for ids alone. */
enum { VALID = 1, IMAGE = 2, TRAINED = 4, IGNORED_LABEL = -100 };

typedef struct {
    const void *from;
    const i64 *start, *taken, *first_run, *length, *kind;
    void *ids, *positions;
    uint64_t *labels;
    uint8_t *valid, *modality, *trained;
    i64 width, pair, pad, position_bytes, block;
} Columns;

INLINE void derive_row(const Columns *all, i64 row) {
    i64 at = row * all->width, number = 0;
    for (i64 run = all->first_run[row]; run < all->first_run[row + 1]; run++) {
        i64 length = all->length[run], kind = all->kind[run], is_valid = kind & VALID;
        if (all->labels && kind & TRAINED)
            memcpy(all->labels + at, (const uint64_t *)all->ids + at, (size_t)length * sizeof(uint64_t));
        else if (all->labels) fill_8(all->labels + at, length, IGNORED_LABEL);
        if (all->positions)
            switch (all->position_bytes + is_valid) {
            case 2: fill_2((uint16_t *)all->positions + at, length, 0); break;
            case 3: count_2((uint16_t *)all->positions + at, length, number); break;
            case 4: fill_4((uint32_t *)all->positions + at, length, 0); break;
            case 5: count_4((uint32_t *)all->positions + at, length, number); break;
            case 8: fill_8((uint64_t *)all->positions + at, length, 0); break;
            case 9: count_8((uint64_t *)all->positions + at, length, number); break;
            }
        if (all->valid) memset(all->valid + at, (int)is_valid, (size_t)length);
        if (all->modality) memset(all->modality + at, (kind & IMAGE) > 0, (size_t)length);
        if (all->trained) memset(all->trained + at, (kind & TRAINED) > 0, (size_t)length);
        number += is_valid ? length : 0;
        at += length;
    }
}

INLINE i64 num_taken(const Columns *all, i64 row) { return all->taken ? all->taken[row] : all->width; }

#define WRITE_ROWS(IN, OUT, COPY, FILL)                                                                                \
    const IN *ids = all.from;                                                                                          \
    for (i64 row = first, fetched = first; row < stop; row++) {                                                        \
        OUT *to = (OUT *)all.ids + row * all.width;                                                                    \
        i64 taken = num_taken(&all, row);                                                                              \
        if (fetched - row <= all.block)                                                                                \
            for (i64 next = fetched + all.block; fetched < next && fetched < stop; fetched++)                          \
                fetch((const char *)(ids + all.start[fetched]), num_taken(&all, fetched) * (i64)sizeof(IN));           \
        COPY(to, ids + all.start[row], taken, 0);                                                                      \
        FILL(to + taken, all.width - taken, all.pad);                                                                  \
        if (all.first_run) derive_row(&all, row);                                                                      \
    }                                                                                                                  \
    return
FOR_EACH_CPU
void write_these_rows(const void *job, i64 first, i64 stop) {
    const Columns all = *(const Columns *)job;
    switch (all.start ? all.pair : 0) {
    case 22: { WRITE_ROWS(uint16_t, uint16_t, copy_2_2, fill_2); }
    case 28: { WRITE_ROWS(uint16_t, uint64_t, copy_2_8, fill_8); }
    case 48: { WRITE_ROWS(int32_t, uint64_t, copy_4_8, fill_8); }
    }
    for (i64 row = first; row < stop; row++) derive_row(&all, row);
}

/* Whether the runs of these rows are there, and fill them. */
static int runs_fill_rows(const i64 *first_run, const i64 *length, i64 num_runs, i64 num_rows, i64 width) {
    for (i64 row = 0; row < num_rows; row++) {
        i64 left = width, run = first_run[row], stop = first_run[row + 1];
        if (run < 0 || stop > num_runs) return 0;
        for (; run < stop; run++) {
            if (length[run] < 0 || length[run] > left) return 0;
            left -= length[run];
        }
        if (left) return 0;
    }
    return 1;
}

/* The bytes of an element are those of ids, and of labels, which are made of them. */
i64 write_rows(const void *from, i64 num_ids, i64 id_bytes, const i64 *start, const i64 *taken, const i64 *first_run,
               const i64 *length, const i64 *kind, i64 num_runs, i64 num_rows, i64 width, void *ids, i64 out_bytes,
               i64 pad, void *labels, void *valid, void *modality, void *trained, void *positions, i64 position_bytes,
               i64 num_threads, i64 may_leave) {
    const Columns all = {from, start, taken, first_run, length, kind, ids, positions, labels, valid, modality, trained,
                         width, 10 * id_bytes + out_bytes, pad, position_bytes, rows_of_block(width * id_bytes)};
    i64 row_bytes = width * (out_bytes + (labels ? 8 : 0) + (positions ? position_bytes : 0) + (first_run ? 3 : 0));
    i64 is_outside = first_run ? !runs_fill_rows(first_run, length, num_runs, num_rows, width) : !start;
    for (i64 row = 0; start && row < num_rows; row++) {
        i64 number = num_taken(&all, row);
        is_outside |= start[row] < 0 || number < 0 || number > width || start[row] > num_ids - number;
    }
    if (is_outside || (start && all.pair != 22 && all.pair != 28 && all.pair != 48)) return -1;
    if (labels && out_bytes != 8) return -1;
    if (positions && position_bytes != 2 && position_bytes != 4 && position_bytes != 8) return -1;
    return IN_PARALLEL(write_these_rows, num_rows, num_rows * row_bytes);
}

/* Samples that are lined up (`Lineup` of sequences.py), and the bins that they stand in. Runs of row r of a bin are
 * those of sample `sample[r]`; of their ids, `skip[r]` are left out and `take[r]` are taken (NULL: all). Those that are
 * valid and have ids left are kept, in columns of `room`: see `Tiles` of compiled.py. `first_kept`: the first of them
 * in each bin, and how many there are. `edges`: [3, num_edges], bin, column and length of segments: rows, and the
 * padding behind them in bins with rows, none of length 0; `first_edge` as `first_kept`. `counted`: [num_bins + 1,
 * NUM_COUNTS], the account of the bins before each. */
typedef struct {
    i64 num_samples, num_spans, num_parts, has_bos, has_end, framed;
    i64 bos, unconditional, eos, boi, eoi, img_token_shift;
    i64 bos_trained, text_trained, boi_trained, image_trained, eoi_trained, eos_trained;
    const i64 *row, *part, *token, *taken;                /* of spans; rows are ascending */
    const i64 *head, *tail;                               /* NULL: none has */
    const i64 *first_token_of_part;
    const uint8_t *is_image, *has_loss;                   /* NULL: all texts have */
    const i64 *lead, *end, *left_out_images;              /* of samples */
    const uint8_t *is_unconditional, *too_long, *truncated;
    i64 *first_span; /* [num_samples + 1], to be filled in */
} Lineup;

typedef struct {
    i64 num_bins;
    const i64 *sample, *skip, *take, *first_row, *width;
} Bins;

typedef struct {
    i64 room, num_edges;
    i64 *runs, *first_kept, *edges, *first_edge, *counted;
} Tiles;

typedef struct {
    i64 kept, bin, column, segment;             /* of the batch */
    i64 offset, low, high, position, num_image; /* of the row */
} Place;

enum { LITERAL = -1, NUM_COUNTS = 7 };

INLINE int put(const Tiles *tiles, Place *at, i64 length, i64 part, i64 start, i64 value, i64 is_image, i64 is_trained,
               int is_valid) {
    i64 end = at->offset + length, from = at->offset > at->low ? at->offset : at->low;
    i64 taken = (end < at->high ? end : at->high) - from;
    if (taken > 0) {
        if (is_valid) {
            if (at->kept == tiles->room) return 0;
            i64 *to = tiles->runs + at->kept++, room = tiles->room;
            i64 run[] = {at->bin, at->column, taken, part, start < 0 ? start : start + from - at->offset, value,
                         is_image, is_trained, at->position, at->segment};
            for (int column = 0; column < (int)(sizeof run / sizeof *run); column++) to[column * room] = run[column];
            at->position += taken;
            if (is_image) at->num_image += taken;
        }
        at->column += taken;
    }
    at->offset = end;
    return 1;
}

INLINE int put_id(const Tiles *tiles, Place *at, i64 length, i64 value, i64 is_trained) {
    return put(tiles, at, length, LITERAL, LITERAL, value, 0, is_trained, 1);
}

/* The runs of one sample, in their order. */
INLINE int put_sample(const Lineup *all, const Tiles *tiles, Place *at, i64 sample) {
    i64 drops_text = all->is_unconditional[sample], is_good = 1;
    if (all->has_bos) is_good &= put_id(tiles, at, 1, all->bos, all->bos_trained);
    if (drops_text) is_good &= put_id(tiles, at, 1, all->unconditional, all->text_trained);
    if (all->lead[sample] > all->has_bos + drops_text) is_good &= put_id(tiles, at, 1, all->eos, all->eos_trained);
    for (i64 span = all->first_span[sample]; span < all->first_span[sample + 1] && at->offset < at->high; span++) {
        i64 is_image = all->is_image[span], has_loss = !all->has_loss || all->has_loss[span], part = all->part[span];
        is_good &= part >= 0 && part < all->num_parts;
        if (!is_good) return 0;
        if (all->head)
            is_good &= put(tiles, at, all->head[span], LITERAL, LITERAL, all->boi, 0, all->boi_trained,
                           (int)all->framed); /* else it is padding */
        is_good &= put(tiles, at, all->taken[span], part, all->token[span] + all->first_token_of_part[part],
                       is_image ? all->img_token_shift : 0, is_image,
                       is_image ? all->image_trained : all->text_trained && has_loss, 1);
        if (all->tail)
            is_good &= put_id(tiles, at, all->tail[span], is_image ? all->eoi : all->eos,
                              is_image ? all->eoi_trained : all->eos_trained);
    }
    if (all->has_end) is_good &= put_id(tiles, at, all->end[sample], all->eos, all->eos_trained);
    return (int)is_good;
}

INLINE void fetch_spans(const Lineup *all, i64 sample) {
    if (sample < 0 || sample >= all->num_samples) return;
    i64 span = all->first_span[sample];
    __builtin_prefetch(all->part + span);
    __builtin_prefetch(all->token + span);
    __builtin_prefetch(all->taken + span);
}

/* Returns how many runs are kept, -1 where `room` or a width is too small, or a sample, a part or a bin is none. */
i64 tile(const Lineup *all, const Bins *bins, const Tiles *tiles) {
    i64 span = 0, edge = 0, num_edges = tiles->num_edges, *counted = tiles->counted;
    i64 num_rows = bins->first_row[bins->num_bins];
    for (i64 sample = 0; sample <= all->num_samples; sample++) {
        while (span < all->num_spans && all->row[span] < sample) span++;
        all->first_span[sample] = span;
    }
    for (i64 bin = 0; bin < bins->num_bins; bin++)
        if (bins->first_row[0] || bins->first_row[bin] > bins->first_row[bin + 1]) return -1;
    Place at = {0};
    memset(counted, 0, NUM_COUNTS * sizeof(i64));
    for (i64 bin = 0; bin < bins->num_bins; bin++) {
        i64 first = bins->first_row[bin], stop = bins->first_row[bin + 1];
        tiles->first_kept[bin] = at.kept, tiles->first_edge[bin] = edge;
        at.bin = bin, at.column = 0;
        memcpy(counted + NUM_COUNTS, counted, NUM_COUNTS * sizeof(i64));
        counted += NUM_COUNTS;
        for (i64 row = first; row < stop; row++) {
            i64 sample = bins->sample[row], begin = at.column;
            if (sample < 0 || sample >= all->num_samples) return -1;
            if (row + FAR < num_rows) fetch_spans(all, bins->sample[row + FAR]);
            at.segment = row - first + 1, at.offset = at.position = at.num_image = 0;
            at.low = bins->skip ? bins->skip[row] : 0, at.high = bins->skip ? at.low + bins->take[row] : INT64_MAX;
            if (!all->too_long[sample] && !put_sample(all, tiles, &at, sample)) return -1;
            i64 counts[NUM_COUNTS] = {at.low == 0, at.position - at.num_image, at.num_image, 0, all->truncated[sample],
                                      all->left_out_images[sample], all->too_long[sample]};
            for (int count = 0; count < NUM_COUNTS; count++) counted[count] += counts[count];
            if (at.column == begin) continue;
            tiles->edges[edge] = bin, tiles->edges[num_edges + edge] = begin;
            tiles->edges[2 * num_edges + edge++] = at.column - begin;
        }
        if (at.column > bins->width[bin]) return -1;
        if (first == stop || at.column == bins->width[bin]) continue;
        tiles->edges[edge] = bin, tiles->edges[num_edges + edge] = at.column;
        tiles->edges[2 * num_edges + edge++] = bins->width[bin] - at.column;
    }
    tiles->first_kept[bins->num_bins] = at.kept, tiles->first_edge[bins->num_bins] = edge;
    return at.kept;
}

/* What samples consist of. Sample `sample[n]` of the columns of samples is in part `part[n]`, whose spans begin at
 * `base[part]` of the columns of spans. `num_spans_of` comes first: how many spans there are, and in `found`,
 * [num_rows + 1], those before each row; then `find_spans`, into [6, spans]. Both refuse what is outside of its part:
 * behind it may be another, or one that is not mapped. */
typedef struct {
    const i64 *sample, *part, *index, *first_span, *first_token, *base, *spans_of_part, *tokens_of_part;
    const int32_t *num_spans, *length;
    const uint8_t *kind;
    i64 *found, *out_index, *out, num_rows, num_in_column, *is_outside;
} Lookup;

static void note(const Lookup *all, i64 is_outside) {
    if (is_outside) __atomic_store_n(all->is_outside, 1, __ATOMIC_RELAXED);
}

static void count_these_spans(const void *job, i64 from, i64 stop) {
    const Lookup *all = *(const Lookup *const *)job;
    i64 is_outside = 0;
    for (i64 row = from; row < stop; row++) {
        if (row + FAR < stop) {
            __builtin_prefetch(all->num_spans + all->sample[row + FAR]);
            __builtin_prefetch(all->first_span + all->sample[row + FAR]);
        }
        i64 count = all->num_spans[all->sample[row]], first = all->first_span[all->sample[row]];
        is_outside |= count < 0 || first < 0 || count > all->spans_of_part[all->part[row]] - first;
        all->found[row] = count;
    }
    note(all, is_outside);
}

i64 num_spans_of(const i64 *sample, const i64 *part, i64 num_rows, i64 num_samples, const int32_t *num_spans,
                 const i64 *first_span, const i64 *spans_of_part, i64 *found, i64 num_threads) {
    i64 total = 0, is_outside = 0;
    const Lookup all = {.sample = sample, .part = part, .num_spans = num_spans, .first_span = first_span,
                        .spans_of_part = spans_of_part, .found = found, .is_outside = &is_outside}, *job = &all;
    for (i64 row = 0; row < num_rows; row++) is_outside |= sample[row] < 0 || sample[row] >= num_samples;
    if (is_outside) return -1;
    in_parallel(count_these_spans, &job, sizeof job, num_rows, 2 * LINE * num_rows, num_threads, 0);
    for (i64 row = 0; row < num_rows; row++) {
        i64 count = found[row];
        found[row] = total;
        total += count;
    }
    found[num_rows] = total;
    return is_outside ? -1 : total;
}

static void find_these_spans(const void *job, i64 from, i64 stop) {
    const Lookup *all = *(const Lookup *const *)job;
    i64 total = all->found[all->num_rows], is_outside = 0;
    i64 *row_of = all->out, *kind_of = row_of + total, *length_of = kind_of + total, *part_of = length_of + total;
    i64 *token_of = part_of + total, *place_of = token_of + total;
    for (i64 row = from; row < stop; row++) {
        if (row + FAR < stop) {
            i64 next = all->sample[row + FAR];
            __builtin_prefetch(all->index + next);
            __builtin_prefetch(all->first_token + next);
        }
        i64 at = all->sample[row], part = all->part[row], first = all->first_span[at];
        i64 base = all->base[part], num_behind = all->num_in_column - base - (first < 0 ? 0 : first);
        all->out_index[row] = all->index[at];
        if (first < 0 || all->found[row + 1] - all->found[row] > num_behind) {
            note(all, 1); /* the file was changed since they were counted */
            return;
        }
        i64 place = first + base;
        for (i64 span = all->found[row]; span < all->found[row + 1]; span++, place++) {
            __builtin_prefetch(all->length + place);
            __builtin_prefetch(all->kind + place);
            row_of[span] = row;
            part_of[span] = part;
            place_of[span] = place;
        }
    }
    for (i64 row = from; row < stop; row++) {
        i64 token = all->first_token[all->sample[row]], most = all->tokens_of_part[all->part[row]];
        for (i64 span = all->found[row]; span < all->found[row + 1]; span++) {
            i64 length = all->length[place_of[span]];
            int is_bad = length < 0 || token < 0 || length > most - token;
            is_outside |= is_bad;
            length_of[span] = length;
            kind_of[span] = all->kind[place_of[span]];
            token_of[span] = token;
            if (!is_bad) token += length;
        }
    }
    note(all, is_outside);
}

i64 find_spans(const i64 *sample, const i64 *part, i64 num_rows, const i64 *index, const i64 *first_span,
               const i64 *first_token, const i64 *base, i64 num_in_column, const i64 *tokens_of_part,
               const int32_t *length, const uint8_t *kind, i64 *found, i64 *out_index, i64 *out, i64 num_threads) {
    i64 is_outside = 0;
    const Lookup all = {.sample = sample, .part = part, .index = index, .first_span = first_span,
                        .first_token = first_token, .base = base, .tokens_of_part = tokens_of_part, .length = length,
                        .kind = kind, .found = found, .out_index = out_index, .out = out, .num_rows = num_rows,
                        .num_in_column = num_in_column, .is_outside = &is_outside}, *job = &all;
    in_parallel(find_these_spans, &job, sizeof job, num_rows, 4 * LINE * num_rows, num_threads, 0);
    return is_outside ? -1 : 0;
}

/* The Feistel network of order.py on `num_bits` bits, walking on from results past the end. */
enum { NUM_ROUNDS = 8 };

INLINE uint64_t mix(uint64_t value, uint64_t key, int num_bits) {
    uint64_t mixed = (value ^ key) * 0xBF58476D1CE4E5B9u;
    mixed = (mixed ^ (mixed >> 31)) * 0x94D049BB133111EBu;
    return mixed >> (64 - num_bits);
}

INLINE i64 feistel(i64 value, const uint64_t *keys, int low_bits, int high_bits) {
    uint64_t low = (uint64_t)value & (((uint64_t)1 << low_bits) - 1), high = (uint64_t)value >> low_bits;
    for (int round = 0; round < NUM_ROUNDS; round += 2) {
        low ^= mix(high, keys[round], low_bits);
        high ^= mix(low, keys[round + 1], high_bits);
    }
    return (i64)(high << low_bits | low);
}

typedef struct {
    const i64 *positions;
    const uint64_t *keys;
    i64 num_samples, *out;
    int low_bits, high_bits;
} Permutation;

FOR_EACH_CPU_THAT_MULTIPLIES
void permute_these(const void *job, i64 first, i64 stop) {
    const Permutation all = *(const Permutation *)job;
    const i64 *restrict positions = all.positions;
    i64 *restrict out = all.out;
    for (i64 at = first; at < stop; at++) out[at] = feistel(positions[at], all.keys, all.low_bits, all.high_bits);
    for (i64 at = first; at < stop; at++)
        while (out[at] >= all.num_samples) out[at] = feistel(out[at], all.keys, all.low_bits, all.high_bits);
}

i64 permute(const i64 *positions, i64 num_positions, i64 num_samples, i64 num_bits, const uint64_t *keys,
            i64 num_rounds, i64 *out, i64 num_threads) {
    int low_bits = (int)(num_bits / 2), high_bits = (int)(num_bits - low_bits);
    const Permutation all = {positions, keys, num_samples, out, low_bits, high_bits};
    i64 is_outside = num_rounds != NUM_ROUNDS || low_bits < 1 || num_bits > 62 || num_samples > (i64)1 << num_bits;
    for (i64 at = 0; at < num_positions; at++) is_outside |= positions[at] < 0 || positions[at] >= num_samples;
    if (is_outside) return -1;
    in_parallel(permute_these, &all, sizeof all, num_positions, LINE * num_positions, num_threads, 0);
    return 0;
}

/* The same with a network for each position: that of permutation `which`, of `num_samples` rows and `num_bits` bits. */
typedef struct {
    const i64 *positions, *which, *num_samples, *num_bits;
    const uint64_t *keys;
    i64 *out;
} Permutations;

static void permute_each_of_these(const void *job, i64 first, i64 stop) {
    const Permutations all = *(const Permutations *)job;
    for (i64 at = first; at < stop; at++) {
        i64 which = all.which[at], value = all.positions[at];
        int low_bits = (int)(all.num_bits[which] / 2), high_bits = (int)(all.num_bits[which] - low_bits);
        do value = feistel(value, all.keys + which * NUM_ROUNDS, low_bits, high_bits);
        while (value >= all.num_samples[which]);
        all.out[at] = value;
    }
}

i64 permute_each(const i64 *positions, const i64 *which, i64 num_positions, const i64 *num_samples, const i64 *num_bits,
                 const uint64_t *keys, i64 num_permutations, i64 num_rounds, i64 *out, i64 num_threads) {
    const Permutations all = {positions, which, num_samples, num_bits, keys, out};
    i64 is_outside = num_rounds != NUM_ROUNDS;
    for (i64 at = 0; at < num_permutations; at++)
        is_outside |= num_bits[at] < 2 || num_bits[at] > 62 || num_samples[at] > (i64)1 << (num_bits[at] & 63);
    if (is_outside) return -1;
    for (i64 at = 0; at < num_positions; at++)
        if (which[at] < 0 || which[at] >= num_permutations || positions[at] < 0 ||
            positions[at] >= num_samples[which[at]])
            return -1;
    in_parallel(permute_each_of_these, &all, sizeof all, num_positions, LINE * num_positions, num_threads, 0);
    return 0;
}

/* The tree of interleave.py: a node gives `left` of `total` positions to its first branch, the others to its second. A
 * branch is a node before it, or below 0: source -1 - branch. */
typedef struct {
    const i64 *positions, *left, *total, *branches;
    i64 root, *source, *draw;
} Tree;

static void interleave_these(const void *job, i64 first, i64 stop) {
    const Tree all = *(const Tree *)job;
    for (i64 at = first; at < stop; at++) {
        i64 node = all.root;
        uint64_t local = (uint64_t)all.positions[at];
        while (node >= 0) {
            uint64_t left = (uint64_t)all.left[node], total = (uint64_t)all.total[node];
            uint64_t scaled = local % total * left + total / 2, num_left = local / total * left + scaled / total;
            int is_right = scaled % total + left < total;
            local = is_right ? local - num_left : num_left;
            node = all.branches[2 * node + is_right];
        }
        all.source[at] = -1 - node, all.draw[at] = (i64)local;
    }
}

i64 interleave(const i64 *positions, i64 num_positions, const i64 *left, const i64 *total, const i64 *branches,
               i64 num_nodes, i64 root, i64 *source, i64 *draw, i64 num_threads) {
    const Tree all = {positions, left, total, branches, root, source, draw};
    i64 is_outside = root >= num_nodes;
    for (i64 node = 0; node < num_nodes; node++)
        is_outside |= left[node] <= 0 || left[node] >= total[node] || total[node] > (i64)1 << 31 ||
                      branches[2 * node] >= node || branches[2 * node + 1] >= node;
    for (i64 at = 0; at < num_positions; at++) is_outside |= positions[at] < 0;
    if (is_outside) return -1;
    in_parallel(interleave_these, &all, sizeof all, num_positions, LINE * num_positions, num_threads, 0);
    return 0;
}

/* The bins of packing.py, one content after the other. `values` are the lengths that occur, ascending, and there are
 * `count[length]` of each; both are used up. `taken`, [capacity + 1] zeros, is how many of a length the bin has. */
typedef struct {
    i64 *values, num_values, *count, *taken, *content, num_content;
} Bin;

INLINE i64 num_not_above(const i64 *values, i64 stop, i64 most) { /* bisect_right */
    i64 first = 0;
    while (first < stop) {
        i64 middle = (first + stop) / 2;
        if (values[middle] <= most) first = middle + 1;
        else stop = middle;
    }
    return first;
}

static void add_to(Bin *bin, i64 length, i64 number) {
    if (!bin->taken[length]) bin->content[bin->num_content++] = length;
    bin->taken[length] += number;
}

enum { NUM_PAIRS = 6 };

/* The pair near the middle that leaves the least room, if it is less than `instead_of` leaves. */
static int closing_pair(const Bin *bin, i64 room, i64 instead_of, i64 *pair) {
    const i64 *values = bin->values, *count = bin->count, *taken = bin->taken;
    i64 least = room - instead_of, half = num_not_above(values, bin->num_values, room / 2) - 1;
    int is_found = 0;
    for (i64 place = half; place >= 0 && place > half - NUM_PAIRS; place--) {
        i64 small = values[place], large = values[num_not_above(values, bin->num_values, room - small) - 1];
        if (room - small - large < least && count[small] - taken[small] > (small == large) &&
            count[large] > taken[large]) {
            least = room - small - large, pair[0] = small, pair[1] = large, is_found = 1;
            if (!least) break;
        }
    }
    return is_found;
}

static void fill_bin(Bin *bin, i64 capacity) {
    i64 room = capacity, above = bin->num_values, least = bin->values[0], pair[2];
    while (above && room >= least) {
        above = num_not_above(bin->values, above, room) - 1;
        i64 length = bin->values[above], number = room / length;
        if (number > bin->count[length]) number = bin->count[length];
        add_to(bin, length, number);
        room -= number * length;
        if (0 < room && room < least && closing_pair(bin, room + length, length, pair)) {
            bin->taken[length]--; /* its place stays, with none of it */
            for (int side = 0; side < 2; side++) {
                if (pair[side] == length) bin->taken[length]++;
                else add_to(bin, pair[side], 1);
            }
            return;
        }
    }
}

static void forget(Bin *bin, i64 length) {
    i64 place = num_not_above(bin->values, bin->num_values, length) - 1;
    bin->num_values--;
    memmove(bin->values + place, bin->values + place + 1, (bin->num_values - place) * sizeof(i64));
}

/* Rows of `used`: a length, how many in a bin, the first of the bins, how many are alike. Returns how many rows. */
static i64 fill_bins(Bin *bin, i64 capacity, i64 *used) {
    i64 num_used = 0, num_bins = 0;
    while (bin->num_values) {
        bin->num_content = 0;
        fill_bin(bin, capacity);
        i64 repeats = INT64_MAX;
        for (i64 at = 0; at < bin->num_content; at++) {
            i64 length = bin->content[at], number = bin->taken[length];
            if (number && bin->count[length] / number < repeats) repeats = bin->count[length] / number;
        }
        for (i64 at = 0; at < bin->num_content; at++) {
            i64 length = bin->content[at], number = bin->taken[length];
            bin->taken[length] = 0;
            if (!number) continue;
            i64 row[] = {length, number, num_bins, repeats};
            memcpy(used + 4 * num_used++, row, sizeof row);
            bin->count[length] -= number * repeats;
            if (!bin->count[length]) forget(bin, length);
        }
        num_bins += repeats;
    }
    return num_used;
}

/* The rows of best fit bins: samples of `length` up to `longest` <= `capacity`, those of length 0 in none. `sample` and
 * `first_row` as in `Bins`, bins in the order of their first samples, samples in their order in each. `scratch` is
 * [9 num_samples + 3 (longest + 2)]. Returns the number of bins. */
i64 best_fit(const i64 *length, i64 num_samples, i64 longest, i64 capacity, i64 *sample, i64 *first_row,
             i64 *scratch) {
    i64 *count = scratch, *taken = count + longest + 2, *next = taken + longest + 2;
    i64 *values = next + longest + 2, *content = values + num_samples, *bin_of = content + num_samples;
    i64 *by_length = bin_of + num_samples, *rank = by_length + num_samples, *used = rank + num_samples;
    Bin bin = {values, 0, count, taken, content, 0};
    for (i64 at = 0; at < num_samples; at++)
        if (length[at] < 0 || length[at] > longest || longest > capacity) return -1;
    memset(count, 0, 2 * (longest + 2) * sizeof(i64));
    for (i64 at = 0; at < num_samples; at++) count[length[at]]++, rank[at] = -1;
    for (i64 value = 0, end = 0; value <= longest; end += count[value++]) next[value] = end;
    for (i64 at = 0; at < num_samples; at++) by_length[next[length[at]]++] = at, bin_of[at] = -1;
    for (i64 value = 1; value <= longest; value++) {
        next[value] -= count[value];
        if (count[value]) values[bin.num_values++] = value;
    }
    i64 num_used = fill_bins(&bin, capacity, used), num_bins = 0;
    for (const i64 *row = used; row < used + 4 * num_used; row += 4)
        for (i64 alike = 0; alike < row[3]; alike++)
            for (i64 number = 0; number < row[1]; number++) bin_of[by_length[next[row[0]]++]] = row[2] + alike;
    memset(first_row, 0, (num_samples + 1) * sizeof(i64));
    for (i64 at = 0; at < num_samples; at++) {
        if (bin_of[at] < 0) continue;
        if (rank[bin_of[at]] < 0) rank[bin_of[at]] = num_bins++;
        bin_of[at] = rank[bin_of[at]];
        first_row[bin_of[at] + 1]++;
    }
    for (i64 at = 0; at < num_bins; at++) first_row[at + 1] += first_row[at];
    memcpy(by_length, first_row, num_bins * sizeof(i64)); /* where the next sample of a bin goes */
    for (i64 at = 0; at < num_samples; at++)
        if (bin_of[at] >= 0) sample[by_length[bin_of[at]]++] = at;
    return num_bins;
}
