// SPDX-License-Identifier: GPL-2.0

//! Mounting: the filesystem context, mount options, and the superblock's birth.

use core::ptr::NonNull;

use kernel::{
    bindings,
    error::{from_result, to_result},
    ffi, fmt,
    prelude::*,
    str::CString,
    sync::{aref::ARef, atomic::Atomic},
};

use super::{
    param::{Param, ParamValue, SOURCE},
    superblock::Private,
    FileSystem, Super, Tables,
};
use crate::{io, raw};

/// A filesystem context: where a mount's errors go.
pub(crate) struct Context<'a> {
    fc: &'a mut raw::fs_context,
    to_kernel_log: bool,
}

impl<'a> Context<'a> {
    /// While options are given. Any task with a user namespace may do that, at any rate, so that
    /// the kernel log is only for callers that have no log of their own (`mount(2)`), at a limited
    /// rate.
    fn parsing(fc: &'a mut raw::fs_context) -> Self {
        Self {
            fc,
            to_kernel_log: false,
        }
    }

    /// While a superblock is made, which the VFS allows the administrator alone (`mount_capable`).
    fn mounting(fc: &'a mut raw::fs_context) -> Self {
        Self {
            fc,
            to_kernel_log: true,
        }
    }

    /// Tells why the mount fails: the caller of `fsconfig` in the context's log, and the kernel log
    /// if there is no other or the mount was under way.
    pub(crate) fn error(&self, args: fmt::Arguments<'_>) {
        if self.to_kernel_log {
            pr_err!("{}\n", args);
        }
        if let Ok(text) = CString::try_from_fmt(args) {
            let fc: *const raw::fs_context = &*self.fc;
            let or_kernel_log = !self.to_kernel_log;
            // SAFETY: The context is live; the log is only touched by the task that mounts.
            unsafe {
                raw::erofs_shared_fc_error(fc.cast_mut().cast(), text.as_char_ptr(), or_kernel_log)
            }
        }
    }

    /// The source as it was given.
    fn source(&self) -> &CStr {
        if self.fc.source.is_null() {
            return c"(no source)";
        }
        // SAFETY: The context owns the NUL-terminated string.
        unsafe { CStr::from_char_ptr(self.fc.source) }
    }

    /// As [`Context::error`], giving `EINVAL`.
    pub(crate) fn invalid(&self, args: fmt::Arguments<'_>) -> Error {
        self.error(args);
        EINVAL
    }
}

/// `file_system_type::init_fs_context`
///
/// # Safety
///
/// `fc` is a new context for a registered type of `T`.
pub(super) unsafe extern "C" fn init<T: FileSystem>(fc: *mut bindings::fs_context) -> ffi::c_int {
    from_result(|| {
        let private = KBox::new(
            Private::<T> {
                source: None,
                key: None,
                under_way: Atomic::new(0),
                info: T::new_info()?,
            },
            GFP_KERNEL,
        )?;
        // SAFETY: The context is ours to fill.
        unsafe {
            let fc = fc.cast::<raw::fs_context>();
            (*fc).s_fs_info = KBox::into_raw(private).cast();
            (*fc).ops = &Tables::<T>::CONTEXT_OPS;
        }
        Ok(0)
    })
}

impl<T: FileSystem> Tables<T> {
    pub(super) const CONTEXT_OPS: raw::fs_context_operations = raw::fs_context_operations {
        free: Some(Self::fc_free),
        dup: None,
        parse_param: Some(Self::fc_parse_param),
        parse_monolithic: None,
        get_tree: Some(Self::fc_get_tree),
        reconfigure: Some(Self::fc_reconfigure),
    };

    /// The state that the context owns, unless a superblock has taken it.
    ///
    /// # Safety
    ///
    /// `fc` is a context of `T`, in use by this task alone for `'a` (`uapi_mutex`). The caller does
    /// not use the result any more once it has let a superblock take the state, nor a second one
    /// beside it.
    unsafe fn private<'a>(fc: *mut raw::fs_context) -> Option<&'a mut Private<T>> {
        // SAFETY: `init` put it there; `sget_fc` clears the pointer when a superblock takes the
        // state. The rest by the function's safety requirements.
        unsafe { (*fc).s_fs_info.cast::<Private<T>>().as_mut() }
    }

    /// # Safety
    ///
    /// `fs_context_operations::free`
    unsafe extern "C" fn fc_free(fc: *mut raw::fs_context) {
        // SAFETY: If the pointer is still here, no superblock has taken the state.
        unsafe {
            let private = (*fc).s_fs_info.cast::<Private<T>>();
            if !private.is_null() {
                (*fc).s_fs_info = core::ptr::null_mut();
                drop(KBox::from_raw(private));
            }
        }
    }

    /// # Safety
    ///
    /// `fs_context_operations::parse_param`
    unsafe extern "C" fn fc_parse_param(
        fc: *mut raw::fs_context,
        param: *mut raw::fs_parameter,
    ) -> ffi::c_int {
        from_result(|| {
            // SAFETY: All-zero is a valid result structure.
            let mut result: raw::fs_parse_result = unsafe { core::mem::zeroed() };
            // SAFETY: The table is ended by `END`; context and parameter are live.
            let opt = unsafe {
                raw::__fs_parse(
                    &mut (*fc).log,
                    T::PARAMS.as_ptr().cast(),
                    param,
                    &mut result,
                )
            };
            // ENOPARAM must reach the VFS as it is, so that it tries the generic options.
            to_result(opt)?;
            let opt = opt as u8;
            // SAFETY: The VFS holds `uapi_mutex`, or is the only user of the context; no superblock
            // is made here, and there is no other reference.
            let private = unsafe { Self::private(fc) }.ok_or(EINVAL)?;
            if opt == SOURCE {
                // SAFETY: Both are live for the call, and no other reference to the state is used
                // meanwhile.
                unsafe { Self::parse_source(fc, param, private)? };
                return Ok(0);
            }
            // SAFETY: The option's type in the table says which member of the result is set; every
            // member is valid for any bits. A string parameter has a string.
            let value = unsafe {
                let spec = T::PARAMS
                    .0
                    .iter()
                    .find(|p| p.0.opt == opt && !p.0.name.is_null() && Self::same_kind(p, param))
                    .ok_or(EINVAL)?;
                match spec.0.type_ {
                    None => ParamValue::Flag(!result.negated),
                    Some(_) if !spec.0.data.is_null() => {
                        ParamValue::Choice(*result.__bindgen_anon_1.int_32.as_ref())
                    }
                    Some(f) if f as usize == raw::fs_param_is_u64 as usize => {
                        ParamValue::Number(*result.__bindgen_anon_1.uint_64.as_ref())
                    }
                    Some(_) => {
                        let string = (*param).__bindgen_anon_1.string;
                        if string.is_null() {
                            return Err(EINVAL);
                        }
                        ParamValue::String(CStr::from_char_ptr(string))
                    }
                }
            };
            // SAFETY: Live context.
            let context = Context::parsing(unsafe { &mut *fc });
            let is_string = matches!(value, ParamValue::String(_));
            let parsed = T::parse_param(&mut private.info, &context, opt, value);
            if is_string {
                // SAFETY: The string is the parameter's own, which the VFS would free. It may be a
                // secret (`domain_id=`), so that no copy is left in memory. `value`, which borrowed
                // it, is gone.
                unsafe {
                    let string = &mut (*param).__bindgen_anon_1.string;
                    bindings::kfree_sensitive((*string).cast());
                    *string = core::ptr::null_mut();
                }
            }
            parsed.map(|()| 0)
        })
    }

    /// An option can be in the table twice, as a flag and with a value (`dax`, `dax=`).
    ///
    /// # Safety
    ///
    /// `param` is live.
    unsafe fn same_kind(spec: &Param, param: *mut raw::fs_parameter) -> bool {
        // SAFETY: By this function's requirements `param` is live.
        let is_flag = unsafe { (*param).type_() } == raw::EROFS_SHARED_VALUE_IS_FLAG as i32;
        spec.0.type_.is_none() == is_flag
    }

    /// # Safety
    ///
    /// As for `fc_parse_param`; the option is `source`.
    unsafe fn parse_source(
        fc: *mut raw::fs_context,
        param: *mut raw::fs_parameter,
        private: &mut Private<T>,
    ) -> Result {
        // SAFETY: Live context and parameter. What is taken from the parameter is cleared in it.
        unsafe {
            if !(*fc).source.is_null() || private.source.is_some() {
                let context = Context::parsing(&mut *fc);
                return Err(context.invalid(fmt!("only one source can be given")));
            }
            if (*param).type_() == raw::EROFS_SHARED_VALUE_IS_STRING as i32 {
                (*fc).source = (*param).__bindgen_anon_1.string;
                (*param).__bindgen_anon_1.string = core::ptr::null_mut();
                return Ok(());
            }
            let file = NonNull::new((*param).__bindgen_anon_1.file).ok_or(EINVAL)?;
            let mut buf = KVec::<u8>::from_elem(0, bindings::PATH_MAX as usize, GFP_KERNEL)?;
            let path = kernel::error::from_err_ptr(bindings::file_path(
                file.as_ptr(),
                buf.as_mut_ptr().cast(),
                bindings::PATH_MAX as i32,
            ))?;
            let source = bindings::kstrdup(path, bindings::GFP_KERNEL);
            if source.is_null() {
                return Err(ENOMEM);
            }
            (*fc).source = source;
            (*param).__bindgen_anon_1.file = core::ptr::null_mut();
            // The descriptor's reference passes on; the file is not used through a descriptor here.
            private.source = Some(ARef::from_raw(file.cast()));
            Ok(())
        }
    }

    /// # Safety
    ///
    /// `fs_context_operations::get_tree`
    unsafe extern "C" fn fc_get_tree(fc: *mut raw::fs_context) -> ffi::c_int {
        from_result(|| {
            // SAFETY: The context is live; the borrow of its state ended above.
            if unsafe { Self::given_file(fc)? } {
                // SAFETY: As for this function; the state has the file.
                unsafe { Self::get_tree_file(fc)? };
                return Ok(0);
            }
            // SAFETY: Live context.
            let ret = unsafe {
                raw::get_tree_bdev_flags(
                    fc,
                    Some(Self::fc_fill_super),
                    raw::EROFS_SHARED_GET_TREE_BDEV_QUIET_LOOKUP,
                )
            };
            if ret != ENOTBLK.to_errno() {
                to_result(ret)?;
                // SAFETY: As for this function; the context has a root now.
                unsafe { Self::tell_if_again(fc) };
                return Ok(0);
            }
            // Not a block device: an image file?
            // SAFETY: The context is live, and no other reference to its state is used meanwhile.
            unsafe { Self::open_source(fc)? };
            // SAFETY: As for this function; the state has the file.
            unsafe { Self::get_tree_file(fc)? };
            Ok(0)
        })
    }

    /// Gets the superblock of an image file: the one that the image is mounted with, or a new one.
    ///
    /// # Safety
    ///
    /// As for `fc_get_tree`; the context's state has the source's file.
    unsafe fn get_tree_file(fc: *mut raw::fs_context) -> Result {
        // SAFETY: By the function's safety requirements; the borrow ends before a superblock is
        // made.
        let private = unsafe { Self::private(fc) }.ok_or(EINVAL)?;
        if let Some(source) = &private.source {
            private.key = T::key(&mut private.info, source)?;
        }
        // SAFETY: Live context; both callbacks fit its state.
        to_result(unsafe {
            raw::erofs_shared_get_tree_file(fc, Some(Self::fc_is_same), Some(Self::fc_fill_super))
        })?;
        // SAFETY: By the function's safety requirements; the context has a root now.
        unsafe { Self::tell_if_again(fc) };
        Ok(())
    }

    /// Tells the filesystem if the superblock was there before.
    ///
    /// # Safety
    ///
    /// As for `fc_get_tree`, which has succeeded: the context has a root.
    unsafe fn tell_if_again(fc: *mut raw::fs_context) {
        // SAFETY: By the function's safety requirements. A superblock that is new has taken the
        // state; one that was there has not.
        unsafe {
            if !(*fc).s_fs_info.is_null() {
                let sb = Super::<T>::from_raw((*(*fc).root).d_sb);
                T::mounted_again(sb, Context::mounting(&mut *fc).source());
            }
        }
    }

    /// # Safety
    ///
    /// The `test` of `sget_fc`: `sb_lock` is held, `sb` is a superblock of `T` that is not dead,
    /// and `fc` is the context of `get_tree_file`.
    unsafe extern "C" fn fc_is_same(
        sb: *mut bindings::super_block,
        fc: *mut raw::fs_context,
    ) -> ffi::c_int {
        // SAFETY: By the function's safety requirements. One on a block device is dead only after
        // its state is gone, and is not looked at; `kill_sb` drops that of the others after they
        // are. Nothing borrows the keys mutably any more: they were set before the superblocks were
        // made.
        let (old, new) = unsafe {
            if !raw::erofs_shared_super_is_anon(sb) {
                return 0;
            }
            let [old, new] =
                [(*sb).s_fs_info, (*fc).s_fs_info].map(|info| info.cast::<Private<T>>());
            if old.is_null() || new.is_null() || (*fc).exclusive() {
                return 0;
            }
            (&(*old).key, &(*new).key)
        };
        match (old, new) {
            (Some(old), Some(new)) => ffi::c_int::from(T::is_same(old, new)),
            _ => 0,
        }
    }

    /// Whether the source was given as an open file, which then is one that can hold an image.
    ///
    /// # Safety
    ///
    /// As for `fc_get_tree`.
    unsafe fn given_file(fc: *mut raw::fs_context) -> Result<bool> {
        // SAFETY: The VFS holds `uapi_mutex`; no superblock is made here.
        let private = unsafe { Self::private(fc) }.ok_or(EINVAL)?;
        let Some(file) = &private.source else {
            return Ok(false);
        };
        io::device::usable_file(file).map_err(|why| {
            // SAFETY: Live context.
            Context::mounting(unsafe { &mut *fc }).error(fmt!("{why}"));
            match why {
                // As in-tree.
                io::device::Unusable::Kind | io::device::Unusable::NoReadFolio => EINVAL,
                io::device::Unusable::Stacked => ENOTBLK,
            }
        })?;
        Ok(true)
    }

    /// Opens the source as an image file.
    ///
    /// # Safety
    ///
    /// As for `fc_get_tree`.
    unsafe fn open_source(fc: *mut raw::fs_context) -> Result {
        // SAFETY: As in `given_file`. A superblock that could not be filled has taken the state
        // with it: the source was a block device then, and must not be looked up again.
        let private = unsafe { Self::private(fc) }.ok_or(EINVAL)?;
        // SAFETY: Live context; its source is NUL-terminated.
        let file = unsafe {
            if (*fc).source.is_null() {
                return Err(Context::mounting(&mut *fc).invalid(fmt!("no source given")));
            }
            io::device::open_file(CStr::from_char_ptr((*fc).source))?
        };
        if let Err(why) = io::device::usable_file(&file) {
            // SAFETY: Live context.
            Context::mounting(unsafe { &mut *fc }).error(fmt!("{why}"));
            return Err(ENOTBLK);
        }
        private.source = Some(file);
        Ok(())
    }

    /// # Safety
    ///
    /// `fill_super` of `get_tree_bdev`/`get_tree_file`: `sb` is new, and has taken the state.
    unsafe extern "C" fn fc_fill_super(
        sb: *mut bindings::super_block,
        fc: *mut raw::fs_context,
    ) -> ffi::c_int {
        from_result(|| {
            // SAFETY: `sb` is new and ours to fill.
            let (source, root) = unsafe {
                (*sb).s_magic = T::MAGIC as usize;
                (*sb).s_flags |=
                    (raw::EROFS_SHARED_SB_RDONLY | raw::EROFS_SHARED_SB_NOATIME) as usize;
                (*sb).s_maxbytes = i64::MAX;
                (*sb).s_op = Self::SUPER_OPS_REF;
                (*sb).s_time_gran = 1;
                (*sb).s_xattr = Self::XATTR_HANDLERS.as_ptr();
                (*sb).s_export_op = core::ptr::from_ref(Self::EXPORT_OPS).cast();
                let private = (*sb).s_fs_info.cast::<Private<T>>();
                if T::acl_enabled(&(*private).info) {
                    (*sb).s_flags |= raw::EROFS_SHARED_SB_POSIXACL as usize;
                } else {
                    (*sb).s_flags &= !(raw::EROFS_SHARED_SB_POSIXACL as usize);
                }
                let source = (*private).source.clone();
                if source.is_some() {
                    // `s_stack_depth` stays 0, as in-tree: overlayfs on overlayfs on such a mount
                    // is what containers in containers do, and one more level would be refused.
                    // `usable_file` bounds the nesting.
                    to_result(bindings::super_setup_bdi(sb))?;
                    let dev = (*sb).s_dev;
                    let name = CString::try_from_fmt(fmt!("{}:{}", dev >> 20, dev & 0xfffff))?;
                    for (to, from) in (*sb).s_id.iter_mut().zip(name.to_bytes_with_nul()) {
                        *to = *from;
                    }
                }
                let context = Context::mounting(&mut *fc);
                let super_block = Super::from_raw(sb);
                let root =
                    T::fill_super(super_block, &context, source.clone()).inspect_err(|err| {
                        // What is wrong has been said; this says with which image.
                        context.error(fmt!(
                            "(device {}): cannot mount {}: {:?}",
                            super_block.id(),
                            context.source(),
                            err
                        ));
                    })?;
                (source, root)
            };
            drop(source);
            // SAFETY: `d_make_root` takes the reference, also when it fails.
            unsafe {
                let root = ARef::into_raw(root);
                (*sb).s_root = bindings::d_make_root(root.as_ref().as_ptr());
                if (*sb).s_root.is_null() {
                    return Err(ENOMEM);
                }
                let super_block = Super::from_raw(sb);
                T::mounted(super_block).inspect_err(|err| {
                    Context::mounting(&mut *fc).error(fmt!(
                        "(device {}): cannot be shown in /sys/fs/erofs-shared: {:?}",
                        super_block.id(),
                        err
                    ));
                })?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// `fs_context_operations::reconfigure`
    unsafe extern "C" fn fc_reconfigure(fc: *mut raw::fs_context) -> ffi::c_int {
        // SAFETY: The context has a root of `T` and its own state, which no superblock takes.
        unsafe {
            let sb = Super::<T>::from_raw((*(*fc).root).d_sb);
            let Some(new) = Self::private(fc) else {
                return EINVAL.to_errno();
            };
            T::reconfigure(sb.info(), sb.key(), &new.info);
            (*fc).sb_flags |= raw::EROFS_SHARED_SB_RDONLY;
            (*fc).sb_flags_mask |= raw::EROFS_SHARED_SB_POSIXACL;
            if T::acl_enabled(sb.info()) {
                (*fc).sb_flags |= raw::EROFS_SHARED_SB_POSIXACL;
            } else {
                (*fc).sb_flags &= !raw::EROFS_SHARED_SB_POSIXACL;
            }
        }
        0
    }
}
