/* SPDX-License-Identifier: Apache-2.0
 *
 * loop.c - the selective scan as one would write it down: fp32, libm, one channel after
 * the other. What bench/selective_scan.py measures against, compiled with cc -O2.
 *
 * One group, everything contiguous: u, delta, out (batch, dim, length); A (dim,
 * states); B, C (batch, length, states), which suits these loops best; softplus on, no
 * gate.
 */
#include <math.h>
#include <stdint.h>

static float softplus(float x) {
    return x <= 20 ? log1pf(expf(x)) : x;
}

void loop_fwd(int64_t batch, int64_t dim, int64_t length, int64_t states,
              const float *u, const float *delta, const float *A, const float *B,
              const float *C, const float *D, const float *bias, float *out);

void loop_bwd(int64_t batch, int64_t dim, int64_t length, int64_t states,
              const float *u, const float *delta, const float *A, const float *B,
              const float *C, const float *D, const float *bias, const float *dout,
              float *du, float *ddelta, float *dA, float *dB, float *dC, float *dD,
              float *dbias, float *decay, float *state);

void loop_fwd(int64_t batch, int64_t dim, int64_t length, int64_t states,
              const float *u, const float *delta, const float *A, const float *B,
              const float *C, const float *D, const float *bias, float *out) {
    for (int64_t b = 0; b < batch; b++)
        for (int64_t d = 0; d < dim; d++) {
            const int64_t row = (b * dim + d) * length;
            float h[256] = {0};
            for (int64_t t = 0; t < length; t++) {
                const float *Bt = B + (b * length + t) * states;
                const float *Ct = C + (b * length + t) * states;
                const float dt = softplus(delta[row + t] + bias[d]);
                float y = D[d] * u[row + t];
                for (int64_t n = 0; n < states; n++) {
                    h[n] =
                        expf(dt * A[d * states + n]) * h[n] + dt * u[row + t] * Bt[n];
                    y += h[n] * Ct[n];
                }
                out[row + t] = y;
            }
        }
}

/* decay, state: scratch of length * states each. The sums must be zero before. */
void loop_bwd(int64_t batch, int64_t dim, int64_t length, int64_t states,
              const float *u, const float *delta, const float *A, const float *B,
              const float *C, const float *D, const float *bias, const float *dout,
              float *du, float *ddelta, float *dA, float *dB, float *dC, float *dD,
              float *dbias, float *decay, float *state) {
    for (int64_t b = 0; b < batch; b++)
        for (int64_t d = 0; d < dim; d++) {
            const int64_t row = (b * dim + d) * length;
            float dh[256] = {0};
            for (int64_t t = 0; t < length; t++) {
                const float *Bt = B + (b * length + t) * states;
                const float dt = softplus(delta[row + t] + bias[d]);
                for (int64_t n = 0; n < states; n++) {
                    const float a = expf(dt * A[d * states + n]);
                    const float before = t ? state[(t - 1) * states + n] : 0;
                    decay[t * states + n] = a;
                    state[t * states + n] = a * before + dt * u[row + t] * Bt[n];
                }
            }
            for (int64_t t = length - 1; t >= 0; t--) {
                const int64_t at = (b * length + t) * states;
                const float raw = delta[row + t] + bias[d], dt = softplus(raw);
                float du_t = D[d] * dout[row + t], ddt = 0;
                for (int64_t n = 0; n < states; n++) {
                    const float a = decay[t * states + n], h = state[t * states + n];
                    const float carry = t ? a * state[(t - 1) * states + n] : 0;
                    dh[n] += dout[row + t] * C[at + n];
                    dC[at + n] += dout[row + t] * h;
                    dB[at + n] += dh[n] * dt * u[row + t];
                    du_t += dh[n] * dt * B[at + n];
                    ddt += dh[n] * (B[at + n] * u[row + t] + A[d * states + n] * carry);
                    dA[d * states + n] += dh[n] * dt * carry;
                    dh[n] *= a;
                }
                du[row + t] = du_t;
                ddelta[row + t] = ddt / (1 + expf(-raw));
                dbias[d] += ddelta[row + t];
                dD[d] += dout[row + t] * u[row + t];
            }
        }
}
