/* The compression of BLAKE3 in LANES lanes at once, as FUNCTION; included once for each instruction set.
 *
 * Before the include: LANES (a power of two, 16 at most), FUNCTION, ZIP_LOW and ZIP_HIGH (the interleaved indices of
 * the lower and of the upper halves of two vectors). BLAKE3 paper, 2.2 to 2.5.
 */

#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
#define VEC JOIN(FUNCTION, _vec)

typedef uint32_t VEC __attribute__((vector_size(4 * LANES)));

#define ROTATE(x, by) ((x) >> (by) | (x) << (32 - (by)))
#define MIX(a, b, c, d, x, y)      \
    do {                           \
        a += b + (x);              \
        d = ROTATE(d ^ a, 16);     \
        c += d;                    \
        b = ROTATE(b ^ c, 12);     \
        a += b + (y);              \
        d = ROTATE(d ^ a, 8);      \
        c += d;                    \
        b = ROTATE(b ^ c, 7);      \
    } while (0)

/* Words of LANES inputs, one input in each row, to the same word of all in each row. */
static inline __attribute__((always_inline)) void JOIN(FUNCTION, _transpose)(VEC *rows) {
    VEC next[LANES];
    for (int width = 1; width < LANES; width *= 2) {
        for (int i = 0; i < LANES / 2; i++) {
            next[2 * i] = SHUFFLE(VEC, rows[i], rows[i + LANES / 2], ZIP_LOW);
            next[2 * i + 1] = SHUFFLE(VEC, rows[i], rows[i + LANES / 2], ZIP_HIGH);
        }
        memcpy(rows, next, sizeof next);
    }
}

/* `count` <= LANES inputs of `blocks` * 64 bytes, `size` bytes apart, give `count` chaining values of 32 bytes. Input i
 * has the counter `counter + i * step`; `flags` go with each block, `first` and `last` with those. */
static void FUNCTION(const uint8_t *in, size_t size, unsigned blocks, unsigned count, uint64_t counter, uint64_t step,
                     uint32_t flags, uint32_t first, uint32_t last, uint8_t *out) {
    VEC h[8], m[16], v[16], low, high;
    const VEC zero = {0};
    for (int i = 0; i < 8; i++) h[i] = zero + IV[i];
    for (unsigned lane = 0; lane < LANES; lane++) {
        uint64_t number = counter + lane * step;
        low[lane] = (uint32_t)number;
        high[lane] = (uint32_t)(number >> 32);
    }
    for (unsigned block = 0; block < blocks; block++) {
        for (int part = 0; part < 16; part += LANES) {
            for (unsigned lane = 0; lane < LANES; lane++) {
                const uint8_t *row = in + (lane < count ? lane : 0) * size + block * 64 + part * 4;
                memcpy(&m[part + lane], row, sizeof(VEC));
            }
            JOIN(FUNCTION, _transpose)(m + part);
        }
        uint32_t now = flags | (block == 0 ? first : 0) | (block + 1 == blocks ? last : 0);
        for (int i = 0; i < 8; i++) v[i] = h[i];
        for (int i = 0; i < 4; i++) v[8 + i] = zero + IV[i];
        v[12] = low;
        v[13] = high;
        v[14] = zero + 64u;
        v[15] = zero + now;
UNROLL_7
        for (int round = 0; round < 7; round++) {
            const uint8_t *s = SCHEDULE[round];
            MIX(v[0], v[4], v[8], v[12], m[s[0]], m[s[1]]);
            MIX(v[1], v[5], v[9], v[13], m[s[2]], m[s[3]]);
            MIX(v[2], v[6], v[10], v[14], m[s[4]], m[s[5]]);
            MIX(v[3], v[7], v[11], v[15], m[s[6]], m[s[7]]);
            MIX(v[0], v[5], v[10], v[15], m[s[8]], m[s[9]]);
            MIX(v[1], v[6], v[11], v[12], m[s[10]], m[s[11]]);
            MIX(v[2], v[7], v[8], v[13], m[s[12]], m[s[13]]);
            MIX(v[3], v[4], v[9], v[14], m[s[14]], m[s[15]]);
        }
        for (int i = 0; i < 8; i++) h[i] = v[i] ^ v[i + 8];
    }
    for (unsigned lane = 0; lane < count; lane++)
        for (int i = 0; i < 8; i++) {
            uint32_t word = h[i][lane];
            memcpy(out + 32 * lane + 4 * i, &word, 4);
        }
}

#undef VEC
#undef ROTATE
#undef MIX
#undef LANES
#undef FUNCTION
#undef ZIP_LOW
#undef ZIP_HIGH
