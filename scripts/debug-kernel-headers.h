/* SPDX-License-Identifier: GPL-2.0 */
/* What scripts/debug-kernel-cc precompiles: headers that many sources of the kernel include, themselves or by others. */
#include <linux/module.h>
#include <linux/init.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/device.h>
#include <linux/uaccess.h>
#include <linux/blkdev.h>
#include <linux/pagemap.h>
#include <linux/seq_file.h>
#include <linux/proc_fs.h>
#include <linux/interrupt.h>
#include <linux/kthread.h>
#include <linux/cgroup.h>
#include <linux/memcontrol.h>
#include <linux/security.h>
#include <linux/syscalls.h>
#include <linux/skbuff.h>
#include <net/sock.h>
#include <linux/pci.h>
#include <linux/acpi.h>
#include <linux/perf_event.h>
#include <linux/kprobes.h>
