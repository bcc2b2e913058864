/* Floating point and vectors: SSE2, AES-NI, AVX2 and x87. */
#include <immintrin.h>
#include <string.h>

#include "work.h"

enum { SIDE = 96, FLOATS = 4096 };

static uint64_t bits(double value) {
    uint64_t result;
    memcpy(&result, &value, sizeof result);
    return result;
}

static uint64_t matmul(uint64_t count) {
    static double a[SIDE][SIDE], b[SIDE][SIDE], c[SIDE][SIDE];
    for (int i = 0; i < SIDE * SIDE; i++) {
        a[i / SIDE][i % SIDE] = 1.0 / (i + 1);
        b[i / SIDE][i % SIDE] = i % 7 - 3;
    }
    for (uint64_t n = 0; n < count; n++) {
        memset(c, 0, sizeof c);
        for (int i = 0; i < SIDE; i++)
            for (int k = 0; k < SIDE; k++)
                for (int j = 0; j < SIDE; j++)
                    c[i][j] += a[i][k] * b[k][j];
        a[n % SIDE][0] += c[SIDE / 2][SIDE / 2] * 1e-9;
    }
    return bits(c[3][5]);
}

static uint64_t scalar(uint64_t count) {
    double x = 0.5, sum = 0;
    for (uint64_t i = 0; i < count * 1000; i++) {
        x = 3.75 * x * (1 - x);
        sum += x > 0.5 ? x / 3 : -x;
    }
    return bits(sum);
}

static uint64_t sse(uint64_t count) {
    static float x[FLOATS], y[FLOATS];
    for (int i = 0; i < FLOATS; i++) {
        x[i] = (float)(i % 17) / 16;
        y[i] = 1;
    }
    for (uint64_t n = 0; n < count; n++)
        for (int i = 0; i < FLOATS; i += 4) {
            __m128 product = _mm_mul_ps(_mm_load_ps(x + i), _mm_set1_ps(0.25f));
            _mm_store_ps(y + i, _mm_add_ps(product, _mm_mul_ps(_mm_load_ps(y + i),
                                                               _mm_set1_ps(0.5f))));
        }
    return bits(y[5] + y[FLOATS - 1]);
}

__attribute__((target("avx2"))) static uint64_t avx2_run(uint64_t count) {
    static uint32_t data[FLOATS] __attribute__((aligned(32)));
    for (int i = 0; i < FLOATS; i++)
        data[i] = (uint32_t)i * 2654435761u;
    for (uint64_t n = 0; n < count; n++)
        for (int i = 0; i < FLOATS; i += 8) {
            __m256i *at = (__m256i *)(data + i), v = _mm256_load_si256(at);
            v = _mm256_add_epi32(v, _mm256_slli_epi32(v, 3));
            v = _mm256_shuffle_epi8(v, _mm256_set1_epi64x(0x0605040702010003));
            _mm256_store_si256(at, _mm256_xor_si256(v, _mm256_srli_epi32(v, 11)));
        }
    uint64_t sum = 0;
    for (int i = 0; i < FLOATS; i++)
        sum = sum * 31 + data[i];
    return sum;
}

static uint64_t avx2(uint64_t count) {
    if (!__builtin_cpu_supports("avx2"))
        die("avx2: the processor has none");
    return avx2_run(count);
}

__attribute__((target("aes"))) static uint64_t aes_run(uint64_t count) {
    __m128i keys[11], lane[4];
    for (int i = 0; i < 11; i++)
        keys[i] = _mm_set_epi64x(i * 77, i + 1);
    for (int i = 0; i < 4; i++)
        lane[i] = _mm_set_epi64x(0, i);
    for (uint64_t n = 0; n < count * 256; n++)
        for (int i = 0; i < 4; i++) {
            lane[i] = _mm_xor_si128(lane[i], keys[0]);
            for (int round = 1; round < 10; round++)
                lane[i] = _mm_aesenc_si128(lane[i], keys[round]);
            lane[i] = _mm_aesenclast_si128(lane[i], keys[10]);
        }
    __m128i all = _mm_xor_si128(_mm_xor_si128(lane[0], lane[1]), _mm_xor_si128(lane[2], lane[3]));
    return (uint64_t)_mm_cvtsi128_si64(all);
}

static uint64_t aes(uint64_t count) {
    if (!__builtin_cpu_supports("aes"))
        die("aes: the processor has none");
    return aes_run(count);
}

/* long double is x87's 80-bit format on this architecture. */
static uint64_t x87(uint64_t count) {
    long double x = 0.5L, sum = 0;
    for (uint64_t i = 0; i < count * 1000; i++) {
        x = 3.75L * x * (1 - x);
        sum += x * x + 0.125L;
    }
    return bits((double)sum);
}

const struct work vector_works[] = {
    {"matmul", "flop/s", 2.0 * SIDE * SIDE * SIDE, matmul},
    {"scalar", "iterations/s", 1000, scalar},
    {"sse", "floats/s", FLOATS, sse},
    {"avx2", "MiB/s", FLOATS * 4 / 1048576.0, avx2},
    {"aes", "MiB/s", 256 * 64 / 1048576.0, aes},
    {"x87", "iterations/s", 1000, x87},
    {NULL, NULL, 0, NULL},
};
