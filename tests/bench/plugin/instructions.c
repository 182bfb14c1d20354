// SPDX-License-Identifier: GPL-2.0
/*
 * A plugin for QEMU's TCG that counts executed instructions by where they are, between two marks that the guest's program
 * sets (begin_mark() and end_mark() in tests/measure.h): for each translated block its address, its instructions, how often
 * it ran.
 *
 *   -plugin instructions.so,out=FILE
 *
 * The part of QEMU's plugin interface that is used is declared in qemu_plugin.h: no Debian package has that header.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qemu_plugin.h"

/* The interface of QEMU 9.2 and 10 */
__attribute__((visibility("default"))) int qemu_plugin_version = 4;

/* nopl 0x50524f46(%rax) begins a count, with 47 in the low byte it ends */
static const unsigned char begin_mark[] = { 0x0f, 0x1f, 0x80, 0x46, 0x4f, 0x52, 0x50 };
static const unsigned char end_mark[] = { 0x0f, 0x1f, 0x80, 0x47, 0x4f, 0x52, 0x50 };

struct block {
	uint64_t address, instructions, count;
	struct block *next;
};

static struct block *blocks;
static bool counting;
static const char *path;

static void executed(unsigned int cpu, void *data)
{
	if (counting)
		((struct block *)data)->count++;
}

static void begin(unsigned int cpu, void *data)
{
	counting = true;
}

static void end(unsigned int cpu, void *data)
{
	counting = false;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	size_t instructions = qemu_plugin_tb_n_insns(tb);
	struct block *block = malloc(sizeof(*block));

	if (!block)
		abort();
	*block = (struct block){ qemu_plugin_tb_vaddr(tb), instructions, 0, blocks };
	blocks = block;
	qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, QEMU_PLUGIN_CB_NO_REGS, block);
	for (size_t i = 0; i < instructions; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		unsigned char bytes[sizeof(begin_mark)];

		if (qemu_plugin_insn_data(insn, bytes, sizeof(bytes)) != sizeof(bytes))
			continue;
		if (!memcmp(bytes, begin_mark, sizeof(bytes)))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, begin, QEMU_PLUGIN_CB_NO_REGS, NULL);
		else if (!memcmp(bytes, end_mark, sizeof(bytes)))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, end, QEMU_PLUGIN_CB_NO_REGS, NULL);
	}
}

static void finish(qemu_plugin_id_t id, void *data)
{
	FILE *out = fopen(path, "w");

	if (!out)
		abort();
	for (struct block *block = blocks; block; block = block->next)
		if (block->count)
			fprintf(out, "%" PRIx64 " %" PRIu64 " %" PRIu64 "\n", block->address, block->instructions, block->count);
	fclose(out);
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
	if (argc != 1 || strncmp(argv[0], "out=", 4))
		return -1;
	path = strdup(argv[0] + 4);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	qemu_plugin_register_atexit_cb(id, finish, NULL);
	return 0;
}
