// Sums over the frames of a batch at one pixel of the object, in the order of the frames: the same to the last bit each time, no atomics.
// A block owns a tile of 32 x 8 pixels. It finds which patches touch its tile, 256 at a time, and all its threads walk over these.
#pragma once
#include "common.cuh"

#define TILE_ROWS 8
#define TILE_COLUMNS 32
#define TILE_THREADS 256

// Calls visit(j, k, p) for each patch (frame j of the batch, sub-step k) that holds the object's pixel (row, column); p: the pixel in it.
// All threads of a block call it together, with pixels of one tile whose first pixel is (tile_row, tile_column).
template <class Visit>
__device__ __forceinline__ void over_patches(int count, const int* __restrict__ frames, const int2* __restrict__ corners, int substeps,
                                             int frame_rows, int frame_columns, int tile_row, int tile_column, int row, int column,
                                             Visit visit) {
    __shared__ unsigned touching[TILE_THREADS / 32];
    __shared__ int2 found[TILE_THREADS], which[TILE_THREADS];
    const int thread = threadIdx.x, patches = count * substeps;
    for (int start = 0; start < patches; start += TILE_THREADS) {
        const int patch = start + thread;
        bool touches = false;
        if (patch < patches) {
            const int j = patch / substeps, k = patch - j * substeps;
            const int2 corner = corners[(long long)frames[j] * substeps + k];
            found[thread] = corner;
            which[thread] = make_int2(j, k);
            touches = corner.x < tile_row + TILE_ROWS && corner.x + frame_rows > tile_row && corner.y < tile_column + TILE_COLUMNS &&
                      corner.y + frame_columns > tile_column;
        }
        const unsigned votes = __ballot_sync(0xffffffffu, touches);
        if ((thread & 31) == 0) touching[thread >> 5] = votes;
        __syncthreads();
        for (int warp = 0; warp < TILE_THREADS / 32; ++warp)
            for (unsigned left = touching[warp]; left; left &= left - 1) {
                const int place = warp * 32 + __ffs(left) - 1, r = row - found[place].x, c = column - found[place].y;
                if (r >= 0 && r < frame_rows && c >= 0 && c < frame_columns)
                    visit(which[place].x, which[place].y, r * frame_columns + c);
            }
        __syncthreads();
    }
}
