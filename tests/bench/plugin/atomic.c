// SPDX-License-Identifier: GPL-2.0
/*
 * A plugin for QEMU's TCG that finds the longest sections of the guest's kernel in which it cannot switch to another task: the
 * kernel's count of reasons against preemption is not 0 (a spinlock, a handler of interrupts, an RCU callback, use of the FPU), or
 * interrupts are off. It counts executed instructions, so that nothing that this machine does meanwhile counts. For a guest of one
 * processor; what it waits for in "hlt" does not count either.
 *
 *   -plugin atomic.so,out=FILE
 *
 * tests/atomic.c tells it where the count lies, where the code of the module is that is to be watched, and when to begin; and has it
 * write FILE.N. That has lines of numbers, longest sections first:
 *
 *   own|other LENGTH CALL IN-THE-MODULE START END FIRST LAST BEFORE-END
 *
 * "own" are sections in which the module's code ran: IN-THE-MODULE are its instructions, FIRST and LAST the addresses of its first
 * and last block. START and END are where the section began and ended, BEFORE-END is the kernel's last block before that.
 * CALL is the longest time from one block of the module to its next: what one call of the kernel took. It is a part of LENGTH, but
 * "own" ones are sorted without it: any kfree() may give thousands of pages back at once, and that is not the module's to say.
 *
 * What an interrupt does is a section of its own, and so is what "softirqs" do; they are not a part of the one that they interrupt.
 * How many callbacks of RCU the kernel calls in one of these is not the module's to say: there "own" are single calls of the
 * module, from its first block to its last, and the whole is one of the "other".
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../atomic.h"
#include "qemu_plugin.h"

/* The interface of QEMU 9.2 and 10 */
__attribute__((visibility("default"))) int qemu_plugin_version = 4;

#define KERNEL	  (UINT64_C(1) << 63)
#define MODULES	  UINT64_C(0xffffffffa0000000)
#define KINDS	  512
#define SHOWN	  5
/*
 * What of the count says that an interrupt (of both kinds) or a softirq is being served. Where the count has 64 bits, the lower half
 * counts, with these; where it has 32, as before Linux 7.3, the uppermost says that nothing else wants the processor.
 */
#define INTERRUPT    0xff000100u
#define OLD_COUNT    0x7fffffffu
#define OLD_INTERRUPT 0x00ff0100u

struct place {
	uint64_t address, target;
	size_t size;
	/* It is where a function begins that is called through a pointer; where one returns. */
	bool enters, returns;
};

struct section {
	uint64_t length, call, within, start, end, first, last, before_end;
};

/* A section under way */
struct open_section {
	struct section found;
	/* What had been executed when it began, or when the module was called; when the module's last block had run */
	uint64_t began, called, left;
	bool returned;
};

static const char *path;
static uint64_t told[ATOMIC_KINDS];
static struct qemu_plugin_u64 executed, block;

static uint32_t count, interrupt_bits;
static bool interrupts_off, counting;
/* That of a task, and that of an interrupt, which may be in it */
static struct open_section task, interrupt;
static uint64_t interrupted;
static struct section kinds[2][KINDS];
static unsigned int used[2];

static uint64_t key(const struct section *section, bool own)
{
	return own ? section->last : section->before_end;
}

static uint64_t weight(const struct section *section)
{
	return section->length - section->call;
}

/* Keeps the longest one of each kind. */
static void keep(const struct section *section)
{
	bool own = section->within;
	struct section *kind = kinds[own], *end = kind + used[own];

	if (!counting)
		return;
	while (kind < end && key(kind, own) != key(section, own))
		kind++;
	if (kind == end) {
		if (used[own] == KINDS)
			kind--;
		else
			used[own]++;
	}
	if (weight(kind) < weight(section))
		*kind = *section;
}

static void begin(struct open_section *section, unsigned int cpu, uint64_t at)
{
	*section = (struct open_section){ .found.start = at, .began = qemu_plugin_u64_get(executed, cpu) };
}

/* A call of the module in an interrupt is over. */
static void end_call(struct open_section *section)
{
	struct section call = section->found;

	call.length = section->left - section->called;
	if (call.within)
		keep(&call);
	section->found.within = 0;
	section->found.call = 0;
}

static void end(struct open_section *section, unsigned int cpu, uint64_t at)
{
	if (section == &interrupt)
		end_call(section);
	section->found.length = qemu_plugin_u64_get(executed, cpu) - section->began;
	section->found.end = at;
	section->found.before_end = qemu_plugin_u64_get(block, cpu);
	keep(&section->found);
}

static void change(unsigned int cpu, uint32_t new_count, bool new_off, uint64_t at)
{
	bool was_interrupt = count & interrupt_bits, is_interrupt = new_count & interrupt_bits;
	bool was_task = count || interrupts_off, is_task = new_count || new_off;

	count = new_count;
	interrupts_off = new_off;
	if (was_interrupt && is_interrupt)
		return;
	if (was_interrupt) {
		uint64_t took = qemu_plugin_u64_get(executed, cpu) - interrupted;

		end(&interrupt, cpu, at);
		task.began += took;
		task.left += took;
		was_task = task.found.start;
	}
	if (!is_interrupt) {
		if (!was_task && is_task)
			begin(&task, cpu, at);
		else if (was_task && !is_task)
			end(&task, cpu, at);
		if (!is_task)
			task.found.start = 0;
		return;
	}
	interrupted = qemu_plugin_u64_get(executed, cpu);
	begin(&interrupt, cpu, at);
}

static void stored(unsigned int cpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
	const struct place *place = data;
	struct qemu_plugin_mem_value value;

	if (place->target != told[ATOMIC_COUNT])
		return;
	value = qemu_plugin_mem_get_value(info);
	interrupt_bits = value.type == QEMU_PLUGIN_MEM_VALUE_U64 ? INTERRUPT : OLD_INTERRUPT;
	change(cpu, value.type == QEMU_PLUGIN_MEM_VALUE_U64 ? value.data.u32 : value.data.u32 & OLD_COUNT, interrupts_off, place->address);
}

static void turned_off(unsigned int cpu, void *data)
{
	change(cpu, count, true, ((const struct place *)data)->address);
}

static void turned_on(unsigned int cpu, void *data)
{
	change(cpu, count, false, ((const struct place *)data)->address);
}

/* An idle processor has preemption off until there is something to run. */
static void halted(unsigned int cpu, void *data)
{
	change(cpu, count, false, ((const struct place *)data)->address);
	if (count && !(count & interrupt_bits))
		begin(&task, cpu, ((const struct place *)data)->address);
}

static void in_module(unsigned int cpu, void *data)
{
	const struct place *place = data;
	struct open_section *section = count & interrupt_bits ? &interrupt : &task;
	uint64_t now = qemu_plugin_u64_get(executed, cpu), before = now - place->size;

	if (!(count || interrupts_off) || place->address < told[ATOMIC_START] || place->address >= told[ATOMIC_END])
		return;
	if (section == &interrupt && before != section->left &&
	    (section->returned || place->enters || place->address == section->found.first))
		end_call(section);
	if (!section->found.within) {
		section->found.first = place->address;
		section->called = before;
	} else if (section->found.call < before - section->left) {
		section->found.call = before - section->left;
	}
	section->found.last = place->address;
	section->found.within += place->size;
	section->left = now;
	section->returned = place->returns;
}

static int by_length(const void *one, const void *other)
{
	uint64_t a = weight(one), b = weight(other);

	return (a < b) - (a > b);
}

static void write_down(uint64_t number)
{
	char name[4096];
	FILE *out;

	snprintf(name, sizeof(name), "%s.%" PRIu64, path, number);
	out = fopen(name, "w");
	if (!out)
		abort();
	for (int own = 1; own >= 0; own--) {
		qsort(kinds[own], used[own], sizeof(kinds[own][0]), by_length);
		for (unsigned int i = 0; i < used[own] && i < SHOWN; i++) {
			const struct section *s = &kinds[own][i];

			fprintf(out, "%s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIx64 " %" PRIx64 " %" PRIx64 " %" PRIx64 " %" PRIx64 "\n",
				own ? "own" : "other", s->length, s->call, s->within, s->start, s->end, s->first, s->last, s->before_end);
		}
	}
	fclose(out);
}

static void is_told(unsigned int cpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
	size_t kind = (size_t)data;

	told[kind] = qemu_plugin_mem_get_value(info).data.u64;
	if (kind == ATOMIC_BEGIN) {
		memset(kinds, 0, sizeof(kinds));
		memset(used, 0, sizeof(used));
		counting = true;
	} else if (kind == ATOMIC_WRITE) {
		counting = false;
		write_down(told[kind]);
	}
}

static int32_t number_at(const unsigned char *bytes)
{
	int32_t number;

	memcpy(&number, bytes, sizeof(number));
	return number;
}

/* Whether an instruction has an operand of this processor (%gs:) at a fixed address; that is stored in @place. */
static bool is_per_cpu(const unsigned char *bytes, size_t len, struct place *place)
{
	size_t at = 1;

	if (bytes[0] != 0x65)
		return false;
	if (bytes[at] == 0x66)
		at++;
	if ((bytes[at] & 0xf0) == 0x40)
		at++;
	at += bytes[at] == 0x0f ? 2 : 1;
	if (at + 5 <= len && (bytes[at] & 0xc7) == 0x05) {
		place->target = place->address + len + number_at(bytes + at + 1);
		return true;
	}
	if (at + 6 <= len && (bytes[at] & 0xc7) == 0x04 && bytes[at + 1] == 0x25) {
		place->target = number_at(bytes + at + 2);
		return true;
	}
	return false;
}

/* Watches an instruction, and tells whether it may change the count. */
static bool watch(struct qemu_plugin_insn *insn)
{
	static const unsigned char tell[] = { 0x48, 0x89, 0x87 };
	size_t len = qemu_plugin_insn_size(insn);
	unsigned char bytes[16] = { 0 };
	struct place found = { .address = qemu_plugin_insn_vaddr(insn), .size = len }, *place;
	void (*cb)(unsigned int cpu, void *data) = NULL;
	bool per_cpu;

	qemu_plugin_insn_data(insn, bytes, sizeof(bytes));
	if (found.address < KERNEL) {
		uint32_t kind;

		if (len != 7 || memcmp(bytes, tell, sizeof(tell)))
			return false;
		kind = (uint32_t)number_at(bytes + 3) - ATOMIC_MARK;
		if (kind < ATOMIC_KINDS)
			qemu_plugin_register_vcpu_mem_cb(insn, is_told, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_W,
							 (void *)(size_t)kind);
		return false;
	}
	if (bytes[0] == 0xfa)
		cb = turned_off;
	else if (bytes[0] == 0xfb || (bytes[0] == 0x48 && (bytes[1] == 0xcf || (bytes[1] == 0x0f && bytes[2] == 0x07))))
		cb = turned_on;
	else if (bytes[0] == 0xf4)
		cb = halted;
	per_cpu = is_per_cpu(bytes, len, &found);
	if (!cb && !per_cpu)
		return false;
	place = malloc(sizeof(*place));
	if (!place)
		abort();
	*place = found;
	if (cb)
		qemu_plugin_register_vcpu_insn_exec_cb(insn, cb, QEMU_PLUGIN_CB_NO_REGS, place);
	else
		qemu_plugin_register_vcpu_mem_cb(insn, stored, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_W, place);
	return true;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	size_t instructions = qemu_plugin_tb_n_insns(tb);
	uint64_t address = qemu_plugin_tb_vaddr(tb);
	bool watched = false;

	qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64, executed, instructions);
	for (size_t i = 0; i < instructions; i++)
		watched |= watch(qemu_plugin_tb_get_insn(tb, i));
	if (address < KERNEL)
		return;
	if (!watched)
		qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_STORE_U64, block, address);
	if (address >= MODULES) {
		static const unsigned char endbr[] = { 0xf3, 0x0f, 0x1e, 0xfa };
		struct place *place = malloc(sizeof(*place));
		unsigned char first[4] = { 0 }, last = 0;

		if (!place)
			abort();
		qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, 0), first, sizeof(first));
		qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, instructions - 1), &last, 1);
		*place = (struct place){ address, 0, instructions, !memcmp(first, endbr, sizeof(endbr)), last == 0xc3 };
		qemu_plugin_register_vcpu_tb_exec_cb(tb, in_module, QEMU_PLUGIN_CB_NO_REGS, place);
	}
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
	if (argc != 1 || strncmp(argv[0], "out=", 4))
		return -1;
	path = strdup(argv[0] + 4);
	executed = (struct qemu_plugin_u64){ qemu_plugin_scoreboard_new(sizeof(uint64_t)), 0 };
	block = (struct qemu_plugin_u64){ qemu_plugin_scoreboard_new(sizeof(uint64_t)), 0 };
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
