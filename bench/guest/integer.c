/* Integer work in registers, the cache, and through calls. */
#include <stddef.h>

#include "work.h"

static uint64_t integer(uint64_t count) {
    uint64_t a = 1, b = 2, sum = 0;
    for (uint64_t i = 0; i < count * 1000; i++) {
        a ^= a << 13;
        a ^= a >> 7;
        a ^= a << 17;
        b = b * 0x9E3779B97F4A7C15u + i;
        sum += (a & 63) > 31 ? a + (b >> 32) : b - (a >> 32);
    }
    return sum;
}

/* Lists, a small matrix, a state machine and a CRC by turns: the shape of embedded code. */
struct node {
    struct node *next;
    int16_t key, value;
};

static uint16_t crc16(uint16_t crc, uint16_t data) {
    for (int bit = 0; bit < 16; bit++) {
        int carry = (crc ^ data) & 1;
        crc = (uint16_t)(crc >> 1 ^ (carry ? 0xA001 : 0));
        data >>= 1;
    }
    return crc;
}

static struct node *reverse(struct node *list) {
    struct node *done = NULL;
    while (list) {
        struct node *next = list->next;
        list->next = done;
        done = list;
        list = next;
    }
    return done;
}

static int scan(const char *text) {
    enum { START, SIGN, DIGITS, POINT, EXPONENT, BAD } state = START;
    int numbers = 0;
    for (; *text; text++) {
        char c = *text;
        int digit = c >= '0' && c <= '9';
        if (c == ',') {
            numbers += state == DIGITS || state == POINT || state == EXPONENT;
            state = START;
            continue;
        }
        switch (state) {
        case START: state = digit ? DIGITS : c == '-' || c == '+' ? SIGN : BAD; break;
        case SIGN: state = digit ? DIGITS : BAD; break;
        case DIGITS: state = digit ? DIGITS : c == '.' ? POINT : c == 'e' ? EXPONENT : BAD; break;
        case POINT: state = digit ? POINT : c == 'e' ? EXPONENT : BAD; break;
        case EXPONENT: state = digit ? EXPONENT : BAD; break;
        case BAD: break;
        }
    }
    return numbers;
}

static uint64_t mix(uint64_t count) {
    enum { NODES = 64, SIDE = 12 };
    static struct node nodes[NODES];
    static int16_t left[SIDE][SIDE], right[SIDE][SIDE];
    static const char text[] = "12,-7,3.25,1e9,abc,+4.5e3,99x,.5,0,-0.125,7e,123456,";
    uint64_t seed = 7, sum = 0;
    for (int i = 0; i < NODES; i++) {
        nodes[i].next = i + 1 < NODES ? &nodes[i + 1] : NULL;
        nodes[i].key = (int16_t)next_random(&seed);
        nodes[i].value = (int16_t)i;
    }
    for (int i = 0; i < SIDE * SIDE; i++) {
        left[i / SIDE][i % SIDE] = (int16_t)next_random(&seed);
        right[i / SIDE][i % SIDE] = (int16_t)next_random(&seed);
    }
    struct node *list = nodes;
    uint16_t crc = 0xFFFF;
    for (uint64_t n = 0; n < count; n++) {
        list = reverse(list);
        for (int16_t key = 0; key < 16; key++)
            for (struct node *at = list; at; at = at->next)
                if ((at->key & 15) == key) {
                    crc = crc16(crc, (uint16_t)at->value);
                    break;
                }
        for (int i = 0; i < SIDE; i++)
            for (int j = 0; j < SIDE; j++) {
                int32_t cell = 0;
                for (int k = 0; k < SIDE; k++)
                    cell += left[i][k] * right[k][j];
                sum += (uint32_t)cell >> 4 & 0xFF;
            }
        left[n % SIDE][n / SIDE % SIDE] += (int16_t)crc;
        sum += (uint64_t)scan(text);
        crc = crc16(crc, (uint16_t)sum);
    }
    return sum << 16 ^ crc;
}

static uint64_t __attribute__((noinline)) fib(uint64_t n) {
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static uint64_t calls(uint64_t count) {
    uint64_t sum = 0;
    uint64_t (*volatile function)(uint64_t) = fib;
    for (uint64_t i = 0; i < count; i++)
        sum += function(16);
    return sum;
}

#define TARGET(name, expression) \
    static uint64_t __attribute__((noinline)) name(uint64_t x) { return expression; }
TARGET(add_one, x + 1)
TARGET(rotate, x << 5 | x >> 59)
TARGET(invert, ~x)
TARGET(triple, x * 3)
TARGET(fold, x ^ x >> 9)
TARGET(halve, x - (x >> 1))
TARGET(swap, __builtin_bswap64(x))
TARGET(negate, 0 - x)

static uint64_t indirect(uint64_t count) {
    static uint64_t (*const table[])(uint64_t) = {add_one, rotate, invert, triple,
                                                  fold,    halve,  swap,   negate};
    uint64_t seed = 3, value = 1;
    for (uint64_t i = 0; i < count * 1000; i++)
        value = table[next_random(&seed) >> 5 & 7](value);
    return value;
}

enum { ITEMS = 20000 };

static void sort(int32_t *low, int32_t *high) {
    while (high - low > 16) {
        int32_t pivot = low[(high - low) / 2], *left = low, *right = high - 1;
        while (left <= right) {
            while (*left < pivot)
                left++;
            while (*right > pivot)
                right--;
            if (left <= right) {
                int32_t item = *left;
                *left++ = *right;
                *right-- = item;
            }
        }
        if (right + 1 - low < high - left) {
            sort(low, right + 1);
            low = left;
        } else {
            sort(left, high);
            high = right + 1;
        }
    }
    for (int32_t *at = low + 1; at < high; at++) {
        int32_t item = *at, *to = at;
        for (; to > low && to[-1] > item; to--)
            *to = to[-1];
        *to = item;
    }
}

static uint64_t quicksort(uint64_t count) {
    static int32_t items[ITEMS];
    uint64_t seed = 11, sum = 0;
    for (uint64_t n = 0; n < count; n++) {
        for (int i = 0; i < ITEMS; i++)
            items[i] = (int32_t)next_random(&seed);
        sort(items, items + ITEMS);
        for (int i = 1; i < ITEMS; i++)
            if (items[i - 1] > items[i])
                die("quicksort");
        sum = sum * 31 + (uint32_t)items[ITEMS / 3];
    }
    return sum;
}

struct leaf {
    struct leaf *child[2];
    uint64_t key;
};

static uint64_t tree(uint64_t count) {
    static struct leaf leaves[ITEMS];
    uint64_t seed = 13, depths = 0;
    for (uint64_t n = 0; n < count; n++) {
        struct leaf *root = NULL;
        for (int i = 0; i < ITEMS; i++) {
            struct leaf *leaf = &leaves[i], **at = &root;
            leaf->key = next_random(&seed);
            leaf->child[0] = leaf->child[1] = NULL;
            while (*at) {
                at = &(*at)->child[leaf->key > (*at)->key];
                depths++;
            }
            *at = leaf;
        }
    }
    return depths;
}

/* A register machine: 1 unit is one of its instructions. */
static uint64_t bytecode(uint64_t count) {
    enum { LOAD, ADD, MUL, XOR, SHIFT, DECREMENT, LOOP, STOP };
    static const uint8_t program[][3] = {
        {LOAD, 0, 1},  {LOAD, 1, 77}, {LOAD, 2, 100}, {ADD, 0, 1},  {MUL, 1, 0},      {XOR, 3, 1},
        {SHIFT, 3, 3}, {ADD, 0, 3},   {XOR, 1, 2},    {ADD, 3, 2},  {DECREMENT, 2, 0}, {LOOP, 2, 3},
        {STOP, 0, 0},
    };
    uint64_t registers[4] = {0}, sum = 0;
    for (uint64_t n = 0; n < count; n++) {
        const uint8_t(*at)[3] = program;
        for (int running = 1; running;) {
            uint64_t *to = &registers[(*at)[1] & 3], from = registers[(*at)[2] & 3];
            switch ((*at)[0]) {
            case LOAD: *to = (*at)[2]; break;
            case ADD: *to += from; break;
            case MUL: *to *= from | 1; break;
            case XOR: *to ^= from; break;
            case SHIFT: *to = *to >> 3 | *to << 61; break;
            case DECREMENT: --*to; break;
            case LOOP:
                if (*to) {
                    at = program + (*at)[2];
                    continue;
                }
                break;
            default: running = 0;
            }
            at++;
        }
        sum ^= registers[0] + registers[3];
    }
    return sum;
}

const struct work integer_works[] = {
    {"integer", "iterations/s", 1000, integer},
    {"mix", "iterations/s", 1, mix},
    {"calls", "calls/s", 3193, calls},
    {"indirect", "calls/s", 1000, indirect},
    {"quicksort", "items/s", ITEMS, quicksort},
    {"tree", "inserts/s", ITEMS, tree},
    {"bytecode", "instructions/s", 904, bytecode},
    {NULL, NULL, 0, NULL},
};
