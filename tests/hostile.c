// SPDX-License-Identifier: GPL-2.0
/*
 * hostile FSTYPE IMAGE SCRATCH LOOPDEV DIR COUNT SEED
 *
 * Damage the metadata, and what is compressed, of a small image in COUNT ways, each time mount it, walk
 * it, read everything in it, and unmount it. Any error is a fine answer; what
 * is not: a directory without an end, a mount that cannot be unmounted, a
 * refused mount that leaves no line in the kernel's log that names the image.
 * (Oopses, hangs and lost inodes are for the kernel to report.)
 *
 * SCRATCH is a file that gets the damaged image, LOOPDEV a loop device over it:
 * every other image is mounted through that. SEED makes runs repeatable: image
 * number N depends on SEED and N only; "hostile … 1 SEED+N" makes it alone.
 */
#include "hostile.h"
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>

#define SUPER 1024
#define MAX_IMAGE (1 << 20)

static unsigned char pristine[MAX_IMAGE], image[MAX_IMAGE];
static size_t image_size;

static uint16_t le16(size_t at) { return pristine[at] | pristine[at + 1] << 8; }
static uint32_t le32(size_t at) { return le16(at) | (uint32_t)le16(at + 2) << 16; }
static uint64_t le64(size_t at) { return le32(at) | (uint64_t)le32(at + 4) << 32; }

/* --- the parts of the image ------------------------------------------------ */

enum kind { SUPERBLOCK, INODE, XATTR, DIRENT, CHUNKS, SHARED, DEVICES, PREFIXES, INLINE, ZMAP, PCLUSTER, KINDS };

static const char *const kind_names[KINDS] = {
	"superblock", "inode", "xattr", "dirent", "chunk map", "shared xattr",
	"device slot", "xattr prefixes", "inline data",
	"extents", "compressed data",
};

static struct region {
	enum kind kind;
	size_t at, len;
} regions[4096];
static unsigned int region_count, kind_count[KINDS];

static void region(enum kind kind, size_t at, size_t len)
{
	if (!len || at >= image_size || region_count == 4096)
		return;
	if (len > image_size - at)
		len = image_size - at;
	regions[region_count++] = (struct region){ kind, at, len };
	kind_count[kind]++;
}

static void add_inode(uint64_t nid)
{
	unsigned int bits = pristine[SUPER + 12];
	size_t at = ((size_t)le32(SUPER + 40) << bits) + 32 * nid;
	size_t head, xattrs, body, size, tail;
	unsigned int format, layout;

	/* what the metabox holds is compressed */
	if (nid >> 32 || at + 64 > image_size)
		return;
	format = le16(at);
	layout = format >> 1 & 7;
	head = format & 1 ? 64 : 32;
	xattrs = le16(at + 2) ? 12 + 4 * (le16(at + 2) - 1) : 0;
	size = format & 1 ? le64(at + 8) : le32(at + 8);
	body = at + head + xattrs;
	region(INODE, at, head);
	region(XATTR, at + head, xattrs);
	if (layout == 4) {
		region(CHUNKS, (body + 7) & ~(size_t)7, 64);
		return;
	}
	if (layout == 1 || layout == 3) {
		/* the header, and an index entry of up to 8 bytes for each block */
		region(ZMAP, (body + 7) & ~(size_t)7, 32 + 8 * (size >> bits));
		return;
	}
	tail = layout == 2 ? size & ((1u << bits) - 1) : 0;
	if ((le16(at + 4) & S_IFMT) == S_IFDIR) {
		region(DIRENT, (size_t)le32(at + 16) << bits, size - tail);
		region(DIRENT, body, tail);
	} else {
		region(INLINE, body, tail);
	}
}

static int collect(const char *path, int depth)
{
	struct dirent *de;
	struct stat st;
	DIR *dir;

	if (lstat(path, &st) < 0)
		return -1;
	add_inode(st.st_ino);
	if (!S_ISDIR(st.st_mode) || depth > 8)
		return 0;
	dir = opendir(path);
	if (!dir)
		return -1;
	while ((de = readdir(dir))) {
		char *sub;

		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
			continue;
		if (asprintf(&sub, "%s/%s", path, de->d_name) < 0 ||
		    collect(sub, depth + 1) < 0)
			return -1;
		free(sub);
	}
	closedir(dir);
	return 0;
}

/* --- damage ---------------------------------------------------------------- */

static uint64_t state;

static uint32_t rnd(void)
{
	uint64_t x = state += 0x9e3779b97f4a7c15;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return (x ^ x >> 31) >> 16;
}

static uint32_t crc32c(uint32_t crc, const unsigned char *p, size_t len)
{
	static uint32_t table[256];

	if (!table[1]) {
		for (unsigned int i = 0; i < 256; i++) {
			uint32_t c = i;

			for (int k = 0; k < 8; k++)
				c = c >> 1 ^ (c & 1 ? 0x82f63b78 : 0);
			table[i] = c;
		}
	}
	while (len--)
		crc = crc >> 8 ^ table[(crc ^ *p++) & 255];
	return crc;
}

static void seal(void)
{
	unsigned int bits = image[SUPER + 12];
	size_t len = bits < 32 ? (size_t)1 << bits : 4096;
	uint32_t crc;

	if (len > SUPER)
		len -= SUPER;
	if (len < 144 || SUPER + len > image_size)
		return;
	crc = crc32c(0x5045b54a, image + SUPER + 8, len - 8);
	memcpy(image + SUPER + 4, &crc, 4);
}

static char story[512];

static void damage(void)
{
	static const uint32_t telling[] = {
		0, 1, 2, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x10000,
		0x7fffffff, 0x80000000, 0xffffffff, 12, 24, 4095, 4096, 4097,
	};
	unsigned int changes = 1 + (rnd() % 4 == 0 ? rnd() % 6 : 0);
	size_t told = 0;

	memcpy(image, pristine, image_size);
	while (changes--) {
		struct region *r;
		enum kind kind;
		size_t at, width, len;
		uint32_t value;

		/* half of it to what is compressed, where that is */
		if (kind_count[ZMAP] && rnd() % 2)
			kind = rnd() % 2 ? ZMAP : PCLUSTER;
		else
			do
				kind = rnd() % KINDS;
			while (!kind_count[kind]);
		do
			r = &regions[rnd() % region_count];
		while (r->kind != kind);
		len = r->len;
		/* the first entries of a directory or table matter most */
		if (kind == DIRENT && rnd() % 2)
			len = len < 96 ? len : 96;
		at = r->at + rnd() % len;
		switch (rnd() % 4) {
		case 0:		/* a bit */
			image[at] ^= 1 << rnd() % 8;
			break;
		case 1:		/* a byte */
			image[at] = rnd();
			break;
		case 2:		/* a telling value */
			width = 1 << rnd() % 4;
			at &= ~(width - 1);
			value = telling[rnd() % (sizeof(telling) / sizeof(*telling))];
			if (at + width <= image_size) {
				memset(image + at, value == 0xffffffff ? 255 : 0, width);
				memcpy(image + at, &value, width < 4 ? width : 4);
			}
			break;
		case 3:		/* what stands elsewhere */
			width = 1 + rnd() % 64;
			if (width > r->len)
				width = r->len;
			at = r->at + rnd() % (r->len - width + 1);
			value = rnd() % (image_size - width);
			memcpy(image + at, pristine + value, width);
			break;
		}
		told += snprintf(story + told, sizeof(story) - told, "%s%s at %zu",
				 told ? ", " : "", kind_names[kind], at);
		if (told >= sizeof(story))
			told = sizeof(story) - 1;
	}
	/* the checksum covers the block of the superblock, inodes too */
	if (rnd() % 32)
		seal();
}

static volatile unsigned long current;

static void too_long(int sig)
{
	static const char text[] = "# hostile: one image takes more than 30 seconds\n";

	(void)sig;
	if (write(1, text, sizeof(text) - 1) < 0)
		_exit(4);
	_exit(3);
}

int main(int argc, char **argv)
{
	const char *fstype, *scratch, *loop, *dir, *name1, *name2;
	unsigned long count, seed, refused = 0, clean = 0, silent = 0, bad = 0;
	unsigned long by_errno[256] = { 0 };
	int fd, out, strict;

	if (argc != 8) {
		fprintf(stderr, "usage: hostile FSTYPE IMAGE SCRATCH LOOPDEV DIR COUNT SEED\n");
		return 2;
	}
	fstype = argv[1];
	scratch = argv[3];
	loop = argv[4];
	dir = argv[5];
	count = strtoul(argv[6], NULL, 0);
	seed = strtoul(argv[7], NULL, 0);
	strict = strcmp(fstype, "erofs") != 0;
	name1 = strrchr(scratch, '/') ? strrchr(scratch, '/') + 1 : scratch;
	name2 = strrchr(loop, '/') ? strrchr(loop, '/') + 1 : loop;

	fd = open(argv[2], O_RDONLY);
	image_size = fd < 0 ? 0 : read(fd, pristine, sizeof(pristine));
	if (image_size < 4096 || image_size == sizeof(pristine)) {
		fprintf(stderr, "hostile: %s: cannot be read, or not small\n", argv[2]);
		return 2;
	}
	close(fd);
	kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	out = open(scratch, O_RDWR | O_CREAT, 0600);
	if (kmsg < 0 || out < 0) {
		perror("hostile");
		return 2;
	}
	lseek(kmsg, 0, SEEK_END);

	if (pwrite(out, pristine, image_size, 0) != (ssize_t)image_size ||
	    mount(scratch, dir, fstype, MS_RDONLY, "") < 0 ||
	    collect(dir, 0) < 0 || umount(dir) < 0) {
		perror("hostile: the image before any damage");
		return 2;
	}
	region(SUPERBLOCK, SUPER, 144);
	region(SHARED, (size_t)le32(SUPER + 44) << pristine[SUPER + 12], 512);
	if (pristine[SUPER + 91])
		region(PREFIXES, 4 * (size_t)le32(SUPER + 92), 128);
	/* the inodes without a name, of fragments and of the metabox */
	if (le32(SUPER + 80) & 0x20 && le64(SUPER + 96))
		add_inode(le64(SUPER + 96));
	if (le32(SUPER + 80) & 0x100)
		add_inode(le64(SUPER + 128));
	if (kind_count[ZMAP])
		region(PCLUSTER, 4096, image_size);
	if (le16(SUPER + 86))
		region(DEVICES, (size_t)le16(SUPER + 88) * 128, 128 * le16(SUPER + 86));

	signal(SIGALRM, too_long);
	for (current = 0; current < count; current++) {
		const char *source = current & 1 ? loop : scratch;

		state = seed + current;
		for (int i = 0; i < 4; i++)
			rnd();
		damage();
		if (pwrite(out, image, image_size, 0) != (ssize_t)image_size) {
			perror(scratch);
			return 2;
		}
		alarm(30);
		logged(fstype, name1, name2);
		if (mount(source, dir, fstype, MS_RDONLY, "") < 0) {
			int err = errno;

			refused++;
			by_errno[err < 255 ? err : 255]++;
			last_line[0] = 0;
			if (!logged(fstype, name1, name2)) {
				silent++;
				if (strict && silent < 10)
					printf("# seed %lu: %s: refused with %s; no line names the image; the last: \"%s\"\n",
					       seed + current, story, strerrorname_np(err), last_line);
			}
			alarm(0);
			continue;
		}
		unsigned long before = errors;

		entries = 0;
		endless = 0;
		use(AT_FDCWD, dir, 0);
		if (before == errors)
			clean++;
		if (endless) {
			bad++;
			printf("# seed %lu: %s: a directory without an end\n", seed + current, story);
		}
		if (umount(dir) < 0) {
			printf("# seed %lu: %s: umount: %s\n", seed + current, story, strerrorname_np(errno));
			bad++;
			umount2(dir, MNT_DETACH);
		}
		alarm(0);
	}
	printf("# %lu images from seed %lu: %lu refused, %lu without any error; %lu inodes used, %lu errors, %lu KiB read\n",
	       count, seed, refused, clean, seen, errors, bytes >> 10);
	printf("# parts:");
	for (int i = 0; i < KINDS; i++)
		if (kind_count[i])
			printf(" %u %s,", kind_count[i], kind_names[i]);
	printf("\n# refused with:");
	for (int i = 0; i < 256; i++)
		if (by_errno[i])
			printf(" %s %lu", i < 255 ? strerrorname_np(i) : "?", by_errno[i]);
	printf("\n");
	if (silent)
		printf("# %lu refused without a line in the log that names the image\n", silent);
	return bad || (strict && silent);
}
