/* Words and their byte planes: what bits.py does in NumPy, in one pass and without the interpreter's
 * lock. Every function takes contiguous buffers whose sizes agree, and raises ValueError otherwise.
 * Words are little-endian, aligned or not. Format: docs/format/codecs.md.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <stdint.h>
#include <string.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "words are read as they stand: little-endian machines only"
#endif

/* One binary for every processor of the kind, and the fastest loop that this one has. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__)
#define LOOP __attribute__((target_clones("arch=skylake-avx512", "avx2", "default"))) static void
#else
#define LOOP static void
#endif

#define MAX_WIDTH 8

typedef uint8_t *restrict Out;
typedef const uint8_t *restrict In;

/* The upper half of a word, or a word of two bytes, rotated by `turn` bits to the left. */
#define LEFT(word, turn, bits) (((word) << (turn)) | ((word) >> ((bits) - (turn))))

LOOP split2(In words, Out p0, Out p1, Py_ssize_t count, int turn) {
    for (Py_ssize_t i = 0; i < count; i++) {
        uint16_t raw;
        memcpy(&raw, words + 2 * i, 2);
        uint32_t word = LEFT((uint32_t)raw, turn, 16);
        p0[i] = (uint8_t)word;
        p1[i] = (uint8_t)(word >> 8);
    }
}

LOOP split4(In words, Out p0, Out p1, Out p2, Out p3, Py_ssize_t count, int turn) {
    for (Py_ssize_t i = 0; i < count; i++) {
        uint32_t word;
        memcpy(&word, words + 4 * i, 4);
        uint32_t high = LEFT(word >> 16, turn, 16);
        p0[i] = (uint8_t)word;
        p1[i] = (uint8_t)(word >> 8);
        p2[i] = (uint8_t)high;
        p3[i] = (uint8_t)(high >> 8);
    }
}

LOOP split8(In words, Out *p, Py_ssize_t count, int turn) {
    Out p0 = p[0], p1 = p[1], p2 = p[2], p3 = p[3], p4 = p[4], p5 = p[5], p6 = p[6], p7 = p[7];
    for (Py_ssize_t i = 0; i < count; i++) {
        uint64_t word;
        memcpy(&word, words + 8 * i, 8);
        uint64_t high = LEFT(word >> 32, turn, 32);
        p0[i] = (uint8_t)word;
        p1[i] = (uint8_t)(word >> 8);
        p2[i] = (uint8_t)(word >> 16);
        p3[i] = (uint8_t)(word >> 24);
        p4[i] = (uint8_t)high;
        p5[i] = (uint8_t)(high >> 8);
        p6[i] = (uint8_t)(high >> 16);
        p7[i] = (uint8_t)(high >> 24);
    }
}

LOOP join2(Out words, In p0, In p1, Py_ssize_t count, int turn) {
    for (Py_ssize_t i = 0; i < count; i++) {
        uint32_t word = p0[i] | (uint32_t)p1[i] << 8;
        uint16_t raw = (uint16_t)LEFT(word, 16 - turn, 16);
        memcpy(words + 2 * i, &raw, 2);
    }
}

LOOP join4(Out words, In p0, In p1, In p2, In p3, Py_ssize_t count, int turn) {
    for (Py_ssize_t i = 0; i < count; i++) {
        uint32_t high = p2[i] | (uint32_t)p3[i] << 8;
        uint32_t low = p0[i] | (uint32_t)p1[i] << 8;
        uint32_t word = low | LEFT(high, 16 - turn, 16) << 16;
        memcpy(words + 4 * i, &word, 4);
    }
}

LOOP join8(Out words, In *p, Py_ssize_t count, int turn) {
    In p0 = p[0], p1 = p[1], p2 = p[2], p3 = p[3], p4 = p[4], p5 = p[5], p6 = p[6], p7 = p[7];
    for (Py_ssize_t i = 0; i < count; i++) {
        uint64_t low = p0[i] | (uint32_t)p1[i] << 8 | (uint32_t)p2[i] << 16 | (uint32_t)p3[i] << 24;
        uint64_t high =
            p4[i] | (uint32_t)p5[i] << 8 | (uint32_t)p6[i] << 16 | (uint32_t)p7[i] << 24;
        uint64_t word = low | LEFT(high, 32 - turn, 32) << 32;
        memcpy(words + 8 * i, &word, 8);
    }
}

/* `ordered` maps floats to integers of their order, and back: it is its own inverse. */

#define STEPS(width, bits, type)                                                                   \
    static inline type ordered##bits(type word) {                                                  \
        return (type)(word ^ ((type)(0 - (word >> (bits - 1))) >> 1));                             \
    }                                                                                              \
    LOOP difference##bits(In words, In base, Out out, Py_ssize_t count, int floating) {            \
        for (Py_ssize_t i = 0; i < count; i++) {                                                   \
            type word, from, step;                                                                 \
            memcpy(&word, words + width * i, width);                                               \
            memcpy(&from, base + width * i, width);                                                \
            if (floating) {                                                                        \
                word = ordered##bits(word);                                                        \
                from = ordered##bits(from);                                                        \
            }                                                                                      \
            step = (type)(word - from);                                                            \
            step = (type)((type)(step << 1) ^ (type)(0 - (step >> (bits - 1))));                   \
            memcpy(out + width * i, &step, width);                                                 \
        }                                                                                          \
    }                                                                                              \
    /* `out` may be `steps`. */                                                                    \
    LOOP restore##bits(const uint8_t *steps, In base, uint8_t *out, Py_ssize_t count,              \
                       int floating) {                                                             \
        for (Py_ssize_t i = 0; i < count; i++) {                                                   \
            type step, from, word;                                                                 \
            memcpy(&step, steps + width * i, width);                                               \
            memcpy(&from, base + width * i, width);                                                \
            step = (type)((type)(step >> 1) ^ (type)(0 - (step & 1)));                             \
            word = (type)(step + (floating ? ordered##bits(from) : from));                         \
            word = floating ? ordered##bits(word) : word;                                          \
            memcpy(out + width * i, &word, width);                                                 \
        }                                                                                          \
    }

STEPS(1, 8, uint8_t)
STEPS(2, 16, uint16_t)
STEPS(4, 32, uint32_t)
STEPS(8, 64, uint64_t)

static int is_width(int width) { return width == 1 || width == 2 || width == 4 || width == 8; }

static int is_turn(int width, int turn) {
    return turn >= 0 && (turn == 0 || (width > 1 && turn < (width == 8 ? 32 : 16)));
}

/* Words and their planes, held while a call is at work. */
typedef struct {
    Py_buffer words;
    Py_buffer planes[MAX_WIDTH];
    int held;
} Rows;

static void let_go(Rows *rows) {
    PyBuffer_Release(&rows->words);
    while (rows->held > 0)
        PyBuffer_Release(&rows->planes[--rows->held]);
}

/* Take hold of the planes, a sequence of `width` buffers of a byte for each word. */
static int hold(Rows *rows, PyObject *planes, int width, int turn, int flags) {
    rows->held = 0;
    if (!is_width(width) || !is_turn(width, turn) || rows->words.len % width ||
        PySequence_Size(planes) != width) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "words and planes do not agree");
        return -1;
    }
    for (int k = 0; k < width; k++) {
        PyObject *plane = PySequence_GetItem(planes, k);
        if (plane == NULL)
            return -1;
        int got = PyObject_GetBuffer(plane, &rows->planes[k], flags);
        Py_DECREF(plane);
        if (got < 0)
            return -1;
        rows->held++;
        if (rows->planes[k].len != rows->words.len / width) {
            PyErr_SetString(PyExc_ValueError, "a plane has not one byte for each word");
            return -1;
        }
    }
    return 0;
}

static PyObject *py_split(PyObject *self, PyObject *args) {
    (void)self;
    Rows rows;
    PyObject *planes;
    int width, turn;
    if (!PyArg_ParseTuple(args, "y*Oii", &rows.words, &planes, &width, &turn))
        return NULL;
    if (hold(&rows, planes, width, turn, PyBUF_WRITABLE) < 0) {
        let_go(&rows);
        return NULL;
    }
    uint8_t *p[MAX_WIDTH];
    for (int k = 0; k < width; k++)
        p[k] = rows.planes[k].buf;
    const uint8_t *words = rows.words.buf;
    Py_ssize_t count = rows.words.len / width;
    Py_BEGIN_ALLOW_THREADS
    if (width == 1)
        memmove(p[0], words, (size_t)count);
    else if (width == 2)
        split2(words, p[0], p[1], count, turn);
    else if (width == 4)
        split4(words, p[0], p[1], p[2], p[3], count, turn);
    else
        split8(words, p, count, turn);
    Py_END_ALLOW_THREADS
    let_go(&rows);
    Py_RETURN_NONE;
}

static PyObject *py_join(PyObject *self, PyObject *args) {
    (void)self;
    Rows rows;
    PyObject *planes;
    int width, turn;
    if (!PyArg_ParseTuple(args, "Ow*ii", &planes, &rows.words, &width, &turn))
        return NULL;
    if (hold(&rows, planes, width, turn, PyBUF_SIMPLE) < 0) {
        let_go(&rows);
        return NULL;
    }
    const uint8_t *p[MAX_WIDTH];
    for (int k = 0; k < width; k++)
        p[k] = rows.planes[k].buf;
    uint8_t *words = rows.words.buf;
    Py_ssize_t count = rows.words.len / width;
    Py_BEGIN_ALLOW_THREADS
    if (width == 1)
        memmove(words, p[0], (size_t)count);
    else if (width == 2)
        join2(words, p[0], p[1], count, turn);
    else if (width == 4)
        join4(words, p[0], p[1], p[2], p[3], count, turn);
    else
        join8(words, p, count, turn);
    Py_END_ALLOW_THREADS
    let_go(&rows);
    Py_RETURN_NONE;
}

static PyObject *stepped(PyObject *args, int back) {
    Py_buffer from, base, out;
    int width, floating;
    if (!PyArg_ParseTuple(args, "y*y*w*ip", &from, &base, &out, &width, &floating))
        return NULL;
    int agree = is_width(width) && from.len % width == 0 && from.len == base.len &&
                from.len == out.len;
    if (agree) {
        Py_ssize_t count = from.len / width;
        Py_BEGIN_ALLOW_THREADS
        if (width == 1)
            (back ? restore8 : difference8)(from.buf, base.buf, out.buf, count, floating);
        else if (width == 2)
            (back ? restore16 : difference16)(from.buf, base.buf, out.buf, count, floating);
        else if (width == 4)
            (back ? restore32 : difference32)(from.buf, base.buf, out.buf, count, floating);
        else
            (back ? restore64 : difference64)(from.buf, base.buf, out.buf, count, floating);
        Py_END_ALLOW_THREADS
    } else
        PyErr_SetString(PyExc_ValueError, "words, base and result do not agree");
    PyBuffer_Release(&from);
    PyBuffer_Release(&base);
    PyBuffer_Release(&out);
    if (!agree)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *py_difference(PyObject *self, PyObject *args) {
    (void)self;
    return stepped(args, 0);
}

static PyObject *py_restore(PyObject *self, PyObject *args) {
    (void)self;
    return stepped(args, 1);
}

static PyMethodDef methods[] = {
    {"split", py_split, METH_VARARGS, "split(words, planes, width, turn): see bits.split"},
    {"join", py_join, METH_VARARGS, "join(planes, words, width, turn): see bits.join"},
    {"difference", py_difference, METH_VARARGS,
     "difference(words, base, out, width, floating): see bits.difference"},
    {"restore", py_restore, METH_VARARGS,
     "restore(steps, base, out, width, floating): see bits.restore"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_words", "Words and their byte planes, in C.", 0, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__words(void) { return PyModuleDef_Init(&module); }
