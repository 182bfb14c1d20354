// SPDX-License-Identifier: GPL-2.0
/*
 * Module parameters. The module! macro has none for words and strings. Documented
 * in Documentation/ABI/testing/sysfs-module-erofs-shared.
 */
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/string.h>

#include "erofs_shared_helpers.h"

/* That of the packages and of the tool; the module! macro has no place for it. */
MODULE_VERSION("0.1.0");

/* A parameter that is one of a list of words, by its number in the list. */
struct word_param {
	const char * const *words;
	size_t count;
	u32 value;
};

static int word_set(const char *text, const struct kernel_param *kp)
{
	struct word_param *param = kp->arg;
	int value = __sysfs_match_string(param->words, param->count, text);

	if (value < 0)
		return value;
	WRITE_ONCE(param->value, value);
	return 0;
}

static int word_get(char *buffer, const struct kernel_param *kp)
{
	const struct word_param *param = kp->arg;

	return sysfs_emit(buffer, "%s\n", param->words[READ_ONCE(param->value)]);
}

static const struct kernel_param_ops word_ops = {
	.set = word_set,
	.get = word_get,
};

#define WORD_PARAM(name, initial, mode, ...)				\
static const char * const name##_words[] = { __VA_ARGS__ };		\
static struct word_param name##_param = {				\
	.words = name##_words,						\
	.count = ARRAY_SIZE(name##_words),				\
	.value = initial,						\
};									\
module_param_cb(name, &word_ops, &name##_param, mode)

WORD_PARAM(register_erofs, EROFS_SHARED_REGISTER_AUTO, 0444,
	   [EROFS_SHARED_REGISTER_AUTO] = "auto",
	   [EROFS_SHARED_REGISTER_ON] = "on",
	   [EROFS_SHARED_REGISTER_OFF] = "off");
MODULE_PARM_DESC(register_erofs,
		 "Register the filesystem type \"erofs\", too: auto (if it is free; default), on (fail if it is not), off");

WORD_PARAM(share, EROFS_SHARED_SHARE_CONTENT, 0644,
	   [EROFS_SHARED_SHARE_CONTENT] = "content",
	   [EROFS_SHARED_SHARE_FINGERPRINT] = "fingerprint",
	   [EROFS_SHARED_SHARE_OFF] = "off");
MODULE_PARM_DESC(share,
		 "share= of mounts that do not give it: content (default), fingerprint, off");

WORD_PARAM(verify, EROFS_SHARED_VERIFY_COMPARE, 0644,
	   [EROFS_SHARED_VERIFY_DIGEST] = "digest",
	   [EROFS_SHARED_VERIFY_COMPARE] = "compare");
MODULE_PARM_DESC(verify,
		 "verify= of mounts that do not give it: compare (default), digest");

WORD_PARAM(charge, EROFS_SHARED_CHARGE_TOUCHER, 0644,
	   [EROFS_SHARED_CHARGE_TOUCHER] = "toucher",
	   [EROFS_SHARED_CHARGE_ROOT] = "root");
MODULE_PARM_DESC(charge,
		 "Memory cgroup that pays for shared pages: toucher (of the task that brings them in; default), root");

static bool directio = true;
module_param(directio, bool, 0644);
MODULE_PARM_DESC(directio,
		 "Read image files of mounts that do not give [no]directio with direct I/O where they are not in memory (default: Y)");

static unsigned int finder_delay = 5;
module_param(finder_delay, uint, 0644);
MODULE_PARM_DESC(finder_delay,
		 "Seconds after data was read (verify=compare) until equal blocks are looked for (default: 5)");

static unsigned int finder_cpu = 2;
module_param(finder_cpu, uint, 0644);
MODULE_PARM_DESC(finder_cpu,
		 "Percent of one processor that looking for equal blocks takes at most (1 to 100; default: 2)");

static unsigned int finder_memory = 12 * 1024;
module_param(finder_memory, uint, 0644);
MODULE_PARM_DESC(finder_memory,
		 "KiB that looking for equal blocks takes at most; with less of it, more is gone over (48 to 1048576; default: 12288)");

static unsigned int reuse_delay = 1;
module_param(reuse_delay, uint, 0644);
MODULE_PARM_DESC(reuse_delay,
		 "Seconds after an image file was mounted by mount(2) until that uses the same superblock again (default: 1)");

/* For root only: knowing the name is enough to join the domain. */
static char domain_id[EROFS_SHARED_DOMAIN_MAX + 1];
module_param_string(domain_id, domain_id, sizeof(domain_id), 0600);
MODULE_PARM_DESC(domain_id,
		 "domain_id= of mounts that do not give it (default: empty, the domain of all such mounts)");

u32 erofs_shared_param_register(void)
{
	return register_erofs_param.value;
}

u32 erofs_shared_param_share(void)
{
	return READ_ONCE(share_param.value);
}

u32 erofs_shared_param_verify(void)
{
	return READ_ONCE(verify_param.value);
}

u32 erofs_shared_param_charge(void)
{
	return READ_ONCE(charge_param.value);
}

bool erofs_shared_param_directio(void)
{
	return READ_ONCE(directio);
}

/* In milliseconds, at most an hour. */
static u32 milliseconds(const unsigned int *seconds)
{
	return min(READ_ONCE(*seconds), 3600U) * MSEC_PER_SEC;
}

u32 erofs_shared_param_finder_delay(void)
{
	return milliseconds(&finder_delay);
}

u32 erofs_shared_param_finder_cpu(void)
{
	return clamp(READ_ONCE(finder_cpu), 1U, 100U);
}

u32 erofs_shared_param_finder_memory(void)
{
	return clamp(READ_ONCE(finder_memory), 48U, 1024U * 1024U);
}

u32 erofs_shared_param_reuse_delay(void)
{
	return milliseconds(&reuse_delay);
}

void erofs_shared_clear(void *memory, size_t bytes)
{
	memzero_explicit(memory, bytes);
}

/* Copies the default domain, without the newline that echo leaves, to @name. */
void erofs_shared_param_domain(char name[EROFS_SHARED_DOMAIN_MAX + 1])
{
	kernel_param_lock(THIS_MODULE);
	strscpy(name, domain_id, EROFS_SHARED_DOMAIN_MAX + 1);
	kernel_param_unlock(THIS_MODULE);
	name[strcspn(name, "\n")] = '\0';
}
