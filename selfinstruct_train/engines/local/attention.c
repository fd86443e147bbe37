/* Attention of one new token a row over the row's own keys and values on a CPU, in float32; keys and
 * values may be bfloat16, which is the upper half of a float32 and is widened as it is read.
 *
 * Matrix products of height 1 reach a third of the speed at which memory can be read, and need every
 * row padded to the longest. Here each row is read once, as far as it is filled. Sums run over fixed
 * lanes, so their order does not depend on the vectors of the machine, nor on the rows beside it.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("avx512f", "avx2,fma", "default")))
#else
#define CLONES
#endif
#define INLINE static inline __attribute__((always_inline))
#define LANES 16
#define AT_ONCE 4
#define MOST 256

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Whole __attribute__((vector_size(4 * LANES)));
typedef uint32_t Wide __attribute__((vector_size(4 * LANES)));
typedef uint16_t Half __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

/* LANES numbers from place `at` on; `half` says whether they are bfloat16. */
INLINE Vector load(const void *from, int64_t at, int half)
{
    if (half)
        return (Vector)(__builtin_convertvector(*(const Half *)((const uint16_t *)from + at), Wide)
                        << 16);
    return *(const Vector *)((const float *)from + at);
}

INLINE float sum_of(const Vector *v)
{
    float part[LANES];
    memcpy(part, v, sizeof part);
    for (int half = LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++)
            part[j] += part[j + half];
    return part[0];
}

/* exp(x) for x <= 0 to about 2e-7: 2^n times a polynomial on [-ln2/2, ln2/2]. */
INLINE Vector exponential(Vector x)
{
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to whole numbers */
    Whole low = (Whole)(x < -87.0f);
    Vector n = x * 1.44269504f + shift;
    Whole power = ((Whole)n + 127) << 23;
    n -= shift;
    Vector r = x - n * 0.693359375f + n * 2.12194440e-4f;
    Vector p = r * (1.0f / 5040) + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return (Vector)((Whole)(p * (Vector)power) & ~low);
}

/* One query over `count` keys and values; gives the logarithm of the sum of the softmax.
 * `scores` has room for `count` rounded up to whole vectors. */
INLINE float attend(const float *q, const void *k, const void *v, float *out, float *scores,
                    int64_t count, int64_t size, float scale, int half)
{
    float most = -INFINITY;
    for (int64_t t = 0; t < count; t++) {
        Vector sum = {0};
        for (int64_t d = 0; d < size; d += LANES)
            sum += *(const Vector *)(q + d) * load(k, t * size + d, half);
        scores[t] = sum_of(&sum) * scale;
        most = scores[t] > most ? scores[t] : most;
    }
    for (int64_t t = count; t % LANES; t++)
        scores[t] = -INFINITY;
    Vector sum = {0};
    for (int64_t t = 0; t < count; t += LANES) {
        Vector *at = (Vector *)(scores + t);
        *at = exponential(*at - most);
        sum += *at;
    }
    float total = sum_of(&sum);
    Vector mean[MOST / LANES] = {0};
    int64_t t = 0;
    for (; t + AT_ONCE <= count; t += AT_ONCE) {
        const float *w = scores + t;
        for (int64_t d = 0; d < size; d += LANES) {
            int64_t at = t * size + d;
            mean[d / LANES] += w[0] * load(v, at, half) + w[1] * load(v, at + size, half)
                + w[2] * load(v, at + 2 * size, half) + w[3] * load(v, at + 3 * size, half);
        }
    }
    for (; t < count; t++)
        for (int64_t d = 0; d < size; d += LANES)
            mean[d / LANES] += scores[t] * load(v, t * size + d, half);
    for (int64_t d = 0; d < size; d += LANES)
        *(Vector *)(out + d) = mean[d / LANES] / total;
    return most + logf(total);
}

/* Rows first to last - 1.
 *
 * query, out  [rows, heads * group, size]; size is a multiple of 16, at most 256
 * keys, values  [slots, heads, capacity, size]; slot i is that of row i
 * seen  [rows], tokens in the slot that the row attends to, the new one included
 * mass  [rows, heads * group], logarithm of the sum that the softmax divides by
 * scores  room for capacity + 16 floats
 * window  how many of the last tokens are seen at most
 */
INLINE void attend_slots(const float *query, const void *keys, const void *values,
                         const int64_t *seen, float *out, float *mass, float *scores, int64_t first,
                         int64_t last, int64_t heads, int64_t group, int64_t size, int64_t capacity,
                         int64_t window, float scale, int half)
{
    for (int64_t row = first; row < last; row++) {
        int64_t end = seen[row], count = end > window ? window : end;
        for (int64_t head = 0; head < heads * group; head++) {
            int64_t place = row * heads * group + head;
            int64_t slot = ((row * heads + head / group) * capacity + end - count) * size;
            slot *= half ? sizeof(uint16_t) : sizeof(float);
            const char *k = (const char *)keys + slot, *v = (const char *)values + slot;
            const float *q = query + place * size;
            float *o = out + place * size;
            /* Written out for the usual sizes, so that sums stay in registers. */
            if (size == 64)
                mass[place] = attend(q, k, v, o, scores, count, 64, scale, half);
            else if (size == 128)
                mass[place] = attend(q, k, v, o, scores, count, 128, scale, half);
            else
                mass[place] = attend(q, k, v, o, scores, count, size, scale, half);
        }
    }
}

CLONES void attend_rows(const float *query, const float *keys, const float *values,
                        const int64_t *seen, float *out, float *mass, float *scores, int64_t first,
                        int64_t last, int64_t heads, int64_t group, int64_t size, int64_t capacity,
                        int64_t window, float scale)
{
    attend_slots(query, keys, values, seen, out, mass, scores, first, last, heads, group, size,
                 capacity, window, scale, 0);
}

/* The same over keys and values in bfloat16. */
CLONES void attend_half_rows(const float *query, const uint16_t *keys, const uint16_t *values,
                             const int64_t *seen, float *out, float *mass, float *scores,
                             int64_t first, int64_t last, int64_t heads, int64_t group,
                             int64_t size, int64_t capacity, int64_t window, float scale)
{
    attend_slots(query, keys, values, seen, out, mass, scores, first, last, heads, group, size,
                 capacity, window, scale, 1);
}
