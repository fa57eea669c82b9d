// What sum_m |psi_jm - P_jm O_j(. + r)|^2 is as a function of the shift r, up to a constant: its lowest point is looked for at whole pixels,
// then on a fine grid around it. C_j(r) = sum_p L_j(p) T_j(p + r) - 2 Re W_j(p)* O_j(p + r), summed over sub-steps k and object modes q, with
// L_k = 1/K sum_m |P_mk|^2,  T_qk = |O_qk|^2,  W_qk = K^-1/2 sum_m conj(P_mk) psi_mqk. Its transform is conj(F L) F T - 2 conj(F W) F O.
#include "model.cuh"
#include "psi.cuh"

// terms[0 .. 3, j] = L_k, T_qk, W_qk, O_qk of one k and q; terms (4, frame, y, x), psi (frame, wave, y, x), which is owed a factor.
// A thread is a pixel of a frame: blocks (pixels / 256, frames).
extern "C" __global__ void __launch_bounds__(256)
correlation_terms(float2* __restrict__ terms, const Psi* __restrict__ psi, float factor, int k, int q, MODEL_PARAMETERS) {
    const Model model = MODEL;
    const int p = blockIdx.x * 256 + threadIdx.x, j = blockIdx.y;
    if (p >= model.pixels()) return;
    float light = 0;
    float2 onto = make_float2(0.f, 0.f);
    for (int m = 0; m < probe_modes; ++m) {
        const float2 probe = model.probe(j, m, k, p);
        light += abs2(probe);
        onto = add(onto, conjugate_multiply(probe, wide(psi[model.index(j, (m * object_modes + q) * substeps + k, p)])));
    }
    const float2 patch = model.object(q, model.place(j, k, p));
    const long long i = (long long)j * model.pixels() + p, next = (long long)gridDim.y * model.pixels();
    terms[i] = make_float2(light / (float)substeps, 0.f);
    terms[next + i] = make_float2(abs2(patch), 0.f);
    terms[2 * next + i] = scale(factor * model.weight(), onto);
    terms[3 * next + i] = patch;
}

// spectrum += conj(F L) F T - 2 conj(F W) F O; terms (4, count) as above, transformed; spectrum (count,). A thread is a number: blocks (count / 256).
extern "C" __global__ void __launch_bounds__(256)
correlate(float2* __restrict__ spectrum, const float2* __restrict__ terms, long long count) {
    const long long i = blockIdx.x * 256LL + threadIdx.x;
    if (i >= count) return;
    const float2 light = conjugate_multiply(terms[i], terms[count + i]), wave = conjugate_multiply(terms[2 * count + i], terms[3 * count + i]);
    spectrum[i] = add(spectrum[i], subtract(light, scale(2.f, wave)));
}

// window[j, a, b] = Re C_j at (a, b) - whole px, cyclic; C (frame, rows, columns), window (frame, 2 whole + 1, 2 whole + 1).
// A thread is a place: blocks (places / 256, frames).
extern "C" __global__ void __launch_bounds__(256)
correlation_window(float* __restrict__ window, const float2* __restrict__ C, int whole, int rows, int columns) {
    const int side = 2 * whole + 1, i = blockIdx.x * 256 + threadIdx.x, j = blockIdx.y;
    if (i >= side * side) return;
    const int row = ((i / side - whole) % rows + rows) % rows, column = ((i % side - whole) % columns + columns) % columns;
    window[(long long)j * side * side + i] = C[((long long)j * rows + row) * columns + column].x;
}

// turns[j, i, a] = exp(2 pi i f_i (at_j + reach (2 a / (points - 1) - 1))), f the frequencies of an FFT of this size, cycles per px; turns
// (frame, size, points), at (frame, yx) px, of which one axis counts (0: y). A thread is a number: blocks (size points / 256, frames).
extern "C" __global__ void __launch_bounds__(256)
correlation_turns(float2* __restrict__ turns, const int2* __restrict__ at, int axis, int size, int points, double reach) {
    const int n = blockIdx.x * 256 + threadIdx.x, j = blockIdx.y, i = n / points, a = n % points;
    if (i >= size) return;
    const double place = (axis ? at[j].y : at[j].x) + reach * (2. * a / (points - 1) - 1.);
    const double cycles = place * (2 * i < size ? i : i - size) / size;
    double sine, cosine;
    sincospi(2. * (cycles - rint(cycles)), &sine, &cosine);
    turns[((long long)j * size + i) * points + a] = make_float2((float)cosine, (float)sine);
}

// half[j, r, b] = sum_c spectrum[j, r, c] turns[j, c, b]; half (frame, rows, points). A thread is a number: blocks (rows points / 256, frames).
extern "C" __global__ void __launch_bounds__(256)
correlation_rows(double2* __restrict__ half, const float2* __restrict__ spectrum, const float2* __restrict__ turns, int rows, int columns,
                 int points) {
    const int n = blockIdx.x * 256 + threadIdx.x, j = blockIdx.y, r = n / points, b = n % points;
    if (r >= rows) return;
    double real = 0, imaginary = 0;
    for (int c = 0; c < columns; ++c) {
        const float2 number = spectrum[((long long)j * rows + r) * columns + c], turn = turns[((long long)j * columns + c) * points + b];
        real += (double)number.x * turn.x - (double)number.y * turn.y, imaginary += (double)number.x * turn.y + (double)number.y * turn.x;
    }
    half[((long long)j * rows + r) * points + b] = make_double2(real, imaginary);
}

// surface[j, a, b] = Re sum_r turns[j, r, a] half[j, r, b]; surface (frame, points, points). A thread is a number: blocks (points^2 / 256, frames).
extern "C" __global__ void __launch_bounds__(256)
correlation_surface(double* __restrict__ surface, const double2* __restrict__ half, const float2* __restrict__ turns, int rows, int points) {
    const int n = blockIdx.x * 256 + threadIdx.x, j = blockIdx.y, a = n / points, b = n % points;
    if (a >= points) return;
    double sum = 0;
    for (int r = 0; r < rows; ++r) {
        const float2 turn = turns[((long long)j * rows + r) * points + a];
        const double2 number = half[((long long)j * rows + r) * points + b];
        sum += turn.x * number.x - turn.y * number.y;
    }
    surface[(long long)j * points * points + n] = sum;
}
