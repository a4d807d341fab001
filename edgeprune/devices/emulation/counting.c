/* Counts the instructions that an aarch64 program retires under qemu-user, by class: a plugin of qemu's TCG.
 *
 * Argument out=FILE: a line a class, its name and its count, written when the program ends. Every translated
 * block has its counts by class and how often it was executed. Encodings: Arm Architecture Reference Manual
 * for A-profile, C4.1. Compile with -DAPI=N for version N of qemu's interface; from 3 on an instruction's
 * bytes are copied, before they were pointed to.
 */

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef uint64_t plugin_id;

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *), int, void *);
extern void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
#if API >= 3
extern size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *, size_t);
#else
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
#endif

__attribute__((visibility("default"))) int qemu_plugin_version = API;

enum class { FLOAT_MULTIPLY_ADD, DOT_PRODUCT, WIDENING_MULTIPLY, OTHER_VECTOR, LOAD_STORE, BRANCH, INTEGER, CLASSES };
static const char *const NAMES[CLASSES] = {
    "float_multiply_add", "dot_product", "widening_multiply", "other_vector", "load_store", "branch", "integer",
};

struct pattern {
    uint32_t mask, value;
    enum class is;
};
/* Multiplications of the vector unit; whatever else it does is OTHER_VECTOR. */
static const struct pattern MULTIPLICATIONS[] = {
    {0xbf20fc00, 0x0e20cc00, FLOAT_MULTIPLY_ADD}, /* FMLA, FMLS of vectors, single and double */
    {0xbf60fc00, 0x0e400c00, FLOAT_MULTIPLY_ADD}, /* the same in half precision */
    {0xbf80b400, 0x0f801000, FLOAT_MULTIPLY_ADD}, /* FMLA, FMLS by element */
    {0xbfc0b400, 0x0f001000, FLOAT_MULTIPLY_ADD}, /* the same in half precision */
    {0xff80b400, 0x5f801000, FLOAT_MULTIPLY_ADD}, /* FMLA, FMLS of scalars by element */
    {0xff000000, 0x1f000000, FLOAT_MULTIPLY_ADD}, /* FMADD and its like */
    {0x9fe0fc00, 0x0e809400, DOT_PRODUCT},        /* SDOT, UDOT of vectors */
    {0x9fc0f400, 0x0f80e000, DOT_PRODUCT},        /* SDOT, UDOT by element */
    {0xbfe0fc00, 0x0e809c00, DOT_PRODUCT},        /* USDOT of vectors */
    {0xbf40f400, 0x0f00f000, DOT_PRODUCT},        /* SUDOT, USDOT by element */
    {0xdfe0f400, 0x4e80a400, DOT_PRODUCT},        /* SMMLA, UMMLA, USMMLA */
    {0x9f20dc00, 0x0e208000, WIDENING_MULTIPLY},  /* SMLAL, SMLSL and the unsigned, of vectors */
    {0x9f20fc00, 0x0e20c000, WIDENING_MULTIPLY},  /* SMULL and UMULL of vectors */
    {0x9f00b400, 0x0f002000, WIDENING_MULTIPLY},  /* SMLAL, SMLSL by element */
    {0x9f00f400, 0x0f00a000, WIDENING_MULTIPLY},  /* SMULL by element */
};

struct block {
    struct block *next;
    uint64_t executed;
    uint32_t counts[CLASSES];
};
static struct block *blocks;
static char out_path[4096];

static enum class class_of(uint32_t code) {
    uint32_t group = code >> 25 & 0xf;
    if ((group & 0x5) == 0x4) return LOAD_STORE;
    if ((group & 0xe) == 0xa) return BRANCH;
    if ((group & 0x7) != 0x7) return INTEGER;
    for (size_t i = 0; i < sizeof MULTIPLICATIONS / sizeof *MULTIPLICATIONS; i++)
        if ((code & MULTIPLICATIONS[i].mask) == MULTIPLICATIONS[i].value) return MULTIPLICATIONS[i].is;
    return OTHER_VECTOR;
}

static void on_executed(unsigned cpu, void *given) {
    (void)cpu;
    __atomic_fetch_add(&((struct block *)given)->executed, 1, __ATOMIC_RELAXED);
}

static void on_translated(plugin_id id, struct qemu_plugin_tb *tb) {
    (void)id;
    struct block *block = calloc(1, sizeof *block);
    if (block == NULL) abort();
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        uint32_t code = 0;
#if API >= 3
        qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i), &code, sizeof code);
#else
        memcpy(&code, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i)), sizeof code);
#endif
        block->counts[class_of(code)]++;
    }
    block->next = __atomic_exchange_n(&blocks, block, __ATOMIC_ACQ_REL);
    qemu_plugin_register_vcpu_tb_exec_cb(tb, on_executed, 0, block);
}

static void on_exit_of_program(plugin_id id, void *given) {
    (void)id;
    (void)given;
    uint64_t totals[CLASSES] = {0};
    for (struct block *block = blocks; block != NULL; block = block->next)
        for (int i = 0; i < CLASSES; i++) totals[i] += block->executed * block->counts[i];
    FILE *out = fopen(out_path, "w");
    if (out == NULL) return;
    for (int i = 0; i < CLASSES; i++) fprintf(out, "%s %" PRIu64 "\n", NAMES[i], totals[i]);
    fclose(out);
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const void *info, int count, char **arguments) {
    (void)info;
    if (count != 1 || strncmp(arguments[0], "out=", 4) != 0) return -1;
    snprintf(out_path, sizeof out_path, "%s", arguments[0] + 4);
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translated);
    qemu_plugin_register_atexit_cb(id, on_exit_of_program, NULL);
    return 0;
}
