// SPDX-License-Identifier: GPL-2.0
/*
 * vfs COMMAND ARG...
 *
 * System calls for ksft_vfs.sh that no common program makes, or makes without
 * saying what came of it. What a call gave is printed, an error by its name;
 * the exit status is 0 when the command could ask its question at all.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

/* Of <linux/fs.h>, which does not go together with <sys/mount.h> */
#define GETFSLABEL	_IOR(0x94, 49, char[256])
#define SETFSLABEL	_IOW(0x94, 50, char[256])
#define GETFLAGS	_IOR('f', 1, long)
#define SETFLAGS	_IOW('f', 2, long)
#define GETUUID		_IOR(0x15, 0, char[17])
#define FIBMAP		_IO(0x00, 1)
#define GETBLOCKSIZE	_IO(0x00, 2)
#define TRIM		_IOWR('X', 121, uint64_t[3])
#define UNKNOWN		_IO('%', 0x77)

#ifndef AT_HANDLE_CONNECTABLE
#define AT_HANDLE_CONNECTABLE	0x002
#endif

#define ARRAY_SIZE(array)	(sizeof(array) / sizeof((array)[0]))

#define HANDLE_ROOM	128

_Noreturn static void die(const char *what)
{
	printf("%s: %s\n", what, strerrorname_np(errno));
	exit(1);
}

static int get(int value, const char *what)
{
	if (value < 0)
		die(what);
	return value;
}

static void say(const char *what, long value)
{
	printf("%s=%s\n", what, value < 0 ? strerrorname_np(errno) : "ok");
}

/* errors DIR: every way to change something below DIR, which has to have data/file, data/empty, data/sub */
static int cmd_errors(char **arg)
{
	static const struct timespec times[2];
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "socket" };
	long flags = 0;
	int fd;

	get(chdir(arg[0]), "chdir");
	get(chdir("data"), "chdir");
	say("open-wronly", open("file", O_WRONLY));
	say("open-rdwr", open("file", O_RDWR));
	say("open-trunc", open("file", O_RDONLY | O_TRUNC));
	say("open-append", open("file", O_WRONLY | O_APPEND));
	say("open-creat", open("new", O_RDONLY | O_CREAT, 0600));
	say("open-tmpfile", open(".", O_RDWR | O_TMPFILE, 0600));
	say("truncate", truncate("file", 1));
	say("unlink", unlink("file"));
	say("rmdir", rmdir("void"));
	say("mkdir", mkdir("new", 0700));
	say("mknod-fifo", mknod("new", S_IFIFO | 0600, 0));
	say("mknod-char", mknod("new", S_IFCHR | 0600, 0));
	say("symlink", symlink("file", "new"));
	say("link", link("file", "new"));
	say("rename", rename("file", "new"));
	say("rename-over", rename("file", "empty"));
	say("rename-exchange", renameat2(AT_FDCWD, "file", AT_FDCWD, "empty", RENAME_EXCHANGE));
	say("chmod", chmod("file", 0600));
	say("chown", chown("file", 1, 1));
	say("lchown", lchown("link", 1, 1));
	say("utimensat", utimensat(AT_FDCWD, "file", times, 0));
	say("utimensat-now", utimensat(AT_FDCWD, "file", NULL, 0));
	say("setxattr", setxattr("file", "user.new", "x", 1, 0));
	say("removexattr", removexattr("file", "user.a"));
	say("setacl", setxattr("file", "system.posix_acl_access", "\2\0\0\0", 4, 0));
	say("access-w", access("file", W_OK));
	say("swapon", swapon("file", 0));
	fd = get(socket(AF_UNIX, SOCK_STREAM, 0), "socket");
	say("bind", bind(fd, (struct sockaddr *)&address, sizeof(address)));
	close(fd);

	fd = get(open("file", O_RDONLY), "open");
	say("fchmod", fchmod(fd, 0600));
	say("fchown", fchown(fd, 1, 1));
	say("futimens", futimens(fd, times));
	say("fsetxattr", fsetxattr(fd, "user.new", "x", 1, 0));
	say("ftruncate", ftruncate(fd, 1));
	say("fallocate", fallocate(fd, 0, 0, 1));
	say("write", write(fd, "x", 1));
	say("mmap-shared-write",
	    mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0);
	say("setflags", ioctl(fd, SETFLAGS, &flags));
	say("setfslabel", ioctl(fd, SETFSLABEL, "x"));
	say("fsync", fsync(fd));
	say("syncfs", syncfs(fd));
	return 0;
}

/* statx PATH...: all that does not depend on which mount it is */
static int cmd_statx(char **arg)
{
	struct statx s;

	for (; *arg; arg++) {
		memset(&s, 0, sizeof(s));
		get(statx(AT_FDCWD, *arg, AT_SYMLINK_NOFOLLOW,
			  STATX_BASIC_STATS | STATX_BTIME | STATX_DIOALIGN, &s), *arg);
		printf("mask %x attributes %llx of %llx blksize %u nlink %u owner %u:%u mode %o",
		       s.stx_mask, s.stx_attributes & ~STATX_ATTR_MOUNT_ROOT,
		       s.stx_attributes_mask, s.stx_blksize, s.stx_nlink, s.stx_uid, s.stx_gid,
		       s.stx_mode);
		printf(" ino %llu size %llu blocks %llu mtime %lld.%u btime %lld dio %u %u\n",
		       s.stx_ino, s.stx_size, s.stx_blocks, s.stx_mtime.tv_sec,
		       s.stx_mtime.tv_nsec, s.stx_btime.tv_sec, s.stx_dio_mem_align,
		       s.stx_dio_offset_align);
	}
	return 0;
}

/* label PATH */
static int cmd_label(char **arg)
{
	char label[256] = "not written";
	int fd = get(open(arg[0], O_RDONLY), "open");

	get(ioctl(fd, GETFSLABEL, label), "FS_IOC_GETFSLABEL");
	printf("%s\n", label);
	return 0;
}

/* fibmap PATH: the block on the device of the first block of a file */
static int cmd_fibmap(char **arg)
{
	int block = 0;
	int fd = get(open(arg[0], O_RDONLY), "open");

	say("fibmap", ioctl(fd, FIBMAP, &block));
	printf("block %d\n", block);
	return 0;
}

/* ioctls PATH */
static int cmd_ioctls(char **arg)
{
	unsigned char uuid[17] = {};
	uint64_t range[3] = { 0, UINT64_MAX, 0 };
	long flags = 0;
	int size = 0;
	int fd = get(open(arg[0], O_RDONLY), "open");

	say("unknown", ioctl(fd, UNKNOWN, 0));
	say("label-bad-address", ioctl(fd, GETFSLABEL, (void *)8));
	say("trim", ioctl(fd, TRIM, range));
	say("getflags", ioctl(fd, GETFLAGS, &flags));
	say("blocksize", ioctl(fd, GETBLOCKSIZE, &size));
	say("uuid", ioctl(fd, GETUUID, uuid));
	printf("flags %lx block size %d uuid ", flags, size);
	for (size_t i = 0; i < sizeof(uuid); i++)
		printf("%02x", uuid[i]);
	printf("\n");
	return 0;
}

union handle {
	struct file_handle h;
	char room[sizeof(struct file_handle) + HANDLE_ROOM];
};

/* handle [-c] PATH: prints TYPE HEX; -c asks for one that knows the parent */
static int cmd_handle(char **arg)
{
	union handle u = {};
	int flags = 0, id;

	if (!strcmp(arg[0], "-c")) {
		flags = AT_HANDLE_CONNECTABLE;
		arg++;
	}
	if (!name_to_handle_at(AT_FDCWD, arg[0], &u.h, &id, flags) || errno != EOVERFLOW ||
	    !u.h.handle_bytes) {
		printf("a handle in no room is not refused with EOVERFLOW and a size\n");
		return 1;
	}
	u.h.handle_bytes = HANDLE_ROOM;
	get(name_to_handle_at(AT_FDCWD, arg[0], &u.h, &id, flags), "name_to_handle_at");
	printf("%d ", u.h.handle_type);
	for (unsigned int i = 0; i < u.h.handle_bytes; i++)
		printf("%02x", u.h.f_handle[i]);
	printf("\n");
	return 0;
}

/* open MOUNT TYPE HEX: prints the path below MOUNT, the inode number, and the start of the content */
static int cmd_open(char **arg)
{
	union handle u = {};
	char proc[40], path[4096], data[33] = "";
	unsigned int byte;
	struct stat s;
	ssize_t len;
	int fd, dir = get(open(arg[0], O_RDONLY | O_DIRECTORY), "open");

	u.h.handle_type = atoi(arg[1]);
	for (const char *hex = arg[2]; sscanf(hex, "%2x", &byte) == 1; hex += 2)
		u.h.f_handle[u.h.handle_bytes++] = byte;
	fd = open_by_handle_at(dir, &u.h, O_RDONLY);
	if (fd < 0) {
		printf("%s\n", strerrorname_np(errno));
		return 0;
	}
	get(fstat(fd, &s), "fstat");
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	len = get(readlink(proc, path, sizeof(path) - 1), "readlink");
	path[len] = 0;
	if (S_ISREG(s.st_mode))
		get(read(fd, data, sizeof(data) - 1), "read");
	printf("%s %o %llu %s\n",
	       strncmp(path, arg[0], strlen(arg[0])) ? path : path + strlen(arg[0]), s.st_mode,
	       (unsigned long long)s.st_ino, data);
	return 0;
}

/* guess MOUNT TYPE COUNT MAX: handles with made-up numbers below MAX; all must open or be refused */
static int cmd_guess(char **arg)
{
	long count = atol(arg[2]), opened = 0, refused = 0;
	unsigned long max = strtoul(arg[3], NULL, 0);
	int dir = get(open(arg[0], O_RDONLY | O_DIRECTORY), "open");

	srandom(1);
	for (long i = 0; i < count; i++) {
		union handle u = {};
		unsigned long nid = (((unsigned long)random() << 31) ^ random()) % max;
		uint32_t words[6] = { nid >> 32, nid, 0, nid >> 32, nid + i % 3, 0 };
		int fd;

		u.h.handle_type = atoi(arg[1]);
		u.h.handle_bytes = i % 25;
		if (i % 4)
			u.h.handle_bytes = sizeof(words);
		memcpy(u.h.f_handle, words, sizeof(words));
		fd = open_by_handle_at(dir, &u.h, O_PATH);
		if (fd >= 0) {
			opened++;
			close(fd);
		} else if (errno == ESTALE || errno == EUCLEAN || errno == EIO || errno == EINVAL ||
			   errno == EOPNOTSUPP || errno == ENOENT) {
			refused++;
		} else {
			printf("number %lx: ", nid);
			die("open_by_handle_at");
		}
	}
	printf("%ld opened, %ld refused\n", opened, refused);
	return refused ? 0 : 1;
}

static void put_file(const char *path, const char *text)
{
	int fd = get(open(path, O_WRONLY), path);

	get(write(fd, text, strlen(text)), path);
	close(fd);
}

/* idmap FROM TO FIRST: FROM once more at TO, with owner 0 shown as FIRST, 1 as FIRST + 1, … */
static int cmd_idmap(char **arg)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_IDMAP };
	char path[64], map[64];
	int ready[2], tree;
	pid_t child;
	char c;

	get(pipe(ready), "pipe");
	child = get(fork(), "fork");
	if (!child) {
		get(unshare(CLONE_NEWUSER), "unshare");
		get(write(ready[1], "x", 1), "write");
		pause();
		exit(0);
	}
	get(read(ready[0], &c, 1), "read");
	snprintf(map, sizeof(map), "0 %s 65536", arg[2]);
	snprintf(path, sizeof(path), "/proc/%d/uid_map", child);
	put_file(path, map);
	snprintf(path, sizeof(path), "/proc/%d/gid_map", child);
	put_file(path, map);
	snprintf(path, sizeof(path), "/proc/%d/ns/user", child);
	attr.userns_fd = get(open(path, O_RDONLY), path);
	tree = get(open_tree(AT_FDCWD, arg[0], OPEN_TREE_CLONE), "open_tree");
	get(mount_setattr(tree, "", AT_EMPTY_PATH, &attr, sizeof(attr)), "mount_setattr");
	get(move_mount(tree, "", AT_FDCWD, arg[1], MOVE_MOUNT_F_EMPTY_PATH), "move_mount");
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	return 0;
}

/* direct FILE: the two ways to ask for direct I/O */
static int cmd_direct(char **arg)
{
	int fd = get(open(arg[0], O_RDONLY), "open");

	say("open-direct", open(arg[0], O_RDONLY | O_DIRECT));
	say("setfl-direct", fcntl(fd, F_SETFL, O_DIRECT));
	return 0;
}

/* remount DIR ro|rw [OPTIONS]: mount(2) with MS_REMOUNT */
static int cmd_remount(char **arg)
{
	unsigned long flags = MS_REMOUNT | (strcmp(arg[1], "rw") ? MS_RDONLY : 0);

	get(mount(NULL, arg[0], NULL, flags, arg[2]), "remount");
	return 0;
}

/* umount DIR */
static int cmd_umount(char **arg)
{
	say("umount", umount2(arg[0], 0));
	return 0;
}

/* freeze DIR */
static int cmd_freeze(char **arg)
{
	int fd = get(open(arg[0], O_RDONLY), "open");

	say("freeze", ioctl(fd, _IOWR('X', 119, int), 0));
	say("thaw", ioctl(fd, _IOWR('X', 120, int), 0));
	return 0;
}

static void touch_file(const char *path)
{
	char data[16];
	int fd = get(open(path, O_RDONLY), path);

	get(read(fd, data, sizeof(data)), path);
	close(fd);
}

/* inotify DIR NAME: which events a watch on DIR sees when DIR/NAME is read */
static int cmd_inotify(char **arg)
{
	union {
		struct inotify_event first;
		char bytes[4096];
	} room;
	char path[4096];
	uint32_t seen = 0;
	ssize_t len;
	int fd = get(inotify_init1(IN_NONBLOCK), "inotify_init1");

	get(inotify_add_watch(fd, arg[0], IN_ALL_EVENTS), "inotify_add_watch");
	snprintf(path, sizeof(path), "%s/%s", arg[0], arg[1]);
	touch_file(path);
	len = get(read(fd, &room, sizeof(room)), "read");
	for (char *p = room.bytes; p < room.bytes + len;) {
		struct inotify_event *event = (void *)p;

		if (event->len && !strcmp(event->name, arg[1]))
			seen |= event->mask;
		p += sizeof(*event) + event->len;
	}
	printf("%x\n", seen);
	return seen == (IN_OPEN | IN_ACCESS | IN_CLOSE_NOWRITE) ? 0 : 1;
}

/* fanotify DIR FILE: a mark on the filesystem with file handles in its events */
static int cmd_fanotify(char **arg)
{
	union {
		struct {
			struct fanotify_event_metadata event;
			struct fanotify_event_info_fid info;
		};
		char bytes[4096];
	} room;
	int fd = get(fanotify_init(FAN_CLASS_NOTIF | FAN_REPORT_FID | FAN_NONBLOCK, O_RDONLY),
		     "fanotify_init");

	if (fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_OPEN, AT_FDCWD, arg[0])) {
		say("mark", -1);
		return 0;
	}
	touch_file(arg[1]);
	get(read(fd, &room, sizeof(room)), "read");
	printf("mask %llx type %d handle %d\n", (unsigned long long)room.event.mask,
	       room.info.hdr.info_type, ((struct file_handle *)room.info.handle)->handle_type);
	return 0;
}

/* locks FILE: flock(2), fcntl(2) locks of both kinds, leases */
static int cmd_locks(char **arg)
{
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = 10 };
	int a = get(open(arg[0], O_RDONLY), "open");
	int b = get(open(arg[0], O_RDONLY), "open");

	say("flock-exclusive", flock(a, LOCK_EX | LOCK_NB));
	say("flock-second", flock(b, LOCK_SH | LOCK_NB));
	say("flock-release", flock(a, LOCK_UN));
	say("flock-again", flock(b, LOCK_SH | LOCK_NB));
	say("posix-read", fcntl(a, F_SETLK, &lock));
	say("ofd-read", fcntl(b, F_OFD_SETLK, &lock));
	lock.l_type = F_WRLCK;
	say("posix-write", fcntl(a, F_SETLK, &lock));
	flock(b, LOCK_UN);
	say("lease-read", fcntl(a, F_SETLEASE, F_RDLCK));
	printf("lease %d\n", fcntl(a, F_GETLEASE));
	say("lease-release", fcntl(a, F_SETLEASE, F_UNLCK));
	/* the only one that has it open */
	close(b);
	say("lease-write", fcntl(a, F_SETLEASE, F_WRLCK));
	return 0;
}

/* caps: the effective user and capabilities that exec(2) of this program gave */
static int cmd_caps(char **arg)
{
	char line[256];
	FILE *file = fopen("/proc/self/status", "r");

	(void)arg;
	if (!file)
		die("/proc/self/status");
	printf("euid %d", geteuid());
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, "CapEff:\t", 8))
			printf(" caps %llx\n", strtoull(line + 8, NULL, 16));
	return 0;
}

static const struct command {
	const char *name;
	int args;
	int (*run)(char **arg);
} commands[] = {
	{ "errors", 1, cmd_errors },
	{ "statx", 1, cmd_statx },
	{ "label", 1, cmd_label },
	{ "ioctls", 1, cmd_ioctls },
	{ "fibmap", 1, cmd_fibmap },
	{ "handle", 1, cmd_handle },
	{ "open", 3, cmd_open },
	{ "guess", 4, cmd_guess },
	{ "idmap", 3, cmd_idmap },
	{ "direct", 1, cmd_direct },
	{ "remount", 2, cmd_remount },
	{ "umount", 1, cmd_umount },
	{ "freeze", 1, cmd_freeze },
	{ "inotify", 2, cmd_inotify },
	{ "fanotify", 2, cmd_fanotify },
	{ "locks", 1, cmd_locks },
	{ "caps", 0, cmd_caps },
};

int main(int argc, char **argv)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (argc > 1 && !strcmp(argv[1], commands[i].name) && argc - 2 >= commands[i].args)
			return commands[i].run(argv + 2);
	fprintf(stderr, "usage: vfs COMMAND ARG...; see the comments in vfs.c\n");
	return 2;
}
