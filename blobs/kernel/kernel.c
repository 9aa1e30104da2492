/* BLAKE3's tree over many chunks at once: chaining values of subtrees and of parents.
 *
 * An optional extension: where it does not build, or cannot be loaded, numpy does the same, and both are held to the
 * scalar form in reference.py. Vector types of GCC and Clang; the widest that the processor has is chosen at import.
 */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#if !defined(__GNUC__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "needs the vector types of GCC or Clang, and little-endian words"
#endif

enum { CHUNK = 1024, BLOCK = 64, CV = 32 };
enum { CHUNK_START = 1, CHUNK_END = 2, PARENT = 4, ROOT = 8 };

static const uint32_t IV[8] = {0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
                               0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19};

static const uint8_t SCHEDULE[7][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8},
    {3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1},
    {10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6},
    {12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4},
    {9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7},
    {11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13},
};

#if defined(__clang__)
#define SHUFFLE(type, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#define UNROLL_7 _Pragma("clang loop unroll(full)")
#else
#define SHUFFLE(type, a, b, ...) __builtin_shuffle(a, b, (type){__VA_ARGS__})
#define UNROLL_7 _Pragma("GCC unroll 7")
#endif

typedef void (*Compress)(const uint8_t *, size_t, unsigned, unsigned, uint64_t, uint64_t, uint32_t, uint32_t, uint32_t,
                         uint8_t *);

#define LANES 4
#define FUNCTION compress_4
#define ZIP_LOW 0, 4, 1, 5
#define ZIP_HIGH 2, 6, 3, 7
#include "lanes.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif
#define LANES 8
#define FUNCTION compress_8
#define ZIP_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define ZIP_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#include "lanes.h"
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512bw")
#endif
#define LANES 16
#define FUNCTION compress_16
#define ZIP_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define ZIP_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#include "lanes.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

static Compress compress = compress_4;
static unsigned lanes = 4;
static const char *form = "4 lanes";

static void choose(unsigned most) {
    compress = compress_4, lanes = 4, form = "4 lanes";
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (most >= 8 && __builtin_cpu_supports("avx2")) compress = compress_8, lanes = 8, form = "8 lanes (AVX2)";
    if (most >= 16 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw"))
        compress = compress_16, lanes = 16, form = "16 lanes (AVX-512)";
#endif
}

static void parents(const uint8_t *pairs, size_t count, uint32_t root, uint8_t *out) {
    for (size_t at = 0; at < count; at += lanes) {
        unsigned some = count - at < lanes ? (unsigned)(count - at) : lanes;
        compress(pairs + at * BLOCK, BLOCK, 1, some, 0, 0, PARENT | root, 0, 0, out + at * CV);
    }
}

/* The chunk of fewer than CHUNK bytes at a blob's end, in one lane: whole blocks, then the last one, padded. */
static void short_chunk(const uint8_t *data, size_t size, uint64_t counter, uint8_t *out) {
    uint32_t h[8], v[16], m[16];
    memcpy(h, IV, sizeof h);
    size_t last = size ? (size - 1) / BLOCK : 0;
    for (size_t block = 0; block <= last; block++) {
        size_t length = block < last ? BLOCK : size - last * BLOCK;
        memset(m, 0, sizeof m);
        memcpy(m, data + block * BLOCK, length);
        memcpy(v, h, sizeof h);
        memcpy(v + 8, IV, 16);
        v[12] = (uint32_t)counter;
        v[13] = (uint32_t)(counter >> 32);
        v[14] = (uint32_t)length;
        v[15] = (block == 0 ? CHUNK_START : 0) | (block == last ? CHUNK_END : 0);
#define TURN(x, by) ((x) >> (by) | (x) << (32 - (by)))
#define MIX(a, b, c, d, x, y)                                                              \
    v[a] += v[b] + m[x], v[d] = TURN(v[d] ^ v[a], 16), v[c] += v[d], v[b] = TURN(v[b] ^ v[c], 12), \
        v[a] += v[b] + m[y], v[d] = TURN(v[d] ^ v[a], 8), v[c] += v[d], v[b] = TURN(v[b] ^ v[c], 7)
        for (int round = 0; round < 7; round++) {
            const uint8_t *s = SCHEDULE[round];
            MIX(0, 4, 8, 12, s[0], s[1]), MIX(1, 5, 9, 13, s[2], s[3]);
            MIX(2, 6, 10, 14, s[4], s[5]), MIX(3, 7, 11, 15, s[6], s[7]);
            MIX(0, 5, 10, 15, s[8], s[9]), MIX(1, 6, 11, 12, s[10], s[11]);
            MIX(2, 7, 8, 13, s[12], s[13]), MIX(3, 4, 9, 14, s[14], s[15]);
        }
        for (int i = 0; i < 8; i++) h[i] = v[i] ^ v[i + 8];
    }
    memcpy(out, h, sizeof h);
}

/* Levels above `count` chaining values in place, until subtrees of `leaves` of them are one; returns how many are left.
 * An odd last one waits for the level at which it has a neighbour. */
static size_t pair_up(uint8_t *cvs, size_t count, size_t leaves) {
    for (; leaves > 1 && count > 1; leaves /= 2) {
        size_t even = count / 2;
        parents(cvs, even, 0, cvs);
        if (count % 2) memmove(cvs + even * CV, cvs + (count - 1) * CV, CV);
        count = even + count % 2;
    }
    return count;
}

PyDoc_STRVAR(subtrees_doc, "subtrees(data, first_chunk, chunks, /)\n--\n\n"
                           "The chaining values, 32 bytes each and joined, of the consecutive subtrees of `chunks`\n"
                           "chunks (a power of two) in `data`; only the last may be short. Never the root.");

static PyObject *subtrees(PyObject *self, PyObject *args) {
    Py_buffer data;
    unsigned long long first, chunks;
    if (!PyArg_ParseTuple(args, "y*KK", &data, &first, &chunks)) return NULL;
    PyObject *result = NULL;
    if (chunks == 0 || (chunks & (chunks - 1))) {
        PyErr_SetString(PyExc_ValueError, "chunks is a power of two");
        goto done;
    }
    const uint8_t *in = data.buf;
    size_t size = (size_t)data.len, whole = size / CHUNK, count = whole + (size % CHUNK || size == 0);
    uint8_t *cvs = PyMem_Malloc(count * CV);
    if (cvs == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS;
    for (size_t at = 0; at < whole; at += lanes) {
        unsigned some = whole - at < lanes ? (unsigned)(whole - at) : lanes;
        compress(in + at * CHUNK, CHUNK, CHUNK / BLOCK, some, first + at, 1, 0, CHUNK_START, CHUNK_END, cvs + at * CV);
    }
    if (count > whole) short_chunk(in + whole * CHUNK, size % CHUNK, first + whole, cvs + whole * CV);
    count = pair_up(cvs, count, chunks);
    Py_END_ALLOW_THREADS;
    result = PyBytes_FromStringAndSize((const char *)cvs, (Py_ssize_t)(count * CV));
    PyMem_Free(cvs);
done:
    PyBuffer_Release(&data);
    return result;
}

PyDoc_STRVAR(parents_doc, "parents(pairs, /)\n--\n\n"
                          "The chaining values, 32 bytes each and joined, of the nodes over 64-byte pairs.");

static PyObject *parents_py(PyObject *self, PyObject *args) {
    Py_buffer pairs;
    if (!PyArg_ParseTuple(args, "y*", &pairs)) return NULL;
    PyObject *result = NULL;
    if (pairs.len % BLOCK) {
        PyErr_SetString(PyExc_ValueError, "pairs are 64 bytes each");
        goto done;
    }
    result = PyBytes_FromStringAndSize(NULL, pairs.len / 2);
    if (result != NULL) {
        uint8_t *out = (uint8_t *)PyBytes_AsString(result);
        Py_BEGIN_ALLOW_THREADS;
        parents(pairs.buf, (size_t)pairs.len / BLOCK, 0, out);
        Py_END_ALLOW_THREADS;
    }
done:
    PyBuffer_Release(&pairs);
    return result;
}

PyDoc_STRVAR(use_doc, "use(lanes, /)\n--\n\nUse the widest form of at most so many lanes; its name. For tests.");

static PyObject *use(PyObject *self, PyObject *args) {
    unsigned most;
    if (!PyArg_ParseTuple(args, "I", &most)) return NULL;
    choose(most);
    return PyUnicode_FromString(form);
}

static PyMethodDef methods[] = {
    {"subtrees", subtrees, METH_VARARGS, subtrees_doc},
    {"parents", parents_py, METH_VARARGS, parents_doc},
    {"use", use, METH_VARARGS, use_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_kernel",
    .m_doc = "BLAKE3's tree in vector lanes.",
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__kernel(void) {
    choose(16);
    return PyModule_Create(&module);
}
