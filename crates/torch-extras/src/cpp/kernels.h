// Loops over rows that the attention needs, compiled for three generations of x86 and chosen when the program starts.
#pragma once

#include <c10/util/BFloat16.h>
#include <cstdint>

namespace kernels {

// Row of scores x to exp(scale (x - max)); returns scale max + log(sum) and hands out the inverse of the sum.
float exp_row(float *row, int64_t n, float scale, float &inverse);
double exp_row(double *row, int64_t n, double scale, double &inverse);
float exp_row(c10::BFloat16 *row, int64_t n, float scale, float &inverse);

float dot(const float *a, const float *b, int64_t n);
double dot(const double *a, const double *b, int64_t n);
float dot(const c10::BFloat16 *a, const c10::BFloat16 *b, int64_t n);

// From scores s and the gradient c by the attention map: a = exp(scale s - lse) and q = scale a (c - delta).
// float: a in the place of s, q in the place of c. bf16: q in the place of s, a in the place of c.
void attention_row_gradient(float *s, float *c, int64_t n, float scale, float lse, float delta);
void attention_row_gradient(double *s, double *c, int64_t n, double scale, double lse, double delta);
void attention_row_gradient(c10::BFloat16 *s, c10::BFloat16 *c, int64_t n, float scale, float lse, float delta);

// q <- q + q^T of an n x n matrix whose rows are `ld` apart.
void add_transpose(float *q, int64_t n, int64_t ld);
void add_transpose(double *q, int64_t n, int64_t ld);
void add_transpose(c10::BFloat16 *q, int64_t n, int64_t ld);

// to = factor from; the two may be one.
void scaled_copy(float *to, const float *from, int64_t n, float factor);
void scaled_copy(double *to, const double *from, int64_t n, double factor);
void scaled_copy(c10::BFloat16 *to, const c10::BFloat16 *from, int64_t n, float factor);

} // namespace kernels
