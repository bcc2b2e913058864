/* Byte-wise work: hashing, compression, words. */
#include <string.h>

#include "work.h"

enum { BLOCK = 64 << 10 };

/* Text-like bytes: words of a small vocabulary with some noise. */
static const uint8_t *sample(void) {
    static uint8_t text[BLOCK];
    static const char *const words[] = {"the ", "guest ", "memory ", "of ", "a ", "page ", "table ",
                                        "entry ", "is ", "read ", "and ", "written ", "by "};
    if (!text[0]) {
        uint64_t seed = 5;
        size_t at = 0;
        while (at < BLOCK) {
            uint64_t random = next_random(&seed);
            const char *word = words[random % 13];
            for (; *word && at < BLOCK; word++)
                text[at++] = (uint8_t)*word;
            if (random % 29 == 0 && at < BLOCK)
                text[at++] = (uint8_t)('0' + (random >> 8) % 10);
        }
    }
    return text;
}

/* FIPS 180-4. */
static const uint32_t sha256_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t x, int by) { return x >> by | x << (32 - by); }

/* One round; the caller renames the variables instead of moving their values. */
#define ROUND(a, b, c, d, e, f, g, h, i)                                                       \
    do {                                                                                       \
        uint32_t one = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) + \
                       sha256_constants[i] + w[i];                                             \
        d += one;                                                                              \
        h = one + (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c)); \
    } while (0)

static void sha256_block(uint32_t state[8], const uint8_t *data) {
    uint32_t w[64];
    for (int i = 0; i < 16; i++) {
        uint32_t word;
        memcpy(&word, data + 4 * i, 4);
        w[i] = __builtin_bswap32(word);
    }
    for (int i = 16; i < 64; i++) {
        uint32_t x = w[i - 15], y = w[i - 2];
        w[i] = w[i - 16] + w[i - 7] + (rotate(x, 7) ^ rotate(x, 18) ^ x >> 3) +
               (rotate(y, 17) ^ rotate(y, 19) ^ y >> 10);
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (int i = 0; i < 64; i += 8) {
        ROUND(a, b, c, d, e, f, g, h, i);
        ROUND(h, a, b, c, d, e, f, g, i + 1);
        ROUND(g, h, a, b, c, d, e, f, i + 2);
        ROUND(f, g, h, a, b, c, d, e, i + 3);
        ROUND(e, f, g, h, a, b, c, d, i + 4);
        ROUND(d, e, f, g, h, a, b, c, i + 5);
        ROUND(c, d, e, f, g, h, a, b, i + 6);
        ROUND(b, c, d, e, f, g, h, a, i + 7);
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
}

static uint64_t sha256(uint64_t count) {
    uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    const uint8_t *text = sample();
    for (uint64_t n = 0; n < count; n++)
        for (size_t at = 0; at < BLOCK; at += 64)
            sha256_block(state, text + at);
    return (uint64_t)state[0] << 32 | state[7];
}

/* Greedy matches of 4 bytes or more by a hash of the next 4, and the way back as a check. */
static size_t pack(const uint8_t *from, uint8_t *to) {
    static uint32_t seen[1 << 12];
    memset(seen, 0, sizeof seen);
    size_t at = 0, out = 0, literals = 0, run = out++;
    while (at + 4 <= BLOCK) {
        uint32_t word;
        memcpy(&word, from + at, 4);
        uint32_t *slot = &seen[word * 2654435761u >> 20];
        size_t before = *slot, length = 0;
        *slot = (uint32_t)at;
        if (before < at && at - before < 65536)
            while (length < 255 && at + length < BLOCK && from[before + length] == from[at + length])
                length++;
        if (length >= 4) {
            to[run] = (uint8_t)literals;
            to[out++] = (uint8_t)length;
            to[out++] = (uint8_t)(at - before);
            to[out++] = (uint8_t)((at - before) >> 8);
            at += length;
            literals = 0;
            run = out++;
        } else {
            to[out++] = from[at++];
            if (++literals == 255) {
                to[run] = 255;
                to[out++] = 0;
                literals = 0;
                run = out++;
            }
        }
    }
    to[run] = (uint8_t)literals;
    return out;
}

static size_t unpack(const uint8_t *from, size_t size, uint8_t *to) {
    size_t at = 0, out = 0;
    while (at < size) {
        size_t literals = from[at++];
        memcpy(to + out, from + at, literals);
        out += literals;
        at += literals;
        if (at >= size)
            break;
        size_t length = from[at++];
        if (!length)
            continue;
        size_t distance = from[at] | (size_t)from[at + 1] << 8;
        at += 2;
        for (; length; length--, out++)
            to[out] = to[out - distance];
    }
    return out;
}

static uint64_t compress(uint64_t count) {
    static uint8_t packed[2 * BLOCK], plain[BLOCK + 256];
    const uint8_t *text = sample();
    uint64_t sum = 0;
    for (uint64_t n = 0; n < count; n++) {
        size_t size = pack(text, packed), length = unpack(packed, size, plain);
        if (length + 4 < BLOCK || memcmp(text, plain, length))
            die("compress");
        sum = sum * 31 + size;
    }
    return sum;
}

/* Splits the text into words, counts them in a hash table (FNV-1a). */
static uint64_t words(uint64_t count) {
    static struct {
        uint64_t hash;
        uint32_t times;
    } table[1024];
    const uint8_t *text = sample();
    uint64_t sum = 0;
    for (uint64_t n = 0; n < count; n++) {
        memset(table, 0, sizeof table);
        uint64_t hash = 0xcbf29ce484222325u;
        for (size_t at = 0; at < BLOCK; at++) {
            if (text[at] != ' ') {
                hash = (hash ^ text[at]) * 0x100000001b3u;
                continue;
            }
            size_t slot = hash % 1024;
            while (table[slot].times && table[slot].hash != hash)
                slot = (slot + 1) % 1024;
            table[slot].hash = hash;
            sum += ++table[slot].times;
            hash = 0xcbf29ce484222325u;
        }
    }
    return sum;
}

static const double mebibytes = BLOCK / 1048576.0;

const struct work text_works[] = {
    {"sha256", "MiB/s", mebibytes, sha256},
    {"compress", "MiB/s", mebibytes, compress},
    {"words", "MiB/s", mebibytes, words},
    {NULL, NULL, 0, NULL},
};
