/* JPEGs read to their end without a pixel being computed: see hpcdata/media/jpeg.py.
 *
 * What is known to be in order is what libjpeg decodes without a warning of its data. All else is not known: other
 * kinds of JPEGs, and whatever deviates from ITU-T T.81 in any way. Codes are walked over by their lengths, two at once
 * where both lie in LOOK bits; nothing is written but these tables. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef int64_t i64;
typedef uint8_t u8;

#define INLINE static inline __attribute__((always_inline))
#define RARE(condition) __builtin_expect(!!(condition), 0)

enum {
    LOOK = 11,
    LONGEST = 16,
    LENGTH_BITS = 6, /* of an entry: how many bits are walked over; above them how many coefficients */
    LENGTH = (1 << LENGTH_BITS) - 1,
    END_OF_BLOCK = 128,
    COEFFICIENTS = 64,
    MOST_DC_BITS = 11, /* of 8 bits a sample, as the next */
    MOST_AC_BITS = 10,
    MOST_BLOCKS = 1 << 20, /* of a component: with them no sum of DC values leaves 32 bits */
    MOST_SIDE = 65500,
    SOF0 = 0xC0,
    SOF1 = 0xC1,
    DHT = 0xC4,
    RST0 = 0xD0,
    SOI = 0xD8,
    EOI = 0xD9,
    SOS = 0xDA,
    DQT = 0xDB,
    DRI = 0xDD,
    APP0 = 0xE0,
    APP15 = 0xEF,
    COM = 0xFE,
};

typedef struct {
    int is_there, is_built;
    u8 count[LONGEST + 1], symbol[256];
    int first_code[LONGEST + 1], first_symbol[LONGEST + 1]; /* of each length */
    uint16_t quick[1 << LOOK];
} Codes;

typedef struct {
    u8 id, across, down, quantized;
    const Codes *dc, *ac;
} Component;

typedef struct {
    const u8 *at, *end;
    uint64_t bits; /* the next ones, first one highest */
    int left;
    i64 missing; /* zeros that were put in where the data ended */
} Reader;

INLINE int has_ff(uint64_t bytes) {
    const uint64_t inverse = ~bytes;
    return ((inverse - 0x0101010101010101u) & bytes & 0x8080808080808080u) != 0;
}

static Reader refilled_by_bytes(Reader reader) {
    for (; reader.left <= 56; reader.left += 8) {
        u8 byte = 0;
        const u8 *at = reader.at;
        if (at < reader.end && *at != 0xFF) {
            byte = *at;
            reader.at++;
        } else if (reader.end - at >= 2 && at[1] == 0) {
            byte = 0xFF;
            reader.at += 2;
        } else {
            reader.missing += 8;
        }
        reader.bits |= (uint64_t)byte << (56 - reader.left);
    }
    return reader;
}

/* At least 56 bits then, enough for two entries: always, as whether it is needed cannot be predicted. */
INLINE void refill(Reader *reader) {
    if (reader->end - reader->at >= 8) {
        uint64_t next;
        memcpy(&next, reader->at, 8);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        next = __builtin_bswap64(next);
#endif
        if (!RARE(has_ff(next))) {
            const int bytes = (63 - reader->left) >> 3;
            reader->bits |= next >> reader->left; /* with bits of one byte more: the next time they come again */
            reader->at += bytes;
            reader->left += 8 * bytes;
            return;
        }
    }
    *reader = refilled_by_bytes(*reader); /* by value, so that the fast way keeps it in registers */
}

INLINE void walk(Reader *reader, int bits) {
    reader->bits <<= bits;
    reader->left -= bits;
}

/* 0 for what no encoder of 8 bits a sample writes. */
static unsigned entry_of(int length, u8 symbol, int is_dc) {
    const unsigned run = symbol >> 4, bits = symbol & 15;
    if (is_dc) return symbol > MOST_DC_BITS ? 0 : 1 << LENGTH_BITS | (length + symbol);
    if (bits == 0 && run == 0) return (END_OF_BLOCK + 1) << LENGTH_BITS | length;
    if (bits > MOST_AC_BITS || (bits == 0 && run != 15)) return 0;
    return (run + 1) << LENGTH_BITS | (length + bits);
}

/* The entry of one code, of any length. */
static unsigned slow(const Codes *codes, uint64_t bits, int is_dc) {
    for (int length = 1; length <= LONGEST; length++) {
        const int nth = (int)(bits >> (64 - length)) - codes->first_code[length];
        if (nth >= 0 && nth < codes->count[length])
            return entry_of(length, codes->symbol[codes->first_symbol[length] + nth], is_dc);
    }
    return 0;
}

/* Entries of one code, or of two. 0: one that is longer, or none. Answers whether these are codes at all. */
static int build(Codes *codes, int is_dc) {
    static const int size = 1 << LOOK;
    uint16_t single[1 << LOOK];
    u8 length_of[1 << LOOK];
    if (codes->is_built) return 1;
    memset(single, 0, sizeof single);
    memset(length_of, LOOK + 1, sizeof length_of);
    int code = 0, symbol = 0;
    for (int length = 1; length <= LONGEST; length++, code <<= 1) {
        codes->first_code[length] = code;
        codes->first_symbol[length] = symbol;
        for (int nth = 0; nth < codes->count[length]; nth++, code++, symbol++) {
            const unsigned entry = entry_of(length, codes->symbol[symbol], is_dc);
            if (is_dc && codes->symbol[symbol] > 15) return 0;
            if (length > LOOK || code >= 1 << length) continue;
            const int first = code << (LOOK - length), number = 1 << (LOOK - length);
            for (int at = first; at < first + number; at++) single[at] = (uint16_t)entry;
            memset(length_of + first, length, number);
        }
        if (codes->count[length] && code >= 1 << length) return 0; /* too many, or one of ones alone */
    }
    for (int at = 0; at < size; at++) {
        const unsigned entry = single[at], bits = entry & LENGTH;
        codes->quick[at] = (uint16_t)entry;
        if (is_dc || entry == 0 || bits >= LOOK || entry >> LENGTH_BITS >= END_OF_BLOCK) continue;
        const int next = at << bits & (size - 1);
        if (single[next] && length_of[next] + bits <= LOOK) codes->quick[at] = (uint16_t)(entry + single[next]);
    }
    return codes->is_built = 1;
}

/* Walks over one entry; answers 1 at the end of the block, 0 before it, -1 if it is none. */
INLINE int walk_entry(Reader *reader, const Codes *ac, unsigned *at) {
    unsigned entry = ac->quick[reader->bits >> (64 - LOOK)];
    if (RARE(!entry) && !(entry = slow(ac, reader->bits, 0))) return -1;
    unsigned next = *at + (entry >> LENGTH_BITS);
    if (next >= COEFFICIENTS && (next & (END_OF_BLOCK - 1)) > COEFFICIENTS) {
        entry = slow(ac, reader->bits, 0); /* the second code of two is of the next block */
        next = *at + (entry >> LENGTH_BITS);
        if (!entry || next > COEFFICIENTS) return -1;
    }
    walk(reader, entry & LENGTH);
    *at = next;
    return next >= COEFFICIENTS;
}

/* Walks over a block of 64 coefficients; answers whether it is one. */
INLINE int walk_block(Reader *reader, const Codes *dc, const Codes *ac) {
    refill(reader);
    unsigned entry = dc->quick[reader->bits >> (64 - LOOK)], at = 1;
    if (RARE(!entry) && !(entry = slow(dc, reader->bits, 1))) return 0;
    walk(reader, entry & LENGTH);
    int end = walk_entry(reader, ac, &at);
    while (!end) {
        refill(reader);
        end = walk_entry(reader, ac, &at);
        if (!end) end = walk_entry(reader, ac, &at);
    }
    return end > 0;
}

/* Whether all bits were walked over but those that fill the last byte, and this marker comes next. Goes behind it. */
static int at_marker(Reader *reader, int marker) {
    const i64 rest = reader->left - reader->missing;
    if (rest < 0 || rest >= 8 || reader->end - reader->at < 2 || reader->at[0] != 0xFF || reader->at[1] != marker)
        return 0;
    *reader = (Reader){.at = reader->at + 2, .end = reader->end};
    return 1;
}

static int walk_scan(const u8 *data, const u8 *end, const Component *component, int number, i64 mcus, i64 restart) {
    Reader reader = {.at = data, .end = end};
    for (i64 mcu = 0, until = restart, marker = RST0; mcu < mcus; mcu++) {
        if (restart && mcu == until) {
            if (!at_marker(&reader, (int)marker)) return 0;
            until += restart;
            marker = marker == RST0 + 7 ? RST0 : marker + 1;
        }
        for (int nth = 0; nth < number; nth++) {
            const int blocks = number == 1 ? 1 : component[nth].across * component[nth].down;
            for (int block = 0; block < blocks; block++)
                if (!walk_block(&reader, component[nth].dc, component[nth].ac)) return 0;
        }
        if (reader.missing > reader.left) return 0;
    }
    return at_marker(&reader, EOI);
}

static int read_codes(Codes (*codes)[4], const u8 *at, const u8 *stop) {
    while (at < stop) {
        if (stop - at < 1 + LONGEST || at[0] >> 4 > 1 || (at[0] & 15) > 3) return 0;
        Codes *found = &codes[at[0] >> 4][at[0] & 15];
        int number = 0;
        for (int length = 1; length <= LONGEST; length++) number += found->count[length] = at[length];
        at += 1 + LONGEST;
        if (number > 256 || number > stop - at) return 0;
        memcpy(found->symbol, at, number);
        found->is_there = 1;
        found->is_built = 0;
        at += number;
    }
    return 1;
}

/* Which tables there are, as bits of `found`. */
static int read_quantization(unsigned *found, const u8 *at, const u8 *stop) {
    while (at < stop) {
        const int size = 1 + (at[0] >> 4 ? 128 : 64);
        if (at[0] >> 4 > 1 || (at[0] & 15) > 3 || stop - at < size) return 0;
        *found |= 1u << (at[0] & 15);
        at += size;
    }
    return 1;
}

/* sizes: width, height. Answers how many components there are, 0 for what is not usual. */
static int read_frame(Component *component, i64 *sizes, const u8 *at, i64 size) {
    const int number = size >= 6 ? at[5] : 0;
    if ((number != 1 && number != 3) || size != 6 + 3 * number || at[0] != 8) return 0;
    sizes[1] = at[1] << 8 | at[2];
    sizes[0] = at[3] << 8 | at[4];
    if (!sizes[0] || !sizes[1] || sizes[0] > MOST_SIDE || sizes[1] > MOST_SIDE) return 0;
    for (int nth = 0; nth < number; nth++) {
        const u8 *of = at + 6 + 3 * nth;
        component[nth] = (Component){.id = of[0], .across = of[1] >> 4, .down = of[1] & 15, .quantized = of[2]};
        if (of[2] > 3 || (number == 3 && nth && of[1] != 0x11)) return 0;
        for (int other = 0; other < nth; other++)
            if (component[other].id == of[0]) return 0;
    }
    const int first = at[7];
    return first == 0x11 || first == 0x21 || first == 0x12 || first == 0x22 ? number : 0;
}

static int read_scan(Component *component, int number, Codes (*codes)[4], unsigned quantization, const u8 *at,
                     i64 size) {
    if (size != 4 + 2 * number || at[0] != number) return 0;
    const u8 *last = at + 1 + 2 * number;
    if (last[0] != 0 || last[1] != COEFFICIENTS - 1 || last[2] != 0) return 0;
    for (int nth = 0; nth < number; nth++) {
        const u8 *of = at + 1 + 2 * nth;
        if (of[0] != component[nth].id || of[1] >> 4 > 3 || (of[1] & 15) > 3) return 0;
        if (!(quantization >> component[nth].quantized & 1)) return 0;
        Codes *dc = &codes[0][of[1] >> 4], *ac = &codes[1][of[1] & 15];
        if (!dc->is_there || !ac->is_there || !build(dc, 1) || !build(ac, 0)) return 0;
        component[nth].dc = dc;
        component[nth].ac = ac;
    }
    return 1;
}

/* Of a baseline JPEG of one scan that is in order up to its mark of the end: width + (height << 16) +
 * (components << 32).
 * 0: not known. Data behind the mark is not looked at. */
i64 walk_jpeg(const u8 *data, i64 size) {
    Codes codes[2][4];
    Component component[3];
    for (int kind = 0; kind < 2; kind++)
        for (int nth = 0; nth < 4; nth++) codes[kind][nth].is_there = codes[kind][nth].is_built = 0;
    const u8 *at = data, *end = data + size;
    i64 sizes[2] = {0, 0}, restart = 0;
    unsigned quantization = 0;
    int number = 0;
    if (size < 4 || at[0] != 0xFF || at[1] != SOI) return 0;
    at += 2;
    while (end - at >= 4 && at[0] == 0xFF) {
        const int marker = at[1];
        const i64 length = (at[2] << 8 | at[3]) - 2;
        const u8 *content = at + 4;
        if (length < 0 || length > end - content) return 0;
        at = content + length;
        if (marker == DHT) {
            if (!read_codes(codes, content, at)) return 0;
        } else if (marker == DQT) {
            if (!read_quantization(&quantization, content, at)) return 0;
        } else if (marker == DRI) {
            if (length != 2) return 0;
            restart = content[0] << 8 | content[1];
        } else if (marker == SOF0 || marker == SOF1) {
            if (number || !(number = read_frame(component, sizes, content, length))) return 0;
        } else if (marker == SOS) {
            if (!number || !read_scan(component, number, codes, quantization, content, length)) return 0;
            break;
        } else if (marker != COM && (marker < APP0 || marker > APP15)) {
            return 0;
        }
    }
    if (!number || !component[0].dc) return 0;
    const i64 across = 8 * (number == 1 ? 1 : component[0].across), down = 8 * (number == 1 ? 1 : component[0].down);
    const i64 mcus = ((sizes[0] + across - 1) / across) * ((sizes[1] + down - 1) / down);
    if (mcus * (across / 8) * (down / 8) > MOST_BLOCKS) return 0;
    if (!walk_scan(at, end, component, number, mcus, restart)) return 0;
    return sizes[0] + (sizes[1] << 16) + ((i64)number << 32);
}

/* How often `mark` occurs, none of them overlapping. */
i64 count_marks(const u8 *data, i64 size, const u8 *mark, i64 mark_size) {
    const u8 *at = data, *end = size < mark_size ? data : data + size - mark_size + 1;
    i64 number = 0;
    while (at < end && (at = memchr(at, mark[0], end - at))) {
        const int is_one = memcmp(at, mark, mark_size) == 0;
        number += is_one;
        at += is_one ? mark_size : 1;
    }
    return number;
}
