# SPDX-License-Identifier: GPL-2.0
#
# What older kernels lack of that which the module uses: each is told by the
# kernel tree that it is built for, and supplied by src/compat.rs or
# src/compat.c. Beside each is the oldest kernel that has it: when no older one
# is in scripts/kernels.lock any more, the line goes, and what it switches.

# lacks FILE REGEX: y if FILE of the kernel tree has no line with REGEX. Where
# there are the headers, but not the sources of the Rust crates, as some
# distributions have it, the version decides.
lacks = $(if $(wildcard $(srctree)/$(1)),$(shell grep -qE '$(2)' $(srctree)/$(1) || echo y),$(before-7.3))
before-7.3 := $(shell [ $$(($(VERSION) * 100 + $(PATCHLEVEL))) -ge 703 ] || echo y)

# 7.3: all error codes, ESTALE and EFSCORRUPTED among them
rustflags-$(call lacks,rust/kernel/error.rs,EFSCORRUPTED) += --cfg compat_error_codes
# 7.3: smp_mb(Read) for smp_rmb()
rustflags-$(call lacks,rust/kernel/sync/barrier.rs,fn smp_mb<) += --cfg compat_barriers
# 7.3: pin_init::raw_init()
rustflags-$(call lacks,rust/pin-init/src/lib.rs,fn raw_init<) += --cfg compat_raw_init
# 7.3: kobj_attribute.show in a union with one that takes a const attribute
rustflags-$(call lacks,include/linux/kobject.h,show_const) += --cfg compat_kobj_attribute
# 7.3: fs_bdev_file_open_by_path() in place of fs_holder_ops, which the caller names
ccflags-$(call lacks,include/linux/fs/super.h,fs_bdev_file_open_by_path) += -DEROFS_SHARED_COMPAT_BDEV
