/* Rows of ksqlDB's /query answers, and JSON objects from Kafka topics, straight into Arrow's memory layout; HTTP chunks
 * taken apart; and records taken out of librdkafka by the thousand.
 *
 * Everything here answers only where it is certain to mean what the Python code means (rows.Decoder, body.Body): at the
 * first line that is anything else, the reader stops and says how far it came, and the caller reads that line its own
 * way. So there are no error messages here, and no configuration.
 *
 * The reader is driven by a tree of types made in Python; C knows nothing of SQL. Its recursion follows that tree, never
 * the data. Bounds: a block ends with a line end, and no token contains one, so a byte that was compared equal to
 * something else has a next byte. Whatever reads more than a byte at a time compares with `end` first.
 */
#include <float.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

typedef const uint8_t *Text;
typedef __int128 Wide;
typedef unsigned __int128 UWide;

enum { BOOLEAN, INTEGER, BIGINT, DOUBLE, DECIMAL, STRING, BYTES, DATE, TIME, TIMESTAMP, ARRAY, MAP, STRUCT };

/* A node of the tree of types as Python sends it; `first` child and `next` sibling are positions, -1 for none. */
typedef struct {
    int32_t kind, precision, scale, first, next;
    int32_t name, name_size; /* of a STRUCT's field: the bytes before its value, `,"CITY":`; in a topic only its name */
    int32_t flags;           /* of a topic's value */
} Type;

enum { INSIDE = 1, EXACT = 2 }; /* a value in a STRUCT; keep what ksqlDB's REST API would lose */

/* The values of one node so far, in Arrow's layout. Bits of `valid` are 1 until a null clears them. */
typedef struct {
    Type type;
    int64_t length, capacity; /* values */
    int64_t nulls;
    uint8_t *valid;
    uint8_t *values; /* of fixed width; or 32-bit offsets, one more than values */
    uint8_t *bytes;  /* of strings */
    int64_t size, room;
    int64_t usual_length, usual_size; /* what the block before needed */
    int32_t begin, follow; /* in a topic: a STRUCT's field that came first in the object before; what came after this */
} Column;

/* A member of a MAP: where its name begins, and the hash that Java gives it. */
typedef struct {
    const uint8_t *start;
    uint32_t hash;
} Member;

typedef struct {
    Column *columns; /* the root, a STRUCT of the row's columns, is the first */
    int32_t count;
    uint8_t *names;
    Text end; /* of the block being read */
    int64_t *slots; /* for looking keys of a MAP up */
    int64_t slot_count;
    Member *members; /* of the MAPs that are being read, the inner ones last */
    int64_t member_count, member_room;
    UWide power[39]; /* of ten */
} Reader;

/* https://arrow.apache.org/docs/format/CDataInterface.html */
struct ArrowArray {
    int64_t length, null_count, offset, n_buffers, n_children;
    const void **buffers;
    struct ArrowArray **children;
    struct ArrowArray *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};

static const char HEAD[] = "{\"row\":{\"columns\":[";
static const char TAIL[] = "]}},\n";
enum { HEAD_SIZE = sizeof HEAD - 1, TAIL_SIZE = sizeof TAIL - 1, LONGEST_NUMBER = 400, FEW_KEYS = 8, PROBES = 64 };
static const int64_t LIMIT = INT32_MAX - 63; /* what 32-bit offsets reach */

/* ---- memory ---- */

static int64_t width(int32_t kind) {
    switch (kind) {
    case INTEGER: case DATE: case TIME: return 4;
    case BIGINT: case DOUBLE: case TIMESTAMP: return 8;
    case DECIMAL: return 16;
    default: return 0;
    }
}

static int has_offsets(int32_t kind) {
    return kind == STRING || kind == BYTES || kind == ARRAY || kind == MAP;
}

static int resize(uint8_t **memory, int64_t size) {
    uint8_t *moved = realloc(*memory, size > 0 ? (size_t)size : 1);
    if (!moved) return 0;
    *memory = moved;
    return 1;
}

/* Room for at least one value more. What a failure leaves is larger than `capacity` says, and still owned. */
static int grow(Column *c) {
    int64_t wanted = c->capacity ? c->capacity * 2 : c->usual_length + c->usual_length / 8;
    wanted = (wanted + 64) & ~(int64_t)63;
    if (wanted > LIMIT) wanted = LIMIT & ~(int64_t)63;
    if (wanted <= c->length) return 0;
    int64_t had = c->capacity / 8, bits = wanted / 8;
    if (!resize(&c->valid, bits)) return 0;
    memset(c->valid + had, 0xff, (size_t)(bits - had));
    if (c->type.kind == BOOLEAN) {
        if (!resize(&c->values, bits)) return 0;
        memset(c->values + had, 0, (size_t)(bits - had));
    } else if (has_offsets(c->type.kind)) {
        if (!resize(&c->values, (wanted + 1) * 4)) return 0;
        if (!c->capacity) memset(c->values, 0, 4);
    } else if (c->type.kind != STRUCT) {
        if (!resize(&c->values, wanted * width(c->type.kind))) return 0;
    }
    c->capacity = wanted;
    return 1;
}

static inline int ensure(Column *c) {
    return c->length < c->capacity || grow(c);
}

/* Room for `more` bytes of strings, and a few beyond for stores of eight. */
static int grow_bytes(Column *c, int64_t size, int64_t more) {
    int64_t wanted = c->room ? c->room * 2 : c->usual_size + c->usual_size / 8 + 64;
    if (wanted < size + more + 16) wanted = size + more + 16;
    if (wanted > LIMIT) wanted = LIMIT;
    if (wanted < size + more + 16 || !resize(&c->bytes, wanted)) return 0;
    c->room = wanted;
    return 1;
}

static inline int32_t offset_at(const Column *c, int64_t at) {
    int32_t offset = 0;
    if (c->values) memcpy(&offset, c->values + at * 4, 4);
    return offset;
}

static inline void set_offset(Column *c, int64_t at, int64_t offset) {
    int32_t narrow = (int32_t)offset; /* `grow` and `grow_bytes` keep it within LIMIT */
    memcpy(c->values + at * 4, &narrow, 4);
}

static int append_null(Reader *r, Column *c) {
    if (!ensure(c)) return 0;
    int64_t at = c->length, size = width(c->type.kind);
    c->valid[at >> 3] &= (uint8_t)~(1u << (at & 7));
    if (size) memset(c->values + at * size, 0, (size_t)size);
    if (has_offsets(c->type.kind)) set_offset(c, at + 1, offset_at(c, at));
    if (c->type.kind == STRUCT)
        for (int32_t i = c->type.first; i >= 0; i = r->columns[i].type.next)
            if (!append_null(r, &r->columns[i])) return 0;
    c->nulls++;
    c->length++;
    return 1;
}

/* Forget all values after the first `length`, in a column and below it. */
static void cut(Reader *r, Column *c, int64_t length) {
    for (int64_t at = length; at < c->length; at++) {
        uint8_t bit = (uint8_t)(1u << (at & 7));
        if (!(c->valid[at >> 3] & bit)) c->nulls--;
        c->valid[at >> 3] |= bit;
        if (c->type.kind == BOOLEAN) c->values[at >> 3] &= (uint8_t)~bit;
    }
    c->length = length;
    int64_t below = length;
    if (has_offsets(c->type.kind)) below = c->size = offset_at(c, length);
    for (int32_t i = c->type.first; i >= 0; i = r->columns[i].type.next) cut(r, &r->columns[i], below);
}

/* ---- numbers ---- */

static inline int is_digit(uint8_t byte) {
    return (uint8_t)(byte - '0') < 10;
}

/* Every parser returns what follows its token, or NULL where it is not certain. */
static Text integer(Text p, int64_t *out) {
    int negative = *p == '-';
    Text start = p += negative;
    uint64_t value = 0;
    while (is_digit(*p)) {
        if (p - start == 19) return NULL;
        value = value * 10 + (uint64_t)(*p++ - '0');
    }
    if (p == start || (*start == '0' && p - start > 1)) return NULL;
    if (value > (uint64_t)INT64_MAX + (uint64_t)negative) return NULL;
    *out = (int64_t)(negative ? 0 - value : value);
    return p;
}

/* A JSON number in its parts: (-1)^negative * digits * 10^exponent, `digits` of up to 38 figures. */
typedef struct {
    UWide digits;
    int negative, whole; /* whole: neither point nor exponent */
    int32_t exponent;
} Number;

static Text number(Text p, Number *n) {
    n->negative = *p == '-';
    p += n->negative;
    Text start = p;
    uint64_t low = 0; /* 64 bits hold 19 figures, and 128-bit arithmetic is slow */
    int figures = 0, after = 0, point = 0;
    n->digits = 0;
    for (;; p++) {
        if (*p == '.' && !point && p > start) {
            point = 1;
            if (!is_digit(p[1])) return NULL;
            continue;
        }
        if (!is_digit(*p)) break;
        if (!point && p > start && *start == '0') return NULL;
        if (figures || *p != '0') {
            if (figures == 19) n->digits = low;
            if (++figures > 38) return NULL;
            if (figures <= 19) low = low * 10 + (uint64_t)(*p - '0');
            else n->digits = n->digits * 10 + (UWide)(*p - '0');
        }
        after += point;
        if (after > LONGEST_NUMBER) return NULL;
    }
    if (p == start) return NULL;
    if (figures <= 19) n->digits = low;
    int32_t exponent = 0;
    n->whole = !point && *p != 'e' && *p != 'E';
    if (*p == 'e' || *p == 'E') {
        p++;
        int negative = *p == '-';
        p += *p == '-' || *p == '+';
        start = p;
        while (is_digit(*p)) {
            if (p - start == 4) return NULL;
            exponent = exponent * 10 + (*p++ - '0');
        }
        if (p == start) return NULL;
        if (negative) exponent = -exponent;
    }
    n->exponent = exponent - after;
    return p;
}

/* The C library rounds correctly; in a locale with another decimal point it stops early, and we are not certain. */
static Text long_real(Text start, Text p, double *out) {
    char copy[LONGEST_NUMBER + 1], *stop;
    if (p - start > LONGEST_NUMBER) return NULL;
    memcpy(copy, start, (size_t)(p - start));
    copy[p - start] = 0;
    *out = strtod(copy, &stop);
    return stop == copy + (p - start) && *out - *out == 0.0 ? p : NULL;
}

static Text skip_number(Text p) {
    while (is_digit(*p) || *p == '-' || *p == '+' || *p == '.' || *p == 'e' || *p == 'E') p++;
    return p;
}

static Text real(Reader *r, Text p, double *out) {
    static const double power[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                   1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    static const char *odd[] = {"\"NaN\"", "\"Infinity\"", "\"-Infinity\""};
    if (*p == '"') {
        for (int i = 0; i < 3; i++) {
            size_t size = strlen(odd[i]);
            if ((size_t)(r->end - p) < size || memcmp(p, odd[i], size)) continue;
            uint64_t bits = i == 0 ? 0x7ff8000000000000u : i == 1 ? 0x7ff0000000000000u : 0xfff0000000000000u;
            memcpy(out, &bits, 8);
            return p + size;
        }
        return NULL;
    }
    Number n;
    Text after = number(p, &n);
    if (!after) return NULL; /* 39 figures and more: the exact path */
    if (n.whole && n.negative && !n.digits) return NULL; /* -0 is the integer 0 */
#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD == 0
    if (n.digits <= (UWide)1 << 53 && n.exponent >= -22 && n.exponent <= 22) { /* both exact, so one rounding */
        double value = (double)(uint64_t)n.digits;
        value = n.exponent < 0 ? value / power[-n.exponent] : value * power[n.exponent];
        *out = n.negative ? -value : value;
        return after;
    }
#else
    (void)power;
#endif
    return skip_number(p) == after ? long_real(p, after, out) : NULL;
}

static Text decimal(Reader *r, Text p, const Type *type, Wide *out) {
    Number n;
    p = number(p, &n);
    if (!p) return NULL;
    int64_t shift = (int64_t)type->scale + n.exponent;
    UWide value = n.digits;
    if (value && shift > 0) {
        if (shift > type->precision || value >= r->power[type->precision - shift]) return NULL;
        value *= r->power[shift];
    } else if (value && shift < 0) {
        if (shift < -38 || value % r->power[-shift]) return NULL;
        value /= r->power[-shift];
    }
    if (value >= r->power[type->precision]) return NULL;
    *out = n.negative ? -(Wide)value : (Wide)value;
    return p;
}

/* ---- dates and times ---- */

/* `count` digits as a number, -1 for anything else; the caller has checked that they are there. */
static int32_t figures(Text p, int count) {
    int32_t value = 0;
    for (int i = 0; i < count; i++) {
        if (!is_digit(p[i])) return -1;
        value = value * 10 + (p[i] - '0');
    }
    return value;
}

static int64_t floor_div(int64_t a, int64_t b) {
    return a / b - (a % b < 0);
}

/* A date of any year, "yyyy-MM-dd" with four to nine figures for the year and perhaps a sign, from `p` to `stop`, as
 * days since 1970-01-01; 0 for anything else. With `julian` a date before 1582-10-15 is one of the Julian calendar. */
static int day(Text p, Text stop, int julian, int64_t *out) {
    static const uint8_t lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int negative = *p == '-';
    p += *p == '-' || *p == '+';
    int64_t count = stop - p - 6;
    if (count < 4 || count > 9) return 0;
    int64_t y = figures(p, (int)count);
    if (y < 0) return 0;
    if (negative) y = -y;
    p += count;
    int32_t m = figures(p + 1, 2), d = figures(p + 4, 2);
    if (m < 1 || m > 12 || d < 1 || p[0] != '-' || p[3] != '-') return 0;
    julian = julian && (y < 1582 || (y == 1582 && (m < 10 || (m == 10 && d < 15))));
    int leap = y % 4 == 0 && (julian || y % 100 != 0 || y % 400 == 0);
    if (d > lengths[m - 1] + (m == 2 && leap)) return 0;
    int64_t year = y - (m <= 2); /* years begin in March: the leap day comes last */
    int64_t in_year = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
    *out = 365 * year + floor_div(year, 4) + in_year;
    *out += julian ? -719470 : floor_div(year, 400) - floor_div(year, 100) - 719468;
    return 1;
}

/* "HH:mm" or "HH:mm:ss" as seconds, -1 for anything else. */
static int32_t seconds(Text p, int64_t size) {
    int32_t h = figures(p, 2), m = figures(p + 3, 2), s = size == 8 ? figures(p + 6, 2) : 0;
    if (h < 0 || h > 23 || m < 0 || m > 59 || s < 0 || s > 59 || p[2] != ':') return -1;
    if (size == 8 && p[5] != ':') return -1;
    return (h * 60 + m) * 60 + s;
}

/* A number (inside a STRUCT) or a text: days, or milliseconds. */
static Text moment(Reader *r, Text p, int32_t kind, int64_t *out) {
    if (*p != '"') {
        p = integer(p, out);
        if (kind == DATE && p && (*out < INT32_MIN || *out > INT32_MAX)) return NULL;
        if (kind == TIME && p && (*out < 0 || *out >= 86400000)) return NULL;
        return p;
    }
    Text start = ++p, stop = start + (r->end - p < 32 ? r->end - p : 32);
    while (p < stop && *p != '"') p++;
    if (p == stop) return NULL;
    int64_t size = p - start;
    if (kind == DATE)
        return size >= 10 && day(start, p, 0, out) && *out >= INT32_MIN && *out <= INT32_MAX ? p + 1 : NULL;
    if (kind == TIME) {
        if (size != 5 && size != 8) return NULL;
        *out = (int64_t)seconds(start, size) * 1000;
        return *out >= 0 ? p + 1 : NULL;
    }
    Text clock = p - 13; /* "T10:00:00.000" */
    if (size < 23 || clock[0] != 'T' || clock[9] != '.' || !day(start, clock, 1, out)) return NULL;
    int32_t second = seconds(clock + 1, 8), millisecond = figures(clock + 10, 3);
    if (second < 0 || millisecond < 0) return NULL;
    Wide wide = (Wide)*out * 86400000 + (int64_t)second * 1000 + millisecond;
    *out = (int64_t)wide;
    return *out == wide ? p + 1 : NULL;
}

/* ---- strings ---- */

static int32_t hex4(Text p) {
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        uint8_t b = p[i]; /* a line end is no hex digit, so the next byte is there */
        int32_t digit = is_digit(b) ? b - '0' : (b | 32) >= 'a' && (b | 32) <= 'f' ? (b | 32) - 'a' + 10 : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* What stands after a backslash, decoded to `out` (4 bytes at most). */
static Text escape(Text p, uint8_t **out) {
    static const char shorts[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
    uint8_t *o = *out;
    if (*p != 'u') {
        for (int i = 0; i < 16; i += 2)
            if (*p == (uint8_t)shorts[i]) {
                *(*out)++ = (uint8_t)shorts[i + 1];
                return p + 1;
            }
        return NULL;
    }
    int32_t code = hex4(p + 1);
    if (code < 0) return NULL;
    p += 5;
    if (code >= 0xd800 && code < 0xe000) { /* a pair; half of one is stored as U+FFFD */
        int32_t low = code < 0xdc00 && p[0] == '\\' && p[1] == 'u' ? hex4(p + 2) : -1;
        int paired = low >= 0xdc00 && low < 0xe000;
        code = paired ? 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00) : 0xfffd;
        p += paired ? 6 : 0;
    }
    if (code < 0x80) {
        *o++ = (uint8_t)code;
    } else if (code < 0x800) {
        *o++ = (uint8_t)(0xc0 | code >> 6);
    } else if (code < 0x10000) {
        *o++ = (uint8_t)(0xe0 | code >> 12);
        *o++ = (uint8_t)(0x80 | (code >> 6 & 0x3f));
    } else {
        *o++ = (uint8_t)(0xf0 | code >> 18);
        *o++ = (uint8_t)(0x80 | (code >> 12 & 0x3f));
        *o++ = (uint8_t)(0x80 | (code >> 6 & 0x3f));
    }
    if (code >= 0x80) *o++ = (uint8_t)(0x80 | (code & 0x3f));
    *out = o;
    return p;
}

static inline int follows(uint8_t byte) {
    return (byte & 0xc0) == 0x80;
}

/* The length of the well-formed sequence of UTF-8 here (Unicode table 3-7), 0 for none. */
static int sequence(Text p) {
    uint8_t b = p[0];
    if (b < 0xc2 || b > 0xf4 || !follows(p[1])) return 0;
    if (b < 0xe0) return 2;
    if ((b == 0xe0 && p[1] < 0xa0) || (b == 0xed && p[1] > 0x9f) || !follows(p[2])) return 0;
    if (b < 0xf0) return 3;
    if ((b == 0xf0 && p[1] < 0x90) || (b == 0xf4 && p[1] > 0x8f) || !follows(p[3])) return 0;
    return 4;
}

/* Nonzero where one of eight bytes ends plain ASCII text; the lowest such byte is marked with certainty. */
static inline uint64_t special(uint64_t w) {
    const uint64_t ones = 0x0101010101010101u;
    uint64_t quote = w ^ ones * '"', slash = w ^ ones * '\\';
    return (((quote - ones) & ~quote) | ((slash - ones) & ~slash) | ((w - ones * 0x20) & ~w) | w) & ones * 0x80;
}

/* A string from after its opening quote to after its closing one. */
static Text text(Reader *r, Column *c, Text p) {
    if (!ensure(c)) return NULL;
    int64_t size = c->size;
    for (;;) {
        if (c->room - size < 16 && !grow_bytes(c, size, 16)) return NULL;
        uint8_t *out = c->bytes + size;
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        if (r->end - p >= 8) {
            uint64_t word, marks;
            memcpy(&word, p, 8);
            memcpy(out, &word, 8);
            marks = special(word);
            int plain = marks ? __builtin_ctzll(marks) >> 3 : 8;
            p += plain;
            out += plain;
            size += plain;
            if (!marks) continue;
        }
#endif
        if (*p == '"') break;
        if (*p == '\\') {
            p = escape(p + 1, &out);
            if (!p) return NULL;
            size = out - c->bytes;
        } else if (*p < 0x20) {
            return NULL;
        } else {
            int count = *p < 0x80 ? 1 : sequence(p);
            if (!count) return NULL;
            for (int i = 0; i < count; i++) out[i] = p[i];
            p += count;
            size += count;
        }
    }
    c->size = size;
    set_offset(c, ++c->length, size);
    return p + 1;
}

static int32_t six_bits(uint8_t b) {
    if (b >= 'A' && b <= 'Z') return b - 'A';
    if (b >= 'a' && b <= 'z') return b - 'a' + 26;
    if (is_digit(b)) return b - '0' + 52;
    return b == '+' ? 62 : b == '/' ? 63 : -1;
}

/* Base64 with its padding, from after the opening quote. */
static Text binary(Column *c, Text p) {
    if (!ensure(c)) return NULL;
    int64_t size = c->size;
    while (*p != '"') {
        int32_t a = six_bits(p[0]), b = a < 0 ? -1 : six_bits(p[1]);
        if (b < 0) return NULL;
        int32_t d = six_bits(p[2]), e = d < 0 ? -1 : six_bits(p[3]);
        if (c->room - size < 16 && !grow_bytes(c, size, 16)) return NULL;
        uint8_t *out = c->bytes + size;
        out[0] = (uint8_t)(a << 2 | b >> 4);
        if (e >= 0) {
            out[1] = (uint8_t)(b << 4 | d >> 2);
            out[2] = (uint8_t)(d << 6 | e);
            size += 3;
            p += 4;
            continue;
        }
        if (d >= 0 && p[3] == '=' && p[4] == '"' && !(d & 3)) {
            out[1] = (uint8_t)(b << 4 | d >> 2);
            size += 2;
        } else if (d < 0 && p[2] == '=' && p[3] == '=' && p[4] == '"' && !(b & 15)) {
            size += 1;
        } else {
            return NULL;
        }
        p += 4;
    }
    c->size = size;
    set_offset(c, ++c->length, size);
    return p + 1;
}

/* ---- values of any type ---- */

static Text value(Reader *r, Column *c, Text p);

static Text array(Reader *r, Column *c, Text p) {
    Column *item = &r->columns[c->type.first];
    if (*p++ != '[' || !ensure(c)) return NULL;
    if (*p == ']') {
        p++;
    } else {
        do {
            p = value(r, item, p);
            if (!p) return NULL;
        } while (*p++ == ',');
        if (p[-1] != ']') return NULL;
    }
    set_offset(c, ++c->length, item->length);
    return p;
}

static int same_key(const Column *keys, int64_t a, int64_t b) {
    int32_t at = offset_at(keys, a), size = offset_at(keys, a + 1) - at, other = offset_at(keys, b);
    return offset_at(keys, b + 1) - other == size && !memcmp(keys->bytes + at, keys->bytes + other, (size_t)size);
}

/* Whether the keys from `from` on are all different: JSON's readers keep the last of equal ones. */
static int distinct(Reader *r, const Column *keys, int64_t from) {
    int64_t count = keys->length - from, slots = 16;
    if (count <= FEW_KEYS) {
        for (int64_t i = from + 1; i < keys->length; i++)
            for (int64_t j = from; j < i; j++)
                if (same_key(keys, i, j)) return 0;
        return 1;
    }
    while (slots < 2 * count) slots *= 2;
    if (slots > r->slot_count) {
        int64_t *more = realloc(r->slots, (size_t)slots * sizeof *more);
        if (!more) return 0;
        r->slots = more;
        r->slot_count = slots;
    }
    for (int64_t i = 0; i < slots; i++) r->slots[i] = -1;
    for (int64_t i = from; i < keys->length; i++) {
        uint64_t hash = 14695981039346656037u; /* FNV-1a */
        for (int32_t at = offset_at(keys, i); at < offset_at(keys, i + 1); at++)
            hash = (hash ^ keys->bytes[at]) * 1099511628211u;
        int64_t slot = (int64_t)((hash ^ hash >> 32) & (uint64_t)(slots - 1));
        for (int probes = 0; r->slots[slot] >= 0; slot = (slot + 1) & (slots - 1))
            if (++probes > PROBES || same_key(keys, i, r->slots[slot])) return 0;
        r->slots[slot] = i;
    }
    return 1;
}

static Text map(Reader *r, Column *c, Text p) {
    Column *keys = &r->columns[c->type.first], *items = &r->columns[keys->type.next];
    int64_t from = keys->length;
    if (*p++ != '{' || !ensure(c)) return NULL;
    if (*p == '}') {
        p++;
    } else {
        do {
            if (*p++ != '"') return NULL;
            p = text(r, keys, p);
            if (!p || *p++ != ':') return NULL;
            p = value(r, items, p);
            if (!p) return NULL;
        } while (*p++ == ',');
        if (p[-1] != '}' || !distinct(r, keys, from)) return NULL;
    }
    set_offset(c, ++c->length, keys->length);
    return p;
}

/* The fields in their order, as the server writes them; each name brings the bracket or comma before it. */
static Text structure(Reader *r, Column *c, Text p) {
    if (!ensure(c)) return NULL;
    for (int32_t i = c->type.first; i >= 0; i = r->columns[i].type.next) {
        Column *field = &r->columns[i];
        int32_t size = field->type.name_size;
        if (r->end - p <= size || memcmp(p, r->names + field->type.name, (size_t)size)) return NULL;
        p = value(r, field, p + size);
        if (!p) return NULL;
    }
    c->length++;
    return *p == '}' ? p + 1 : NULL;
}

static Text fixed(Reader *r, Column *c, Text p) {
    int64_t whole;
    int32_t narrow;
    double real_;
    Wide wide;
    if (!ensure(c)) return NULL;
    switch (c->type.kind) {
    case BIGINT:
        p = integer(p, &whole);
        if (p) memcpy(c->values + c->length * 8, &whole, 8);
        break;
    case DOUBLE:
        p = real(r, p, &real_);
        if (p) memcpy(c->values + c->length * 8, &real_, 8);
        break;
    case DECIMAL:
        p = decimal(r, p, &c->type, &wide);
        if (p) memcpy(c->values + c->length * 16, &wide, 16);
        break;
    case TIMESTAMP:
        p = moment(r, p, TIMESTAMP, &whole);
        if (p) memcpy(c->values + c->length * 8, &whole, 8);
        break;
    default:
        p = c->type.kind == INTEGER ? integer(p, &whole) : moment(r, p, c->type.kind, &whole);
        if (!p || whole < INT32_MIN || whole > INT32_MAX) return NULL;
        narrow = (int32_t)whole;
        memcpy(c->values + c->length * 4, &narrow, 4);
    }
    c->length += p != NULL;
    return p;
}

static Text boolean(Column *c, Text p) {
    int true_ = *p == 't';
    const char *rest = true_ ? "true" : "false";
    if (!ensure(c)) return NULL;
    for (; *rest; rest++, p++)
        if (*p != (uint8_t)*rest) return NULL;
    if (true_) c->values[c->length >> 3] |= (uint8_t)(1u << (c->length & 7));
    c->length++;
    return p;
}

static Text value(Reader *r, Column *c, Text p) {
    if (*p == 'n') return p[1] == 'u' && p[2] == 'l' && p[3] == 'l' && append_null(r, c) ? p + 4 : NULL;
    switch (c->type.kind) {
    case STRING: return *p == '"' ? text(r, c, p + 1) : NULL;
    case BYTES: return *p == '"' ? binary(c, p + 1) : NULL;
    case BOOLEAN: return boolean(c, p);
    case ARRAY: return array(r, c, p);
    case MAP: return map(r, c, p);
    case STRUCT: return structure(r, c, p);
    default: return fixed(r, c, p);
    }
}

static Text row(Reader *r, Text p) {
    Column *root = r->columns;
    if (r->end - p <= HEAD_SIZE || memcmp(p, HEAD, HEAD_SIZE) || !ensure(root)) return NULL;
    p += HEAD_SIZE;
    for (int32_t i = root->type.first; i >= 0; i = r->columns[i].type.next) {
        if (i != root->type.first && *p++ != ',') return NULL;
        p = value(r, &r->columns[i], p);
        if (!p) return NULL;
    }
    if (r->end - p < TAIL_SIZE || memcmp(p, TAIL, TAIL_SIZE)) return NULL;
    root->length++;
    return p + TAIL_SIZE;
}

/* ---- objects of a topic: fields by name, in any order, with blanks between tokens ----
 *
 * ksqlDB reads them with Jackson and its own rules (json_text.py, json_values.py). `end` is the end of the one value
 * that is read, where a line end stands: so no blank and no token leads into the next value. */

enum { DEEPEST_UNKNOWN = 64, MOST_MEMBERS = 256 };
static const int64_t FIRST_SHOWN = -62135769600000; /* 0001-01-01 of the Julian calendar: REST loses signs of years */

static Text topic_value(Reader *r, Column *c, Text p);

static inline Text blanks(Reader *r, Text p) {
    while (p < r->end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) p++;
    return p;
}

static Text word(Text p, const char *rest) {
    for (; *rest; rest++, p++)
        if (*p != (uint8_t)*rest) return NULL;
    return p;
}

/* A string that nobody wants, from after its opening quote to after its closing one. */
static Text skip_text(Reader *r, Text p) {
    for (;;) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        if (r->end - p >= 8) {
            uint64_t word_, marks;
            memcpy(&word_, p, 8);
            marks = special(word_);
            p += marks ? __builtin_ctzll(marks) >> 3 : 8;
            if (!marks) continue;
        }
#endif
        if (*p == '"') return p + 1;
        if (*p == '\\') {
            uint8_t scratch[8], *out = scratch;
            p = escape(p + 1, &out);
            if (!p) return NULL;
        } else if (*p < 0x20) {
            return NULL;
        } else {
            int count = *p < 0x80 ? 1 : sequence(p);
            if (!count) return NULL;
            p += count;
        }
    }
}

/* A value that nobody wants, checked as if somebody did: a mistake in it spoils the record. */
static Text skip(Reader *r, Text p, int depth) {
    Number n;
    if (*p == '"') return skip_text(r, p + 1);
    if (*p == 't') return word(p, "true");
    if (*p == 'f') return word(p, "false");
    if (*p == 'n') return word(p, "null");
    if (*p != '{' && *p != '[') return number(p, &n);
    int object = *p == '{';
    uint8_t last = object ? '}' : ']';
    if (!depth) return NULL;
    p = blanks(r, p + 1);
    if (*p == last) return p + 1;
    for (;;) {
        if (object) {
            p = *p == '"' ? skip_text(r, p + 1) : NULL;
            if (!p) return NULL;
            p = blanks(r, p);
            if (*p != ':') return NULL;
            p = blanks(r, p + 1);
        }
        p = skip(r, p, depth - 1);
        if (!p) return NULL;
        p = blanks(r, p);
        if (*p == last) return p + 1;
        if (*p != ',') return NULL;
        p = blanks(r, p + 1);
    }
}

/* A name of plain ASCII from after its opening quote to its closing one. */
static Text plain_name(Text p) {
    while (*p != '"') {
        if (*p < 0x20 || *p >= 0x80 || *p == '\\') return NULL;
        p++;
    }
    return p;
}

static int is_name(const Reader *r, const Column *c, Text name, int32_t size) {
    return c->type.name_size == size && !memcmp(r->names + c->type.name, name, (size_t)size);
}

static int is_upper_name(const Reader *r, const Column *c, Text name, int32_t size) {
    const uint8_t *wanted = r->names + c->type.name;
    if (c->type.name_size != size) return 0;
    for (int32_t i = 0; i < size; i++) {
        uint8_t byte = name[i] >= 'a' && name[i] <= 'z' ? (uint8_t)(name[i] - 32) : name[i];
        if (byte != wanted[i]) return 0;
    }
    return 1;
}

/* The field of a name: the exact one, or the one that it is in upper case; -1 for none. */
static int32_t field_of(const Reader *r, const Column *c, int32_t guess, Text name, int32_t size) {
    if (guess >= 0 && is_name(r, &r->columns[guess], name, size)) return guess;
    for (int32_t i = c->type.first; i >= 0; i = r->columns[i].type.next)
        if (is_name(r, &r->columns[i], name, size)) return i;
    for (int32_t i = c->type.first; i >= 0; i = r->columns[i].type.next)
        if (is_upper_name(r, &r->columns[i], name, size)) return i;
    return -1;
}

static Text named(Reader *r, Column *c, Text p) {
    if (*p != '{' || !ensure(c)) return NULL;
    int64_t at = c->length;
    Column *before = c;
    int32_t guess = c->begin;
    p = blanks(r, p + 1);
    if (*p == '}') {
        p++;
    } else {
        for (;;) {
            if (*p++ != '"') return NULL;
            Text name = p;
            p = plain_name(p);
            if (!p || p - name > LIMIT) return NULL;
            int32_t i = field_of(r, c, guess, name, (int32_t)(p - name));
            p = blanks(r, p + 1);
            if (*p != ':') return NULL;
            p = blanks(r, p + 1);
            if (i < 0) {
                p = skip(r, p, DEEPEST_UNKNOWN);
            } else {
                Column *field = &r->columns[i];
                if (field->length != at) return NULL; /* filled already, by the same name or by another spelling */
                p = topic_value(r, field, p);
                *(before == c ? &c->begin : &before->follow) = i;
                before = field;
                guess = field->follow;
            }
            if (!p) return NULL;
            p = blanks(r, p);
            if (*p == '}') {
                p++;
                break;
            }
            if (*p != ',') return NULL;
            p = blanks(r, p + 1);
        }
    }
    for (int32_t i = c->type.first; i >= 0; i = r->columns[i].type.next)
        if (r->columns[i].length == at && !append_null(r, &r->columns[i])) return NULL;
    c->length++;
    return p;
}

static Text topic_array(Reader *r, Column *c, Text p) {
    Column *item = &r->columns[c->type.first];
    if (*p != '[' || !ensure(c)) return NULL;
    p = blanks(r, p + 1);
    if (*p != ']') {
        for (;;) {
            p = topic_value(r, item, p);
            if (!p) return NULL;
            p = blanks(r, p);
            if (*p == ']') break;
            if (*p != ',') return NULL;
            p = blanks(r, p + 1);
        }
    }
    set_offset(c, ++c->length, item->length);
    return p + 1;
}

/* One member of a MAP, from its name to after its value. */
static Text member(Reader *r, Column *keys, Column *items, Text p) {
    p = *p == '"' ? text(r, keys, p + 1) : NULL;
    if (!p) return NULL;
    p = blanks(r, p);
    if (*p != ':') return NULL;
    return topic_value(r, items, blanks(r, p + 1));
}

/* String.hashCode() of a name, as HashMap spreads it. */
static int java_hash(Text p, uint32_t *out) {
    uint32_t code = 0;
    for (; *p != '"'; p++) {
        if (*p < 0x20 || *p >= 0x80 || *p == '\\') return 0;
        code = code * 31 + *p;
    }
    *out = code ^ code >> 16;
    return 1;
}

static int remember(Reader *r, Text start) {
    if (r->member_count == r->member_room) {
        int64_t room = r->member_room ? 2 * r->member_room : 64;
        Member *more = realloc(r->members, (size_t)room * sizeof *more);
        if (!more) return 0;
        r->members = more;
        r->member_room = room;
    }
    Member *m = &r->members[r->member_count++];
    m->start = start;
    return java_hash(start + 1, &m->hash);
}

/* The order in which a HashMap made for so many names lists them, stable within a bucket; 0 when it is that already. */
static int in_hash_order(Member *members, int64_t count) {
    uint32_t buckets = 1;
    int moved = 0;
    while (buckets < count) buckets *= 2;
    if (4 * count > 3 * (int64_t)buckets) buckets *= 2;
    for (int64_t i = 1; i < count; i++) {
        Member one = members[i];
        uint32_t mask = buckets - 1;
        int64_t j = i;
        for (; j > 0 && (members[j - 1].hash & mask) > (one.hash & mask); j--) members[j] = members[j - 1];
        members[j] = one;
        moved |= j != i;
    }
    return moved;
}

/* Whether a bucket gets more than eight names: then a HashMap grows early, or makes a tree of them. */
static int crowded(const Member *members, int64_t count) {
    uint32_t buckets = 1;
    while (buckets < count) buckets *= 2;
    for (int64_t i = 8; i < count; i++) {
        int same = 0;
        for (int64_t j = 0; j < i; j++) same += ((members[j].hash ^ members[i].hash) & (buckets - 1)) == 0;
        if (same >= 8) return 1;
    }
    return 0;
}

static Text topic_map(Reader *r, Column *c, Text p) {
    Column *keys = &r->columns[c->type.first], *items = &r->columns[keys->type.next];
    int64_t from = keys->length, first = r->member_count;
    if (*p != '{' || !ensure(c)) return NULL;
    p = blanks(r, p + 1);
    if (*p != '}') {
        for (;;) {
            Text start = p;
            p = member(r, keys, items, p);
            if (!p || !remember(r, start) || r->member_count - first > MOST_MEMBERS) return NULL;
            p = blanks(r, p);
            if (*p == '}') break;
            if (*p != ',') return NULL;
            p = blanks(r, p + 1);
        }
    }
    int64_t count = r->member_count - first;
    if (!distinct(r, keys, from) || crowded(r->members + first, count)) return NULL;
    if (in_hash_order(r->members + first, count)) { /* once more, in the other order */
        cut(r, keys, from);
        cut(r, items, from);
        for (int64_t i = 0; i < count; i++)
            if (!member(r, keys, items, r->members[first + i].start)) return NULL;
    }
    r->member_count = first;
    set_offset(c, ++c->length, keys->length);
    return p + 1;
}

static Text topic_whole(Column *c, Text p) {
    int32_t kind = c->type.kind, kept = c->type.flags & (INSIDE | EXACT), narrow;
    int64_t whole;
    p = integer(p, &whole);
    if (!p) return NULL;
    if (kind == TIME) {
        if (whole < 0 || whole >= 86400000) return NULL;
        if (!kept) whole -= whole % 1000;
    }
    if (kind == TIMESTAMP && !kept && whole < FIRST_SHOWN) return NULL;
    if (kind == BIGINT || kind == TIMESTAMP) {
        memcpy(c->values + c->length * 8, &whole, 8);
    } else {
        if (whole < INT32_MIN || whole > INT32_MAX) return NULL;
        narrow = (int32_t)whole;
        memcpy(c->values + c->length * 4, &narrow, 4);
    }
    c->length++;
    return p;
}

static Text topic_number(Reader *r, Column *c, Text p) {
    if (!ensure(c)) return NULL;
    if (c->type.kind == DOUBLE) {
        double real_;
        if (*p == '"') return NULL;
        p = real(r, p, &real_);
        if (!p || (real_ == 0.0 && __builtin_signbit(real_))) return NULL; /* a BigDecimal has no negative zero */
        memcpy(c->values + c->length * 8, &real_, 8);
    } else if (c->type.kind == DECIMAL) {
        Wide wide;
        p = decimal(r, p, &c->type, &wide);
        if (!p) return NULL;
        UWide digits = (UWide)(wide < 0 ? -wide : wide);
        if ((c->type.flags & INSIDE) && !(c->type.flags & EXACT) && digits >= r->power[15]) return NULL;
        memcpy(c->values + c->length * 16, &wide, 16);
    } else {
        return topic_whole(c, p);
    }
    c->length++;
    return p;
}

static Text topic_value(Reader *r, Column *c, Text p) {
    if (*p == 'n') {
        p = word(p, "null");
        return p && append_null(r, c) ? p : NULL;
    }
    switch (c->type.kind) {
    case STRING: return *p == '"' ? text(r, c, p + 1) : NULL;
    case BYTES: return *p == '"' ? binary(c, p + 1) : NULL;
    case BOOLEAN: return boolean(c, p);
    case ARRAY: return topic_array(r, c, p);
    case MAP: return topic_map(r, c, p);
    case STRUCT: return named(r, c, p);
    default: return topic_number(r, c, p);
    }
}

/* ---- what Python calls ---- */

void ksql_free(Reader *r) {
    if (!r) return;
    for (int32_t i = 0; r->columns && i < r->count; i++) {
        free(r->columns[i].valid);
        free(r->columns[i].values);
        free(r->columns[i].bytes);
    }
    free(r->columns);
    free(r->names);
    free(r->slots);
    free(r->members);
    free(r);
}

/* Blocks come and go by the megabyte. What glibc gives back to the system each time must be faulted in and zeroed again
 * for the next: a third of the reading thread's time (measured). */
static void keep_memory(void) {
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 32 << 20);
#endif
}

/* A reader for a tree of types, NULL when memory ran out. The types are right: Python made them. */
Reader *ksql_new(const Type *types, int32_t count, const uint8_t *names, int64_t names_size) {
    Reader *r = calloc(1, sizeof *r);
    if (!r) return NULL;
    keep_memory();
    r->count = count;
    r->columns = calloc((size_t)count, sizeof *r->columns);
    r->names = malloc((size_t)names_size + 1);
    if (!r->columns || !r->names) {
        ksql_free(r);
        return NULL;
    }
    memcpy(r->names, names, (size_t)names_size);
    for (int32_t i = 0; i < count; i++) {
        r->columns[i].type = types[i];
        r->columns[i].begin = types[i].first;
        r->columns[i].follow = types[i].next;
    }
    r->power[0] = 1;
    for (int i = 1; i < 39; i++) r->power[i] = r->power[i - 1] * 10;
    return r;
}

/* Append rows of the whole lines from `start` to `end`; returns where the first line begins that is not certain, and
 * the rows now held in `rows`. */
int64_t ksql_read(Reader *r, const uint8_t *block, int64_t start, int64_t end, int64_t *rows) {
    Text p = block + start, next;
    *rows = r->columns->length;
    if (start >= end || block[end - 1] != '\n') return start;
    for (r->end = block + end; p < r->end; p = next) {
        next = row(r, p);
        if (!next) {
            cut(r, r->columns, *rows);
            break;
        }
        ++*rows;
    }
    return p - block;
}

/* Append the objects of a topic: value i ends at `ends[i]`, where a line end stands, and value i + 1 begins behind it.
 * `taken[i]` says whether it was certain; the rest is for the exact path. What follows an object is not read. */
void ksql_values(Reader *r, const uint8_t *block, const int64_t *ends, int64_t count, uint8_t *taken) {
    int64_t start = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t rows = r->columns->length;
        r->end = block + ends[i];
        r->member_count = 0;
        taken[i] = start < ends[i] && named(r, r->columns, blanks(r, block + start)) != NULL;
        if (!taken[i]) cut(r, r->columns, rows);
        start = ends[i] + 1;
    }
}

typedef struct {
    const void *buffers[3];
    struct ArrowArray *children[];
} Held;

static void release(struct ArrowArray *a) {
    Held *held = a->private_data;
    for (int64_t i = 0; i < a->n_children; i++) {
        if (!held->children[i]) continue;
        if (held->children[i]->release) held->children[i]->release(held->children[i]);
        free(held->children[i]);
    }
    for (int i = 0; i < 3; i++) free((void *)held->buffers[i]);
    free(held);
    a->release = NULL;
}

/* An array without anything in it yet, that `release` can let go of at any time. */
static int prepare(struct ArrowArray *a, int64_t length, int64_t buffers, int64_t children) {
    Held *held = calloc(1, sizeof *held + (size_t)children * sizeof *held->children);
    if (!held) return 0;
    *a = (struct ArrowArray){.length = length, .n_buffers = buffers, .n_children = children, .release = release};
    a->buffers = held->buffers;
    a->children = held->children;
    a->private_data = held;
    for (int64_t i = 0; i < children; i++)
        if (!(held->children[i] = calloc(1, sizeof **held->children))) return 0;
    return 1;
}

/* Buffers as large as what they hold: Python counts the memory of what waits to be written. */
static int hand_over(Column *c, Held *held) {
    int32_t kind = c->type.kind;
    if (!c->capacity && !grow(c)) return 0;
    if ((kind == STRING || kind == BYTES) && !c->room && !grow_bytes(c, 0, 0)) return 0;
    int64_t values = kind == BOOLEAN ? (c->length + 7) / 8 : c->length * width(kind);
    if (has_offsets(kind)) values = (c->length + 1) * 4;
    if (c->values && !resize(&c->values, values)) return 0;
    if (c->bytes && !resize(&c->bytes, c->size)) return 0;
    if (c->nulls) held->buffers[0] = c->valid;
    else free(c->valid);
    held->buffers[1] = c->values;
    held->buffers[2] = c->bytes;
    *c = (Column){
        .type = c->type, .usual_length = c->length, .usual_size = c->size, .begin = c->begin, .follow = c->follow
    };
    return 1;
}

static int export_column(Reader *r, Column *c, struct ArrowArray *out) {
    int64_t children = 0, at = 0, length = c->length, nulls = c->nulls;
    int32_t kind = c->type.kind;
    for (int32_t i = c->type.first; i >= 0; i = r->columns[i].type.next) children++;
    int64_t buffers = kind == STRUCT ? 1 : kind == STRING || kind == BYTES ? 3 : 2;
    if (!prepare(out, length, buffers, kind == MAP ? 1 : children)) return 0;
    out->null_count = nulls;
    struct ArrowArray *parent = out;
    if (kind == MAP) { /* its entries are a STRUCT of key and value, never null */
        parent = out->children[0];
        if (!prepare(parent, r->columns[c->type.first].length, 1, children)) return 0;
    }
    for (int32_t i = c->type.first; i >= 0; i = r->columns[i].type.next)
        if (!export_column(r, &r->columns[i], parent->children[at++])) return 0;
    return hand_over(c, out->private_data);
}

/* Hand the rows over as an Arrow array, a STRUCT of the columns; 0 when memory ran out, and the rows are gone. */
int32_t ksql_take(Reader *r, struct ArrowArray *out) {
    memset(out, 0, sizeof *out);
    if (export_column(r, r->columns, out)) return 1;
    if (out->release) out->release(out);
    cut(r, r->columns, 0);
    return 0;
}

/* Take HTTP chunks apart: body bytes to `out` (as large as `wire`), `pending` bytes of the present chunk still to come,
 * its CRLF included. Returns the wire bytes used; stops before the last chunk, and before a size it is not certain of. */
int64_t ksql_dechunk(const uint8_t *wire, int64_t size, uint8_t *out, int64_t *out_size, int64_t *pending) {
    int64_t at = 0, made = 0;
    while (at < size) {
        if (*pending > 0) {
            int64_t piece = size - at < *pending ? size - at : *pending;
            int64_t body = *pending - 2 < piece ? *pending - 2 : piece;
            if (body > 0) {
                memcpy(out + made, wire + at, (size_t)body);
                made += body;
            }
            at += piece;
            *pending -= piece;
            continue;
        }
        int64_t p = at, length = 0;
        for (; p < size && p - at < 12; p++) {
            uint8_t b = wire[p];
            int32_t digit = is_digit(b) ? b - '0' : (b | 32) >= 'a' && (b | 32) <= 'f' ? (b | 32) - 'a' + 10 : -1;
            if (digit < 0) break;
            length = length * 16 + digit;
        }
        if (p == at || !length || p + 1 >= size || wire[p] != '\r' || wire[p + 1] != '\n') break;
        at = p + 2;
        *pending = length + 2;
    }
    *out_size = made;
    return at;
}

/* ---- records of a topic ---- */

/* rd_kafka_message_t of librdkafka.h: a public struct, which its ABI keeps as it is. */
typedef struct {
    int32_t error;
    void *topic;
    int32_t partition;
    const uint8_t *value;
    size_t size;
    const uint8_t *key;
    size_t key_size;
    int64_t offset;
    void *its_own;
} Message;

/* What stands among the messages that is no record: the end of a partition, or why it cannot be read. */
typedef struct {
    int32_t error, partition;
    int64_t offset;
    char text[240];
} Event;

enum { NO_VALUE = 1, NO_KEY = 2, SLICE = 1000, FILL = 5 /* ms */ };

/* Where the records of one call go, and how far they came; Python owns all memory that is pointed to. */
typedef struct {
    uint8_t *values; /* each with a line end behind it, at `ends[i]` */
    uint8_t *keys;   /* without anything between them; key i ends before `key_ends[i]` */
    int64_t room, key_room;
    int64_t size, key_size;
    int64_t *ends, *key_ends, *offsets, *times;
    int32_t *partitions;
    uint8_t *absent; /* NO_VALUE, NO_KEY */
    int64_t most, count;
    const int64_t *goals; /* of each partition: the first offset that is not wanted */
    int64_t *positions;   /* of each partition: the offset that comes next */
    int64_t partition_count;
    Event *events;
    int64_t event_room, event_count;
    int64_t heard; /* messages of any kind */
    int64_t needed, key_needed; /* bytes of a record that is larger than all room */
} Room;

/* Messages that were taken from a queue of librdkafka and not yet copied; and its functions, which Python has found. */
typedef struct {
    intptr_t (*batch)(void *queue, int milliseconds, Message **messages, size_t count);
    int64_t (*timestamp)(const Message *message, int *kind);
    void (*destroy)(Message *message);
    void *queue;
    Message *messages[SLICE];
    int64_t at, held;
} Fetch;

Fetch *ksql_fetch_new(void *batch, void *timestamp, void *destroy, void *queue) {
    Fetch *f = calloc(1, sizeof *f);
    if (!f) return NULL;
    keep_memory();
    memcpy(&f->batch, &batch, sizeof batch); /* ISO C has no conversion from an object's pointer to a function's */
    memcpy(&f->timestamp, &timestamp, sizeof timestamp);
    memcpy(&f->destroy, &destroy, sizeof destroy);
    f->queue = queue;
    return f;
}

/* Let go of what was not copied; the reading of another assignment begins without it. */
void ksql_fetch_clear(Fetch *f) {
    for (; f->at < f->held; f->at++) f->destroy(f->messages[f->at]);
    f->at = f->held = 0;
}

void ksql_fetch_free(Fetch *f) {
    if (!f) return;
    ksql_fetch_clear(f);
    free(f);
}

static void take_event(const Message *m, Event *e) {
    *e = (Event){.error = m->error, .partition = m->partition, .offset = m->offset};
    size_t size = m->value ? m->size : 0; /* of an error: what it says */
    if (size >= sizeof e->text) size = sizeof e->text - 1;
    if (size) memcpy(e->text, m->value, size);
}

/* Copy one message; 0 when there is no room for it in this call. */
static int take_message(const Fetch *f, const Message *m, Room *o) {
    if (m->error) {
        if (o->event_count == o->event_room) return 0;
        take_event(m, &o->events[o->event_count++]);
        return 1;
    }
    if (m->partition < 0 || m->partition >= o->partition_count) return 1;
    int64_t *position = &o->positions[m->partition], goal = o->goals[m->partition];
    if (m->offset >= goal) {
        if (*position < goal) *position = goal;
        return 1;
    }
    int64_t size = m->value ? (int64_t)m->size : 0, key_size = m->key ? (int64_t)m->key_size : 0;
    if (o->count == o->most || size >= o->room - o->size || key_size > o->key_room - o->key_size) {
        if (!o->count) o->needed = size + 1, o->key_needed = key_size;
        return 0;
    }
    int64_t i = o->count++;
    int kind = 0;
    if (size) memcpy(o->values + o->size, m->value, (size_t)size);
    o->ends[i] = o->size += size;
    o->values[o->size++] = '\n';
    if (key_size) memcpy(o->keys + o->key_size, m->key, (size_t)key_size);
    o->key_ends[i] = o->key_size += key_size;
    o->absent[i] = (uint8_t)((m->value ? 0 : NO_VALUE) | (m->key ? 0 : NO_KEY));
    o->partitions[i] = m->partition;
    o->offsets[i] = m->offset;
    o->times[i] = f->timestamp(m, &kind);
    *position = m->offset + 1;
    return 1;
}

/* Take what is there, up to the room for it. Waits `milliseconds` for a first message, and a moment for more. */
void ksql_fetch(Fetch *f, int32_t milliseconds, Room *o) {
    o->size = o->key_size = o->count = o->event_count = o->heard = o->needed = o->key_needed = 0;
    int64_t asked = 0;
    do {
        for (; f->at < f->held; f->at++, o->heard++) {
            if (!take_message(f, f->messages[f->at], o)) return;
            f->destroy(f->messages[f->at]);
        }
        int empty = asked > 1 && f->held < asked; /* hand out what there is */
        f->at = f->held = 0;
        if (empty || o->heard >= o->most) return;
        asked = !o->heard ? 1 : o->most - o->heard < SLICE ? o->most - o->heard : SLICE;
        f->held = f->batch(f->queue, o->heard ? FILL : milliseconds, f->messages, (size_t)asked);
    } while (f->held > 0);
    f->held = 0;
}
