/* Pictures of other sizes: see hpcdata/multimodal/pictures/resampling.py, whose NumPy code makes the same bytes.
 *
 * Rows first: a row of the result is summed from rows of the picture as they lie in memory, then its columns. Sums are
 * made tap by tap, each rounded to float: this file is built without fused multiply-add. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef int64_t i64;
typedef float four __attribute__((vector_size(16)));
typedef int32_t ints __attribute__((vector_size(16)));

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_CPU __attribute__((target_clones("default", "avx2")))
#else
#define FOR_EACH_CPU
#endif

#define INLINE static inline __attribute__((always_inline))

enum { CHANNELS = 3, AT_ONCE = 2048 };

static const float ROUNDING = 12582912.0f; /* 1.5 * 2^23: adding it leaves no bits for fractions */

/* sums = the weighted rows, of which each has `width` bytes. */
FOR_EACH_CPU
static void sum_rows(float *restrict sums, const uint8_t *restrict rows, i64 width, const float *weight, i64 taps) {
    for (i64 first = 0; first < width; first += AT_ONCE) {
        const i64 stop = first + AT_ONCE < width ? first + AT_ONCE : width;
        for (i64 at = first; at < stop; at++) sums[at] = 0.0f;
        i64 tap = 0;
        for (; tap + 4 <= taps; tap += 4) {
            const uint8_t *restrict a = rows + tap * width, *restrict b = a + width, *restrict c = b + width,
                          *restrict d = c + width;
            const float wa = weight[tap], wb = weight[tap + 1], wc = weight[tap + 2], wd = weight[tap + 3];
            for (i64 at = first; at < stop; at++)
                sums[at] = (((sums[at] + wa * a[at]) + wb * b[at]) + wc * c[at]) + wd * d[at];
        }
        for (; tap < taps; tap++) {
            const uint8_t *restrict row = rows + tap * width;
            const float w = weight[tap];
            for (i64 at = first; at < stop; at++) sums[at] += w * row[at];
        }
    }
}

INLINE four sum_pixels(const float *from, const float *weight, i64 taps) {
    four total = {0.0f, 0.0f, 0.0f, 0.0f};
    for (i64 tap = 0; tap < taps; tap++) {
        four values;
        memcpy(&values, from + CHANNELS * tap, sizeof values);
        total += weight[tap] * values;
    }
    return total;
}

/* To whole numbers from 0 to 255, half to even. */
INLINE four round_to_bytes(four value) {
    const four black = {0.0f, 0.0f, 0.0f, 0.0f}, white = {255.0f, 255.0f, 255.0f, 255.0f};
    value = (value + ROUNDING) - ROUNDING;
    const ints is_below = value < black, is_above = value > white;
    return (four)((ints)value & ~is_below & ~is_above) + (four)((ints)white & is_above);
}

/* One row of the result. sums: with room for one float behind it. */
FOR_EACH_CPU
static void columns_of_floats(float *restrict out, i64 columns, const float *restrict sums, const i64 *restrict start,
                              const float *restrict weight, i64 taps, const float *scale, const float *shift,
                              i64 rounded) {
    const four by = {scale[0], scale[1], scale[2], 0.0f}, plus = {shift[0], shift[1], shift[2], 0.0f};
    for (i64 column = 0; column < columns; column++) {
        four total = sum_pixels(sums + CHANNELS * start[column], weight + column * taps, taps);
        if (rounded) total = round_to_bytes(total);
        total = total * by + plus;
        memcpy(out + CHANNELS * column, &total, CHANNELS * sizeof(float));
    }
}

FOR_EACH_CPU
static void columns_of_bytes(uint8_t *restrict out, i64 columns, const float *restrict sums, const i64 *restrict start,
                             const float *restrict weight, i64 taps) {
    for (i64 column = 0; column < columns; column++) {
        const four total = round_to_bytes(sum_pixels(sums + CHANNELS * start[column], weight + column * taps, taps));
        for (int channel = 0; channel < CHANNELS; channel++)
            out[CHANNELS * column + channel] = (uint8_t)(int32_t)total[channel];
    }
}

static int are_inside(const i64 *start, i64 number, i64 taps, i64 size) {
    for (i64 at = 0; at < number; at++)
        if (start[at] < 0 || start[at] > size - taps) return 0;
    return 1;
}

/* out[row, column] = scale * sum + shift, of floats, or the sum in bytes if `scale` is NULL. image: [height, width, 3].
 * sizes: height, width, rows, columns, row_taps, column_taps, values of `out` from row to row, whether floats are rounded
 * before they are scaled. scratch: 3 * width + 1 floats. */
i64 resample(const uint8_t *image, const i64 *sizes, const i64 *row_start, const float *row_weight,
             const i64 *column_start, const float *column_weight, const float *scale, const float *shift, void *out,
             float *scratch) {
    const i64 height = sizes[0], width = sizes[1], rows = sizes[2], columns = sizes[3], row_taps = sizes[4],
              column_taps = sizes[5], row_values = sizes[6], rounded = sizes[7];
    if (!are_inside(row_start, rows, row_taps, height) || !are_inside(column_start, columns, column_taps, width))
        return -1;
    const i64 row_bytes = CHANNELS * width;
    scratch[row_bytes] = 0.0f;
    for (i64 row = 0; row < rows; row++) {
        sum_rows(scratch, image + row_start[row] * row_bytes, row_bytes, row_weight + row * row_taps, row_taps);
        if (scale == NULL)
            columns_of_bytes((uint8_t *)out + row * row_values, columns, scratch, column_start, column_weight,
                             column_taps);
        else
            columns_of_floats((float *)out + row * row_values, columns, scratch, column_start, column_weight,
                              column_taps, scale, shift, rounded);
    }
    return 0;
}
