// SPDX-License-Identifier: GPL-2.0
/*
 * What verify=compare needs of the kernel: comparing memory faster than
 * memcmp() does, and looking at the folios of a page cache under their locks.
 */
#include <linux/export.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rcupdate.h>
#ifdef CONFIG_X86_64
#include <asm/cpufeature.h>
#include <asm/fpu/api.h>
#endif
#ifdef CONFIG_ARM64
#include <asm/simd.h>
#endif

#include "erofs_shared_helpers.h"

/* Bytes that are compared in one section of vector use: a few microseconds. */
#define SECTION		(64 << 10)

/* Compares words; @len is a multiple of 64. */
static bool same_words(const u64 *a, const u64 *b, size_t len)
{
	const u64 *end = a + len / sizeof(*a);

	for (; a < end; a += 8, b += 8) {
		u64 differ = (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) |
			     (a[3] ^ b[3]) | (a[4] ^ b[4]) | (a[5] ^ b[5]) |
			     (a[6] ^ b[6]) | (a[7] ^ b[7]);

		if (differ)
			return false;
	}
	return true;
}

/*
 * Each architecture with vectors has can_use_vectors() and same_vectors(),
 * which compares, in one section, a step at a time; @len is a multiple of that.
 */
#if defined(CONFIG_X86_64)
#define LOAD(at, reg)	"vmovdqu	" #at "(%[a]), %%ymm" #reg "\n\t"
#define XOR(at, reg)	"vpxor	" #at "(%[b]), %%ymm" #reg ", %%ymm" #reg "\n\t"
#define OR(from, to)	"vpor	%%ymm" #from ", %%ymm" #to ", %%ymm" #to "\n\t"
#define STEP		512

static bool can_use_vectors(void)
{
	return boot_cpu_has(X86_FEATURE_AVX2) &&
	       cpu_has_xfeatures(XFEATURE_MASK_SSE | XFEATURE_MASK_YMM, NULL) &&
	       irq_fpu_usable();
}

static bool same_vectors(const void *a, const void *b, size_t len)
{
	const void *end = a + len;
	bool same;

	kernel_fpu_begin();
	do {
		asm volatile(LOAD(0, 0) LOAD(32, 1) LOAD(64, 2) LOAD(96, 3)
			     LOAD(128, 4) LOAD(160, 5) LOAD(192, 6) LOAD(224, 7)
			     LOAD(256, 8) LOAD(288, 9) LOAD(320, 10) LOAD(352, 11)
			     LOAD(384, 12) LOAD(416, 13) LOAD(448, 14) LOAD(480, 15)
			     XOR(0, 0) XOR(32, 1) XOR(64, 2) XOR(96, 3)
			     XOR(128, 4) XOR(160, 5) XOR(192, 6) XOR(224, 7)
			     XOR(256, 8) XOR(288, 9) XOR(320, 10) XOR(352, 11)
			     XOR(384, 12) XOR(416, 13) XOR(448, 14) XOR(480, 15)
			     OR(1, 0) OR(3, 2) OR(5, 4) OR(7, 6)
			     OR(9, 8) OR(11, 10) OR(13, 12) OR(15, 14)
			     OR(2, 0) OR(6, 4) OR(10, 8) OR(14, 12)
			     OR(4, 0) OR(12, 8) OR(8, 0)
			     "vptest	%%ymm0, %%ymm0"
			     : "=@ccz" (same)
			     : [a] "r" (a), [b] "r" (b)
			     : "memory");
		a += STEP;
		b += STEP;
	} while (same && a < end);
	asm volatile("vzeroupper" : : : "memory");
	kernel_fpu_end();
	return same;
}
#elif defined(CONFIG_ARM64) && defined(CONFIG_KERNEL_MODE_NEON)
#define LOAD(from, at, one, two)	"ldp	q" #one ", q" #two ", [%[" #from "], #" #at "]\n\t"
#define XOR(from, to)	"eor	v" #to ".16b, v" #to ".16b, v" #from ".16b\n\t"
#define OR(from, to)	"orr	v" #to ".16b, v" #to ".16b, v" #from ".16b\n\t"
#define STEP		256

static bool can_use_vectors(void)
{
	return may_use_simd();
}

static bool same_vectors(const void *a, const void *b, size_t len)
{
	const void *end = a + len;
	u64 differ;

	/* The compiler itself uses none of these registers in the kernel. */
	scoped_ksimd()
		do {
			asm volatile(LOAD(a, 0, 0, 1) LOAD(a, 32, 2, 3)
				     LOAD(a, 64, 4, 5) LOAD(a, 96, 6, 7)
				     LOAD(a, 128, 8, 9) LOAD(a, 160, 10, 11)
				     LOAD(a, 192, 12, 13) LOAD(a, 224, 14, 15)
				     LOAD(b, 0, 16, 17) LOAD(b, 32, 18, 19)
				     LOAD(b, 64, 20, 21) LOAD(b, 96, 22, 23)
				     LOAD(b, 128, 24, 25) LOAD(b, 160, 26, 27)
				     LOAD(b, 192, 28, 29) LOAD(b, 224, 30, 31)
				     XOR(16, 0) XOR(17, 1) XOR(18, 2) XOR(19, 3)
				     XOR(20, 4) XOR(21, 5) XOR(22, 6) XOR(23, 7)
				     XOR(24, 8) XOR(25, 9) XOR(26, 10) XOR(27, 11)
				     XOR(28, 12) XOR(29, 13) XOR(30, 14) XOR(31, 15)
				     OR(1, 0) OR(3, 2) OR(5, 4) OR(7, 6)
				     OR(9, 8) OR(11, 10) OR(13, 12) OR(15, 14)
				     OR(2, 0) OR(6, 4) OR(10, 8) OR(14, 12)
				     OR(4, 0) OR(12, 8) OR(8, 0)
				     "umaxp	v0.4s, v0.4s, v0.4s\n\t"
				     "fmov	%[differ], d0"
				     : [differ] "=r" (differ)
				     : [a] "r" (a), [b] "r" (b)
				     : "memory");
			a += STEP;
			b += STEP;
		} while (!differ && a < end);
	return !differ;
}
#else
static bool can_use_vectors(void)
{
	return false;
}

static bool same_vectors(const void *a, const void *b, size_t len)
{
	return same_words(a, b, len);
}
#endif

/* Whether two pieces of memory are equal; @len is a multiple of a page's size. */
bool erofs_shared_same_bytes(const void *a, const void *b, size_t len)
{
	if (!can_use_vectors())
		return same_words(a, b, len);

	while (len) {
		size_t part = min_t(size_t, len, SECTION);

		if (!same_vectors(a, b, part))
			return false;
		a += part;
		b += part;
		len -= part;
	}
	return true;
}

/**
 * erofs_shared_visit_ready() - look at the folios of a page cache
 * @mapping: the page cache
 * @found: called with the first page and that behind the last one of each folio
 *	that may be read and can be locked without waiting, under its lock and
 *	still in its place; must not sleep
 * @data: passed on to @found
 *
 * Context: Process context; sleeps between folios.
 */
void erofs_shared_visit_ready(struct address_space *mapping,
			      void (*found)(pgoff_t first, pgoff_t end, void *data),
			      void *data)
{
	struct folio_batch batch;
	pgoff_t next = 0;

	folio_batch_init(&batch);
	while (filemap_get_folios(mapping, &next, ULONG_MAX, &batch)) {
		unsigned int i;

		for (i = 0; i < folio_batch_count(&batch); i++) {
			struct folio *folio = batch.folios[i];

			if (!folio_trylock(folio))
				continue;
			if (folio->mapping == mapping && folio_test_uptodate(folio))
				found(folio->index, folio_next_index(folio), data);
			folio_unlock(folio);
		}
		folio_batch_release(&batch);
		cond_resched();
	}
}

/**
 * erofs_shared_filemap_lock_ready() - lock a folio that may be read
 * @mapping: the page cache
 * @index: a page of it
 *
 * One whose memory has failed is not to be looked at.
 *
 * Context: Process context; waits for the lock, which nothing has that may hang.
 * Return: The folio with the page, locked and with a reference, or NULL.
 */
struct folio *erofs_shared_filemap_lock_ready(struct address_space *mapping,
					      pgoff_t index)
{
	struct folio *folio = filemap_get_folio(mapping, index);

	if (IS_ERR(folio))
		return NULL;
	/* One that is not uptodate may be locked for as long as a device likes. */
	if (folio_test_uptodate(folio)) {
		folio_lock(folio);
		if (folio->mapping == mapping &&
		    folio_contains(folio, index) &&
		    !folio_contain_hwpoisoned_page(folio))
			return folio;
		folio_unlock(folio);
	}
	folio_put(folio);
	return NULL;
}

void erofs_shared_mapping_release_always(struct address_space *mapping)
{
	mapping_set_release_always(mapping);
	/* Before any folio is looked at. */
	smp_mb();
}

/* Whether the bytes of @folio, or of one of its pages, must not be looked at. */
bool erofs_shared_folio_poisoned(struct folio *folio)
{
	return folio_contain_hwpoisoned_page(folio);
}
