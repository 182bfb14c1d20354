// SPDX-License-Identifier: GPL-2.0
/*
 * Containers on EROFS layers, with the system calls by which containerd 2.2 to 2.4 mounts them (plugins/mount/erofs and
 * internal/fsmount of its source): each container has every layer mounted for itself, by fsopen, fsconfig "ro", "source", create,
 * fsmount and move_mount at DIR/t/ID/N, and overlayfs by mount(2) on top, whose lowerdir= is relative to DIR/t/ID.
 *
 *   pods start HOW DIR FIRST COUNT LAYER... -- COMMAND ARG...
 *
 * starts containers FIRST, FIRST+1, ... one after the other. The first layer lies on top. The command runs as process 1 of pid,
 * mount, network, uts and ipc namespaces of its own; its first line on standard output is the container's first answer, and it keeps running. HOW:
 *
 *   TYPE        each layer an image file, mounted anew as a filesystem of this type for each container
 *   loop:TYPE   the same through a loop device of its own each time
 *   once:TYPE   each layer mounted once, for container 0 (as containerd 2.1 does), and used by the others
 *   bind:TYPE   each layer mounted once, for container 0, and that mount bound to a directory of each other container
 *   dir         each layer a directory: no image
 *
 * A LAYER with commas is an image file with device= options: IMAGE,device=FILE. Prints for each container "start ID RUN WALL":
 * nanoseconds that all processors ran, and that passed, from the first mount to the first answer; and "mount ID RUN", the part of it
 * for the mounts.
 *
 *   pods stop DIR FIRST COUNT
 *
 * kills them and unmounts what they had, in the order in which containerd does. Prints "stop ID RUN" for each.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/loop.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "measure.h"

#define MAX_LAYERS 500

static const char *dir;

static void make_dir(const char *path)
{
	if (mkdir(path, 0700) && errno != EEXIST)
		die(path);
}

/* at: a path below dir; the result is valid until the next but three */
static const char *at(const char *format, int id, int n)
{
	static char paths[4][4096];
	static int next;
	char *path = paths[next++ % 4];
	int len = snprintf(path, 4096, "%s/", dir);

	snprintf(path + len, 4096 - len, format, id, n);
	return path;
}

/* What a filesystem says in the log of its context */
static void show_log(int fs)
{
	char line[4096];
	ssize_t len;

	while ((len = read(fs, line, sizeof(line) - 1)) > 0)
		fprintf(stderr, "%.*s\n", (int)len, line);
}

static void fs_mount(const char *type, const char *source, char *options, const char *target)
{
	int fs = fsopen(type, FSOPEN_CLOEXEC), mnt;
	char *option, *value;

	if (fs < 0)
		die(type);
	if (fsconfig(fs, FSCONFIG_SET_FLAG, "ro", NULL, 0))
		die("fsconfig ro");
	if (fsconfig(fs, FSCONFIG_SET_STRING, "source", source, 0))
		die("fsconfig source");
	while ((option = strsep(&options, ","))) {
		value = strchr(option, '=');
		if (value)
			*value++ = 0;
		if (fsconfig(fs, value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, option, value, 0)) {
			show_log(fs);
			die(option);
		}
	}
	if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0)) {
		show_log(fs);
		die(source);
	}
	mnt = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY);
	if (mnt < 0)
		die("fsmount");
	if (move_mount(mnt, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH))
		die(target);
	close(mnt);
	close(fs);
}

/* A read-only loop device that goes when it is closed and unmounted; the caller closes it once it is mounted. */
static int loop_over(const char *file, char *name, size_t size)
{
	struct loop_config config = { .info.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR };
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), back, loop, number;

	back = open(file, O_RDONLY | O_CLOEXEC);
	if (control < 0 || back < 0)
		die(file);
	config.fd = back;
	do {
		number = ioctl(control, LOOP_CTL_GET_FREE);
		if (number < 0)
			die("LOOP_CTL_GET_FREE");
		snprintf(name, size, "/dev/loop%d", number);
		loop = open(name, O_RDONLY | O_CLOEXEC);
		if (loop < 0)
			die(name);
	} while (ioctl(loop, LOOP_CONFIGURE, &config) && errno == EBUSY && !close(loop));
	close(back);
	close(control);
	return loop;
}

static void mount_layer(const char *how, const char *layer, const char *target)
{
	char *image = strdup(layer), *options = strchr(image, ','), name[64];
	int loop = -1;

	if (options)
		*options++ = 0;
	if (!strncmp(how, "loop:", 5)) {
		loop = loop_over(image, name, sizeof(name));
		fs_mount(how + 5, name, options, target);
		close(loop);
	} else {
		fs_mount(how, image, options, target);
	}
	free(image);
}

static void mount_container(const char *how, int id, char **layers, int count)
{
	static char data[4096 * 4];
	int len = 0, once = !strncmp(how, "once:", 5), bound = !strncmp(how, "bind:", 5), directories = !strcmp(how, "dir");

	make_dir(at("%d", id, 0));
	make_dir(at("%d/fs", id, 0));
	/* the mode of the container's root */
	if (chmod(at("%d/fs", id, 0), 0755))
		die("chmod");
	make_dir(at("%d/work", id, 0));
	make_dir(at("%d/rootfs", id, 0));
	make_dir(at("t/%d", id, 0));
	for (int i = 0; i < count && !directories; i++) {
		make_dir(at("t/%d/%d", id, i));
		if (bound && id) {
			if (mount(at("t/%d/%d", 0, i), at("t/%d/%d", id, i), NULL, MS_BIND, NULL))
				die(layers[i]);
		} else if (!once || !id) {
			mount_layer(once || bound ? how + 5 : how, layers[i], at("t/%d/%d", id, i));
		}
	}
	len += snprintf(data + len, sizeof(data) - len, "workdir=%s", at("%d/work", id, 0));
	len += snprintf(data + len, sizeof(data) - len, ",upperdir=%s,lowerdir=", at("%d/fs", id, 0));
	for (int i = 0; i < count; i++) {
		if (directories)
			len += snprintf(data + len, sizeof(data) - len, "%s%s", i ? ":" : "", layers[i]);
		else
			len += snprintf(data + len, sizeof(data) - len, "%s%d", i ? ":" : "", i);
	}
	if (!directories && chdir(at("t/%d", once ? 0 : id, 0)))
		die("chdir");
	if (mount("overlay", at("%d/rootfs", id, 0), "overlay", 0, data))
		die(data);
	if (chdir("/"))
		die("/");
}

static void device(const char *name, int major, int minor)
{
	char path[64];

	snprintf(path, sizeof(path), "dev/%s", name);
	if (mknod(path, S_IFCHR | 0666, makedev(major, minor)) || chmod(path, 0666))
		die(path);
}

/* The rest of it is what runc does: the container's process, with its root */
static _Noreturn void become(int id, char **command, int answer)
{
	const char *root = at("%d/rootfs", id, 0);

	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) || mount(root, root, NULL, MS_BIND | MS_REC, NULL) || chdir(root))
		die(root);
	mkdir("proc", 0755);
	mkdir("dev", 0755);
	mkdir("tmp", 01777);
	if (mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) ||
	    mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"))
		die("proc, dev");
	device("null", 1, 3);
	device("zero", 1, 5);
	device("urandom", 1, 9);
	if (syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
		die("pivot_root");
	sethostname("pod", 3);
	if (setsid() < 0)
		die("setsid");
	int null = open("/dev/null", O_RDWR);

	if (null < 0 || dup2(null, 0) < 0 || dup2(answer, 1) < 0)
		die("descriptors");
	char *const environment[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1", NULL };

	execvpe(command[0], command, environment);
	die(command[0]);
}

static void run_container(int id, char **command)
{
	char line[256];
	int ends[2];
	FILE *f;

	if (pipe2(ends, O_CLOEXEC))
		die("pipe2");
	/* clone(2) with the child's stack shared as by fork(2) */
	pid_t pid = syscall(SYS_clone, CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | SIGCHLD, NULL, NULL, NULL, 0);

	if (pid < 0)
		die("clone");
	if (!pid)
		become(id, command, ends[1]);
	close(ends[1]);
	f = fopen(at("%d/pid", id, 0), "w");
	if (!f || fprintf(f, "%d\n", pid) < 0 || fclose(f))
		die("pid");
	f = fdopen(ends[0], "r");
	if (!f || !fgets(line, sizeof(line), f)) {
		fprintf(stderr, "pods: container %d gave no answer\n", id);
		exit(1);
	}
	f = freopen(at("%d/answer", id, 0), "w", f);
	if (!f || fputs(line, f) < 0 || fclose(f))
		die("answer");
}

static void end_container(int id)
{
	uint64_t before = settled_run_ns();
	char path[4096];
	long pid = -1;
	FILE *f;

	f = fopen(at("%d/pid", id, 0), "r");
	if (f) {
		if (fscanf(f, "%ld", &pid) != 1)
			pid = -1;
		fclose(f);
	}
	/* Its parent may have ended: whoever is, it is gone when the signal cannot be sent. */
	for (int i = 0; pid > 0 && !kill(pid, SIGKILL); i++) {
		waitpid(pid, NULL, WNOHANG);
		usleep(i < 10 ? 1000 : 20000);
	}
	while (!umount2(at("%d/rootfs", id, 0), 0))
		;
	if (errno != EINVAL)
		die(at("%d/rootfs", id, 0));
	for (int i = 0; i < MAX_LAYERS; i++) {
		snprintf(path, sizeof(path), "%s", at("t/%d/%d", id, i));
		if (access(path, F_OK))
			break;
		if (umount2(path, 0) && errno != EINVAL)
			die(path);
		rmdir(path);
	}
	rmdir(at("t/%d", id, 0));
	printf("stop %d %" PRIu64 "\n", id, settled_run_ns() - before);
	fflush(stdout);
}

static void explain(void)
{
	fprintf(stderr, "usage: pods start HOW DIR FIRST COUNT LAYER... -- COMMAND ARG...\n       pods stop DIR FIRST COUNT\n");
	exit(2);
}

int main(int argc, char **argv)
{
	if (argc == 5 && !strcmp(argv[1], "stop")) {
		dir = argv[2];
		/* The last first: what is mounted once belongs to the first. */
		for (int id = atoi(argv[3]) + atoi(argv[4]) - 1; id >= atoi(argv[3]); id--)
			end_container(id);
		return 0;
	}
	if (argc < 9 || strcmp(argv[1], "start"))
		explain();
	dir = argv[3];
	char **layers = argv + 6;
	int count = 0;

	while (layers[count] && strcmp(layers[count], "--"))
		count++;
	if (!count || count > MAX_LAYERS || !layers[count] || !layers[count + 1])
		explain();
	/* Containers that end leave no zombies. */
	signal(SIGCHLD, SIG_IGN);
	make_dir(dir);
	make_dir(at("t", 0, 0));
	for (int id = atoi(argv[4]), end = id + atoi(argv[5]); id < end; id++) {
		uint64_t run = settled_run_ns(), wall = clock_ns(CLOCK_MONOTONIC), mounted;

		mount_container(argv[2], id, layers, count);
		mounted = settled_run_ns();
		run_container(id, layers + count + 1);
		wall = clock_ns(CLOCK_MONOTONIC) - wall;
		printf("mount %d %" PRIu64 "\n", id, mounted - run);
		printf("start %d %" PRIu64 " %" PRIu64 "\n", id, settled_run_ns() - run, wall);
		fflush(stdout);
	}
	return 0;
}
