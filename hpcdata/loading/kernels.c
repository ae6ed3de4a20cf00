/* The inner loops of the loader, compiled. Each does what the NumPy code beside its caller does, and nothing else: see
 * compiled.py for what they are given. All of them check what they index before they touch it, and return -1 when a place
 * is outside of its array; those that write batches have then touched nothing.
 *
 * Rows of a shuffled batch come from all over the memory. What makes copying them fast is to ask for the next row while
 * this one is copied: the processor does not see by itself where it begins. */
#include <stdint.h>
#include <string.h>

typedef int64_t i64;

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES(...) __attribute__((target_clones("default", __VA_ARGS__)))
#else
#define CLONES(...)
#endif
#define FOR_EACH_CPU CLONES("avx2")
#if __GNUC__ >= 12
#define FOR_EACH_CPU_THAT_MULTIPLIES CLONES("arch=x86-64-v4") /* 64 bits, in vectors */
#else
#define FOR_EACH_CPU_THAT_MULTIPLIES
#endif
#define INLINE static inline __attribute__((always_inline))

enum { VERSION = 3, AHEAD = 2, FAR = 16, LINE = 64 };

i64 kernels_version(void) { return VERSION; }

INLINE void fetch(const char *from, i64 num_bytes) {
    for (i64 at = 0; at < num_bytes; at += LINE) __builtin_prefetch(from + at);
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

static int runs_fit(const i64 *at, const i64 *length, i64 num_runs, i64 size) {
    i64 is_outside = 0;
    for (i64 run = 0; run < num_runs; run++)
        is_outside |= at[run] < 0 || length[run] < 0 || length[run] > size - at[run];
    return !is_outside;
}

/* Row `rows[r]` of out (NULL: row r) = `length[r]` ids from `start[r]`, plus `shift`, and `pad` up to `width`. */
#define PLACE_ROWS(IN, OUT, COPY, FILL)                                                                                \
    for (i64 row = 0; row < num_rows; row++) {                                                                         \
        OUT *to = (OUT *)out + (rows ? rows[row] : row) * stride;                                                      \
        if (row + AHEAD < num_rows)                                                                                    \
            fetch((const char *)((const IN *)ids + start[row + AHEAD]), length[row + AHEAD] * (i64)sizeof(IN));        \
        COPY(to, (const IN *)ids + start[row], length[row], shift);                                                    \
        FILL(to + length[row], width - length[row], pad);                                                              \
    }                                                                                                                  \
    return 0
FOR_EACH_CPU
i64 place_rows(const void *ids, i64 num_ids, i64 id_bytes, const i64 *start, const i64 *length, const i64 *rows,
               i64 num_rows, void *out, i64 out_bytes, i64 out_rows, i64 stride, i64 width, i64 shift, i64 pad) {
    i64 is_outside = !runs_fit(start, length, num_rows, num_ids) || (!rows && num_rows > out_rows);
    for (i64 row = 0; row < num_rows; row++)
        is_outside |= length[row] > width || (rows && (rows[row] < 0 || rows[row] >= out_rows));
    if (is_outside) return -1;
    switch (10 * id_bytes + out_bytes) {
    case 22: PLACE_ROWS(uint16_t, uint16_t, copy_2_2, fill_2);
    case 24: PLACE_ROWS(uint16_t, uint32_t, copy_2_4, fill_4);
    case 28: PLACE_ROWS(uint16_t, uint64_t, copy_2_8, fill_8);
    case 44: PLACE_ROWS(int32_t, uint32_t, copy_4_4, fill_4);
    case 48: PLACE_ROWS(int32_t, uint64_t, copy_4_8, fill_8);
    default: return -1;
    }
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

/* WRITE each run, and `pad` between, before and behind them. */
#define TILE(OUT, FILL, WRITE)                                                                                         \
    OUT *to = out;                                                                                                     \
    i64 end = 0;                                                                                                       \
    for (i64 run = 0; run < num_runs; run++) {                                                                         \
        i64 at = dest[run] - base;                                                                                     \
        FILL(to + end, at - end, pad);                                                                                 \
        WRITE;                                                                                                         \
        end = at + length[run];                                                                                        \
    }                                                                                                                  \
    FILL(to + end, size - end, pad);                                                                                   \
    return 0

/* `length` ids from `start`, plus `value`; or `value` alone where `start` is negative. */
#define PLACE_RUNS(IN, OUT, COPY, FILL)                                                                                \
    const IN *from = ids;                                                                                              \
    TILE(OUT, FILL, {                                                                                                  \
        i64 next = run + 2 * AHEAD;                                                                                    \
        if (next < num_runs && start[next] >= 0)                                                                       \
            fetch((const char *)(from + start[next]), length[next] * (i64)sizeof(IN));                                 \
        if (start[run] < 0) FILL(to + at, length[run], value[run]);                                                    \
        else COPY(to + at, from + start[run], length[run], value[run]);                                                \
    })
FOR_EACH_CPU
i64 place_runs(const void *ids, i64 num_ids, i64 id_bytes, const i64 *start, const i64 *value, const i64 *dest,
               const i64 *length, i64 num_runs, i64 base, void *out, i64 out_bytes, i64 size, i64 pad) {
    i64 is_outside = !runs_are_apart(dest, length, num_runs, base, size);
    for (i64 run = 0; run < num_runs; run++) is_outside |= start[run] >= 0 && length[run] > num_ids - start[run];
    if (is_outside) return -1;
    switch (10 * id_bytes + out_bytes) {
    case 22: { PLACE_RUNS(uint16_t, uint16_t, copy_2_2, fill_2); }
    case 24: { PLACE_RUNS(uint16_t, uint32_t, copy_2_4, fill_4); }
    case 28: { PLACE_RUNS(uint16_t, uint64_t, copy_2_8, fill_8); }
    case 44: { PLACE_RUNS(int32_t, uint32_t, copy_4_4, fill_4); }
    case 48: { PLACE_RUNS(int32_t, uint64_t, copy_4_8, fill_8); }
    default: return -1;
    }
}

/* One value for each run. */
#define FILL_RUNS(OUT, FILL) TILE(OUT, FILL, FILL(to + at, length[run], value[run]))
FOR_EACH_CPU
i64 fill_runs(const i64 *value, const i64 *dest, const i64 *length, i64 num_runs, i64 base, void *out, i64 out_bytes,
              i64 size, i64 pad) {
    if (!runs_are_apart(dest, length, num_runs, base, size)) return -1;
    switch (out_bytes) {
    case 1: { FILL_RUNS(uint8_t, fill_1); }
    case 2: { FILL_RUNS(uint16_t, fill_2); }
    case 4: { FILL_RUNS(uint32_t, fill_4); }
    case 8: { FILL_RUNS(uint64_t, fill_8); }
    default: return -1;
    }
}

/* Runs that count up from `first`. */
#define COUNT_RUNS(OUT, FILL, COUNT) TILE(OUT, FILL, COUNT(to + at, length[run], first[run]))
FOR_EACH_CPU
i64 count_runs(const i64 *first, const i64 *dest, const i64 *length, i64 num_runs, i64 base, void *out, i64 out_bytes,
               i64 size, i64 pad) {
    if (!runs_are_apart(dest, length, num_runs, base, size)) return -1;
    switch (out_bytes) {
    case 2: { COUNT_RUNS(uint16_t, fill_2, count_2); }
    case 4: { COUNT_RUNS(uint32_t, fill_4, count_4); }
    case 8: { COUNT_RUNS(uint64_t, fill_8, count_8); }
    default: return -1;
    }
}

/* Where the runs of bins stand. Row r of a bin is sequence `sample[r]`, whose runs begin at `first_run`; of its ids,
 * `skip[r]` are left out and `take[r]` are taken (NULL: all). Runs that are valid and have ids left are kept, [6, room]:
 * which run, its bin, its column there, its length, how many of its ids are left out, and its row. `first_kept`: the
 * first of them in each bin, and how many there are. `edges`: [3, rows + bins], bin, column and length of segments:
 * rows, and the padding behind them in bins with rows, none of length 0; `first_edge` as `first_kept`.
 * Returns -1 where `room` or a width is too small. */
i64 tile(const i64 *first_run, i64 num_sequences, const i64 *run_length, const uint8_t *run_valid, const i64 *sample,
         const i64 *skip, const i64 *take, const i64 *first_row, const i64 *width, i64 num_bins, i64 *out, i64 room,
         i64 *first_kept, i64 *edges, i64 num_edges, i64 *first_edge) {
    i64 kept = 0, edge = 0, *edge_column = edges + num_edges, *edge_length = edges + 2 * num_edges;
    for (i64 bin = 0; bin < num_bins; bin++)
        if (first_row[0] || first_row[bin] > first_row[bin + 1]) return -1;
    for (i64 bin = 0; bin < num_bins; bin++) {
        i64 column = 0;
        first_kept[bin] = kept, first_edge[bin] = edge;
        for (i64 row = first_row[bin]; row < first_row[bin + 1]; row++) {
            if (sample[row] < 0 || sample[row] >= num_sequences) return -1;
            i64 low = skip ? skip[row] : 0, high = skip ? low + take[row] : INT64_MAX, offset = 0, begin = column;
            for (i64 run = first_run[sample[row]]; run < first_run[sample[row] + 1]; run++) {
                i64 end = offset + run_length[run];
                i64 from = offset > low ? offset : low, length = (end < high ? end : high) - from;
                if (length > 0) {
                    if (run_valid[run]) {
                        if (kept == room) return -1;
                        i64 *to = out + kept++;
                        to[0] = run, to[room] = bin, to[2 * room] = column, to[3 * room] = length;
                        to[4 * room] = from - offset, to[5 * room] = row;
                    }
                    column += length;
                }
                offset = end;
            }
            if (column > begin)
                edges[edge] = bin, edge_column[edge] = begin, edge_length[edge] = column - begin, edge++;
        }
        if (column > width[bin]) return -1;
        if (first_row[bin + 1] > first_row[bin] && column < width[bin])
            edges[edge] = bin, edge_column[edge] = column, edge_length[edge] = width[bin] - column, edge++;
    }
    first_kept[num_bins] = kept, first_edge[num_bins] = edge;
    return kept;
}

/* What samples consist of. Sample `sample[n]` of the columns of samples is in part `part[n]`, whose spans begin at
 * `base[part]` of the columns of spans. `num_spans_of` is called for the number of spans first, then `find_spans` for
 * the spans. Both refuse what is outside of its part: behind it may be another, or one that is not mapped. */
i64 num_spans_of(const i64 *sample, const i64 *part, i64 num_rows, i64 num_samples, const int32_t *num_spans,
                 const i64 *first_span, const i64 *spans_of_part) {
    i64 total = 0, is_outside = 0;
    for (i64 row = 0; row < num_rows; row++) is_outside |= sample[row] < 0 || sample[row] >= num_samples;
    if (is_outside) return -1;
    for (i64 row = 0; row < num_rows; row++) {
        if (row + FAR < num_rows) {
            __builtin_prefetch(num_spans + sample[row + FAR]);
            __builtin_prefetch(first_span + sample[row + FAR]);
        }
        i64 count = num_spans[sample[row]], first = first_span[sample[row]];
        is_outside |= count < 0 || first < 0 || count > spans_of_part[part[row]] - first;
        total += count;
    }
    return is_outside ? -1 : total;
}

i64 find_spans(const i64 *sample, const i64 *part, i64 num_rows, const i64 *index, const int32_t *num_spans,
               const i64 *first_span, const i64 *first_token, const i64 *base, i64 num_in_column,
               const i64 *tokens_of_part, const int32_t *length, const uint8_t *kind, i64 *out_index, i64 *out,
               i64 total) {
    i64 *row_of = out, *kind_of = out + total, *length_of = out + 2 * total, *part_of = out + 3 * total;
    i64 *token_of = out + 4 * total, *place_of = out + 5 * total, found = 0;
    for (i64 row = 0; row < num_rows; row++) {
        if (row + FAR < num_rows) {
            i64 next = sample[row + FAR];
            __builtin_prefetch(index + next);
            __builtin_prefetch(first_span + next);
            __builtin_prefetch(first_token + next);
        }
        i64 at = sample[row], first = first_span[at] + base[part[row]];
        if (num_spans[at] > total - found || first < 0 || num_spans[at] > num_in_column - first) return -1;
        out_index[row] = index[at];
        for (i64 place = first; place < first + num_spans[at]; place++, found++) {
            __builtin_prefetch(length + place);
            __builtin_prefetch(kind + place);
            row_of[found] = row;
            part_of[found] = part[row];
            place_of[found] = place;
        }
    }
    for (i64 span = 0; span < found; span++) {
        i64 place = place_of[span], row = row_of[span];
        length_of[span] = length[place];
        kind_of[span] = kind[place];
        token_of[span] = span && row_of[span - 1] == row ? token_of[span - 1] + length_of[span - 1]
                                                         : first_token[sample[row]];
        i64 token = token_of[span], most = tokens_of_part[part[row]];
        if (length[place] < 0 || token < 0 || length[place] > most - token) return -1;
    }
    return found;
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

FOR_EACH_CPU_THAT_MULTIPLIES
i64 permute(const i64 *restrict positions, i64 num_positions, i64 num_samples, i64 num_bits, const uint64_t *keys,
            i64 num_rounds, i64 *restrict out) {
    int low_bits = (int)(num_bits / 2), high_bits = (int)(num_bits - low_bits);
    i64 is_outside = num_rounds != NUM_ROUNDS || low_bits < 1 || num_bits > 62 || num_samples > (i64)1 << num_bits;
    for (i64 at = 0; at < num_positions; at++) is_outside |= positions[at] < 0 || positions[at] >= num_samples;
    if (is_outside) return -1;
    for (i64 at = 0; at < num_positions; at++) out[at] = feistel(positions[at], keys, low_bits, high_bits);
    for (i64 at = 0; at < num_positions; at++)
        while (out[at] >= num_samples) out[at] = feistel(out[at], keys, low_bits, high_bits);
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

/* The rows of best fit bins: samples of `length` up to `longest` <= `capacity`, those of length 0 in none. `sample` and `first_row`
 * as in `tile`, bins in the order of their first samples, samples in their order in each. `scratch` is
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
