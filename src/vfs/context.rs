// SPDX-License-Identifier: GPL-2.0

//! Mounting: the filesystem context, mount options, and the superblock's birth.

use core::{marker::PhantomData, ptr::NonNull};

use kernel::{
    error::{from_result, to_result},
    fmt,
    prelude::*,
    str::CString,
    sync::{
        aref::ARef,
        atomic::{Atomic, Relaxed},
    },
};

use super::{
    export::ExportOps,
    param::{ParamValue, SOURCE},
    super_ops::SuperOps,
    superblock::{self, SbInfo, INSTANCES},
    xattr::XattrHandlers,
    FileSystem, SuperBlock,
};
use crate::{
    bindings,
    io::{self, clock},
};

/// A filesystem context: where a mount's errors go.
pub(crate) struct Context<'a> {
    fc: &'a mut bindings::fs_context,
    to_kernel_log: bool,
}

impl<'a> Context<'a> {
    /// While options are given. Any task with a user namespace may do that, at any rate, so that
    /// the kernel log is only for callers that have no log of their own (`mount(2)`), at a limited
    /// rate.
    fn parsing(fc: &'a mut bindings::fs_context) -> Self {
        Self {
            fc,
            to_kernel_log: false,
        }
    }

    /// While a superblock is made, which the VFS allows the administrator alone (`mount_capable`).
    fn mounting(fc: &'a mut bindings::fs_context) -> Self {
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
            let fc: *const bindings::fs_context = &*self.fc;
            let or_kernel_log = !self.to_kernel_log;
            let (fc, text) = (fc.cast_mut().cast(), text.as_char_ptr());
            // SAFETY: The context is live; the log is only touched by the task that mounts.
            unsafe { bindings::fc_error(fc, text, or_kernel_log) }
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

/// A context of `T`, for a callback that got it.
///
/// # Invariants
///
/// The context is live for `'a`, and used by this task alone (`uapi_mutex`, or it is new). Its
/// root, if it has one, is that of a superblock of `T`.
struct FsContext<'a, T: FileSystem> {
    fc: NonNull<bindings::fs_context>,
    _context: PhantomData<(&'a mut bindings::fs_context, T)>,
}

impl<T: FileSystem> FsContext<'_, T> {
    /// # Safety
    ///
    /// * `fc` is a context of `T`, live for the result's lifetime.
    /// * It is used by this task alone, and by the caller only through the result.
    unsafe fn from_raw(fc: *mut bindings::fs_context) -> Self {
        // INVARIANT: By this function's requirements the context is live, and used through this
        // only.
        Self {
            // SAFETY: By this function's requirements the pointer is valid.
            fc: unsafe { NonNull::new_unchecked(fc) },
            _context: PhantomData,
        }
    }

    /// The context, and the state that it owns, unless a superblock has taken that.
    fn parts(&mut self) -> (&mut bindings::fs_context, Option<&mut SbInfo<T>>) {
        // SAFETY: The context is live, and used by nothing else (type invariants).
        let fc = unsafe { self.fc.as_mut() };
        // SAFETY: `init` put it there; `sget_fc` clears the pointer when a superblock takes the
        // state, for which this has to be given up.
        let private = unsafe { fc.s_fs_info.cast::<SbInfo<T>>().as_mut() };
        (fc, private)
    }

    /// Takes a mount option.
    fn parse_param(&mut self, param: &mut bindings::fs_parameter) -> Result {
        // SAFETY: All-zero is a valid result structure.
        let mut result: bindings::fs_parse_result = unsafe { core::mem::zeroed() };
        let (fc, private) = self.parts();
        let options = T::PARAMS.as_ptr().cast();
        // SAFETY: The table is ended by `END`; log and parameter are live.
        let opt = unsafe { bindings::__fs_parse(&mut fc.log, options, param, &mut result) };
        // ENOPARAM must reach the VFS as it is, so that it tries the generic options.
        to_result(opt)?;
        let opt = opt as u8;
        let private = private.ok_or(EINVAL)?;
        if opt == SOURCE {
            // SAFETY: The option has been recognised as the source.
            return unsafe { Self::parse_source(fc, param, private) };
        }
        // SAFETY: `__fs_parse` has made the result of the parameter, for this option.
        let value = unsafe { Self::value(opt, param, &result) }?;
        let context = Context::parsing(fc);
        let is_string = matches!(value, ParamValue::String(_));
        let parsed = T::parse_param(&mut private.info, &context, opt, value);
        if is_string {
            // SAFETY: The parameter has a string.
            let string = unsafe { &mut param.__bindgen_anon_1.string };
            let string = core::mem::replace(string, core::ptr::null_mut());
            // It may be a secret (`domain_id=`), so that no copy is left in memory.
            // SAFETY: The string was the parameter's own, which the VFS would free.
            unsafe { bindings::kfree_sensitive(string.cast()) };
        }
        parsed
    }

    /// The value of an option.
    ///
    /// # Safety
    ///
    /// * `result` is what `__fs_parse` made of `param`.
    /// * `opt` is what it returned.
    unsafe fn value<'a>(
        opt: u8,
        param: &'a bindings::fs_parameter,
        result: &bindings::fs_parse_result,
    ) -> Result<ParamValue<'a>> {
        let mut all = T::PARAMS.0.iter().filter(|p| !p.0.name.is_null());
        let spec = all.find(|p| p.0.opt == opt).ok_or(EINVAL)?;
        Ok(match spec.0.type_ {
            None => ParamValue::Flag(!result.negated),
            Some(_) if !spec.0.data.is_null() => {
                // SAFETY: A choice's result is a number; the member is valid for any bits.
                ParamValue::Choice(unsafe { *result.__bindgen_anon_1.int_32.as_ref() })
            }
            Some(f) if f as usize == bindings::fs_param_is_u64 as *const () as usize => {
                // SAFETY: The option's result is this number; the member is valid for any bits.
                ParamValue::Number(unsafe { *result.__bindgen_anon_1.uint_64.as_ref() })
            }
            Some(_) => {
                // SAFETY: By this function's requirements the parameter is of this option: what is
                // left are strings.
                let string = unsafe { param.__bindgen_anon_1.string };
                if string.is_null() {
                    return Err(EINVAL);
                }
                // SAFETY: A string parameter's string is NUL-terminated, and its own.
                ParamValue::String(unsafe { CStr::from_char_ptr(string) })
            }
        })
    }

    /// Takes the source, which passes to the context or its state.
    ///
    /// # Safety
    ///
    /// * `param` has the source: a string if its type says so, else a file or null.
    unsafe fn parse_source(
        fc: &mut bindings::fs_context,
        param: &mut bindings::fs_parameter,
        private: &mut SbInfo<T>,
    ) -> Result {
        if !fc.source.is_null() || private.source.is_some() {
            let context = Context::parsing(fc);
            return Err(context.invalid(fmt!("only one source can be given")));
        }
        if param.type_() == bindings::VALUE_IS_STRING as i32 {
            // SAFETY: The type says that the parameter has a string, which passes to the context.
            let string = unsafe { &mut param.__bindgen_anon_1.string };
            fc.source = *string;
            *string = core::ptr::null_mut();
            return Ok(());
        }
        // SAFETY: By this function's requirements this is a file, or null.
        let given = unsafe { &mut param.__bindgen_anon_1.file };
        let file = NonNull::new(*given).ok_or(EINVAL)?;
        let mut buf = KVec::<u8>::from_elem(0, bindings::PATH_MAX as usize, GFP_KERNEL)?;
        let (text, len) = (buf.as_mut_ptr().cast(), bindings::PATH_MAX as i32);
        // SAFETY: The file is open, and the buffer as long as is said.
        let path = unsafe { bindings::file_path(file.as_ptr(), text, len) };
        let path = kernel::error::from_err_ptr(path)?;
        // SAFETY: The path is NUL-terminated, in `buf`.
        let source = unsafe { bindings::kstrdup(path, bindings::GFP_KERNEL) };
        if source.is_null() {
            return Err(ENOMEM);
        }
        fc.source = source;
        *given = core::ptr::null_mut();
        // SAFETY: The descriptor's reference passes on; the file is not used through a descriptor
        // here.
        private.source = Some(unsafe { ARef::from_raw(file.cast()) });
        Ok(())
    }

    /// Gets the superblock of what the source names, or makes it.
    fn get_tree(&mut self) -> Result {
        if self.given_file()? {
            return self.get_tree_file();
        }
        let (fc, quiet) = (self.fc.as_ptr(), bindings::GET_TREE_BDEV_QUIET_LOOKUP);
        let fill = ContextOps::<T>::fill_super;
        // SAFETY: The context is live (type invariants), and the callback fits its state.
        let ret = unsafe { bindings::get_tree_bdev_flags(fc, Some(fill), quiet) };
        if ret != ENOTBLK.to_errno() {
            to_result(ret)?;
            self.tell_if_again();
            return Ok(());
        }
        // Not a block device: an image file?
        self.open_source()?;
        self.get_tree_file()
    }

    /// Gets the superblock of an image file, which the state has: the one that the image is mounted
    /// with, or a new one.
    fn get_tree_file(&mut self) -> Result {
        // These borrows end before a superblock is made.
        let (fc, private) = self.parts();
        let private = private.ok_or(EINVAL)?;
        // A security module refuses one superblock with two sets of its options (`context=`).
        let is_plain = fc.security.is_null();
        if let Some(source) = &private.source {
            // This opens files, too.
            private.key = T::key(&mut private.info, source)?.filter(|_| is_plain);
        }
        let fc = self.fc.as_ptr();
        let (is_same, fill) = (ContextOps::<T>::is_same, ContextOps::<T>::fill_super);
        // SAFETY: The context is live (type invariants); both callbacks fit its state.
        to_result(unsafe { bindings::get_tree_file(fc, Some(is_same), Some(fill)) })?;
        self.tell_if_again();
        Ok(())
    }

    /// Tells the filesystem if the superblock, which the context has now, was there before.
    fn tell_if_again(&mut self) {
        // A superblock that is new has taken the state; one that was there has not.
        let (fc, Some(_)) = self.parts() else {
            return;
        };
        let Some(root) = NonNull::new(fc.root) else {
            return;
        };
        // SAFETY: The root is that of a superblock of `T` (type invariants), and keeps it.
        let sb = unsafe { SuperBlock::<T>::from_raw((*root.as_ptr()).d_sb) };
        T::mounted_again(sb, Context::mounting(fc).source());
    }

    /// Whether the source was given as an open file, which then is one that can hold an image.
    fn given_file(&mut self) -> Result<bool> {
        let (fc, private) = self.parts();
        let Some(file) = &private.ok_or(EINVAL)?.source else {
            return Ok(false);
        };
        io::device::usable_file(file).map_err(|why| {
            Context::mounting(fc).error(fmt!("{why}"));
            match why {
                // As in-tree.
                io::device::Unusable::Kind | io::device::Unusable::NoReadFolio => EINVAL,
                io::device::Unusable::Stacked => ENOTBLK,
            }
        })?;
        Ok(true)
    }

    /// Opens the source as an image file.
    fn open_source(&mut self) -> Result {
        let (fc, private) = self.parts();
        // A superblock that could not be filled has taken the state with it: the source was a block
        // device then, and must not be looked up again.
        let private = private.ok_or(EINVAL)?;
        let context = Context::mounting(fc);
        if context.fc.source.is_null() {
            return Err(context.invalid(fmt!("no source given")));
        }
        let file = io::device::open_file(context.source())?;
        if let Err(why) = io::device::usable_file(&file) {
            context.error(fmt!("{why}"));
            return Err(ENOTBLK);
        }
        private.source = Some(file);
        Ok(())
    }
}

/// `file_system_type::init_fs_context`
///
/// # Safety
///
/// * `fc` is a new context of a registered type of `T`.
/// * It is live, and used by this task alone.
pub(super) unsafe extern "C" fn init<T: FileSystem>(
    fc: *mut kernel::bindings::fs_context,
) -> c_int {
    from_result(|| {
        let private = KBox::new(
            SbInfo::<T> {
                source: None,
                key: None,
                given_at: Atomic::new(0),
                in_flight: Atomic::new(0),
                instance: INSTANCES.fetch_add(1, Relaxed),
                info: T::new_info()?,
            },
            GFP_KERNEL,
        )?;
        // SAFETY: The context is ours to fill.
        let fc = unsafe { &mut *fc.cast::<bindings::fs_context>() };
        fc.s_fs_info = KBox::into_raw(private).cast();
        fc.ops = &ContextOps::<T>::TABLE;
        Ok(0)
    })
}

/// `fs_context_operations` of the contexts of `T`.
struct ContextOps<T>(PhantomData<T>);

impl<T: FileSystem> ContextOps<T> {
    const TABLE: bindings::fs_context_operations = bindings::fs_context_operations {
        free: Some(Self::free),
        dup: None,
        parse_param: Some(Self::parse_param),
        parse_monolithic: None,
        get_tree: Some(Self::get_tree),
        reconfigure: Some(Self::reconfigure),
    };

    /// `fs_context_operations::free`
    ///
    /// # Safety
    ///
    /// * `fc` is a context of `T` that `init` has set up, and live.
    /// * It is used by this task alone.
    unsafe extern "C" fn free(fc: *mut bindings::fs_context) {
        // SAFETY: The context is live, and used by this task alone.
        let info = unsafe { &mut (*fc).s_fs_info };
        let private = core::mem::replace(info, core::ptr::null_mut()).cast::<SbInfo<T>>();
        if !private.is_null() {
            // SAFETY: The pointer was still there, so no superblock has taken the state, which
            // `init` has made.
            drop(unsafe { KBox::from_raw(private) });
        }
    }

    /// `fs_context_operations::parse_param`
    ///
    /// # Safety
    ///
    /// * `fc` is a context of `T`, and used by this task alone.
    /// * `param` is live, and this callback's for the call.
    unsafe extern "C" fn parse_param(
        fc: *mut bindings::fs_context,
        param: *mut bindings::fs_parameter,
    ) -> c_int {
        // SAFETY: By this function's requirements the context is one of `T`, and this task's.
        let mut context = unsafe { FsContext::<T>::from_raw(fc) };
        // SAFETY: By this function's requirements the parameter is live, and not used by others.
        let param = unsafe { &mut *param };
        from_result(|| context.parse_param(param).map(|()| 0))
    }

    /// `fs_context_operations::get_tree`
    ///
    /// # Safety
    ///
    /// * `fc` is a context of `T`, and live.
    /// * It is used by this task alone.
    unsafe extern "C" fn get_tree(fc: *mut bindings::fs_context) -> c_int {
        // SAFETY: By this function's requirements the context is one of `T`, and this task's.
        let mut context = unsafe { FsContext::<T>::from_raw(fc) };
        from_result(|| context.get_tree().map(|()| 0))
    }

    /// Whether a superblock is that of what the context names: the `test` of `sget_fc`.
    ///
    /// # Safety
    ///
    /// * `sb_lock` is held.
    /// * `sb` is a superblock of `T` that is not dead.
    /// * `fc` is the context that `get_tree_file` was called with.
    unsafe extern "C" fn is_same(
        sb: *mut bindings::super_block,
        fc: *mut bindings::fs_context,
    ) -> c_int {
        // SAFETY: By this function's requirements the context is live, and not changed meanwhile.
        let fc = unsafe { &*fc };
        // One on a block device is dead only after its state is gone, and is not looked at.
        // SAFETY: By this function's requirements the superblock is live.
        if fc.exclusive() || !unsafe { bindings::super_is_anon(sb) } {
            return 0;
        }
        // SAFETY: By this function's requirements the superblock is live.
        let infos = [unsafe { (*sb).s_fs_info }, fc.s_fs_info];
        let [old, new] = infos.map(|info| info.cast::<SbInfo<T>>());
        if old.is_null() || new.is_null() {
            return 0;
        }
        // SAFETY: `kill_sb` drops the state of superblocks that are not on a block device after
        // they are dead. The keys were set before the superblocks were made, and are not changed
        // any more.
        let (old, new, given_at) = unsafe { (&(*old).key, &(*new).key, &(*old).given_at) };
        let same = match (old, new) {
            (Some(old), Some(new)) => T::is_same(old, new),
            _ => false,
        };
        c_int::from(same && superblock::take(given_at, fc.oldapi()))
    }

    /// `fill_super` of `get_tree_bdev`/`get_tree_file`
    ///
    /// # Safety
    ///
    /// * `sb` is new, this callback's to fill, and has taken the state of a context of `T`.
    /// * `fc` is live, and used by this task alone.
    unsafe extern "C" fn fill_super(
        sb: *mut bindings::super_block,
        fc: *mut bindings::fs_context,
    ) -> c_int {
        from_result(|| {
            // SAFETY: By this function's requirements the superblock has the state, which lives as
            // long.
            let private = unsafe { &*(*sb).s_fs_info.cast::<SbInfo<T>>() };
            // SAFETY: By this function's requirements the superblock is ours to fill.
            unsafe { Self::set_up_super(sb, &private.info) };
            if private.source.is_some() {
                // SAFETY: By this function's requirements the superblock is ours to fill, and has
                // no backing device.
                unsafe { Self::set_up_anon(sb) }?;
            }
            // SAFETY: By this function's requirements the context is live.
            let context = Context::mounting(unsafe { &mut *fc });
            // SAFETY: The superblock is live, and one of `T` now.
            let this = unsafe { SuperBlock::<T>::from_raw(sb) };
            let root = T::fill_super(this, &context, private.source.clone());
            let root = root.inspect_err(|err| {
                // What is wrong has been said; this says with which image.
                context.error(fmt!(
                    "(device {}): cannot mount {}: {:?}",
                    this.id(),
                    context.source(),
                    err
                ));
            })?;
            let root = ARef::into_raw(root).as_ptr().cast();
            // SAFETY: `d_make_root` takes the reference, also when it fails.
            let root = unsafe { bindings::d_make_root(root) };
            // SAFETY: By this function's requirements the superblock is ours to fill.
            unsafe { (*sb).s_root = root };
            if root.is_null() {
                return Err(ENOMEM);
            }
            T::mounted(this).inspect_err(|err| {
                context.error(fmt!(
                    "(device {}): cannot create /sys/fs/erofs-shared/mounts/{}: {:?}",
                    this.id(),
                    this.dev(),
                    err
                ));
            })?;
            private.given_at.store(clock::now(), Relaxed);
            Ok(0)
        })
    }

    /// Sets what all superblocks of `T` have in common.
    ///
    /// # Safety
    ///
    /// * `sb` is a new superblock of `T`.
    /// * It is the caller's to fill.
    unsafe fn set_up_super(sb: *mut bindings::super_block, info: &T::Info) {
        let fixed = bindings::SB_RDONLY | bindings::SB_NOATIME;
        let acl = bindings::SB_POSIXACL as usize;
        // SAFETY: By this function's requirements these fields are the caller's to set.
        unsafe {
            (*sb).s_magic = T::MAGIC as usize;
            (*sb).s_maxbytes = i64::MAX;
            (*sb).s_op = SuperOps::<T>::REF;
            (*sb).s_time_gran = 1;
            (*sb).s_xattr = XattrHandlers::<T>::TABLE.as_ptr();
            (*sb).s_export_op = core::ptr::from_ref(ExportOps::<T>::TABLE).cast();
        }
        // SAFETY: By this function's requirements the flags are the caller's to set.
        let flags = unsafe { &mut (*sb).s_flags };
        *flags |= fixed as usize;
        if T::acl_enabled(info) {
            *flags |= acl;
        } else {
            *flags &= !acl;
        }
    }

    /// Sets what a superblock needs that is not on a block device.
    ///
    /// # Safety
    ///
    /// * `sb` is a new superblock of `T`, without a backing device.
    /// * It is the caller's to fill.
    unsafe fn set_up_anon(sb: *mut bindings::super_block) -> Result {
        // `s_stack_depth` stays 0, as in-tree: overlayfs on overlayfs on such a mount is what
        // containers in containers do, and one more level would be refused. `usable_file` bounds
        // the nesting.
        // SAFETY: By this function's requirements the superblock is new, and has no backing device.
        to_result(unsafe { bindings::super_setup_bdi(sb) })?;
        // SAFETY: The number is set before `fill_super`.
        let dev = unsafe { (*sb).s_dev };
        let name = CString::try_from_fmt(fmt!("{}:{}", dev >> 20, dev & 0xfffff))?;
        // SAFETY: By this function's requirements the field is the caller's to set.
        let id = unsafe { &mut (*sb).s_id };
        for (to, from) in id.iter_mut().zip(name.to_bytes_with_nul()) {
            *to = *from;
        }
        Ok(())
    }

    /// `fs_context_operations::reconfigure`
    ///
    /// # Safety
    ///
    /// * `fc` is a context of `T` with a root, and live.
    /// * It is used by this task alone.
    unsafe extern "C" fn reconfigure(fc: *mut bindings::fs_context) -> c_int {
        // SAFETY: By this function's requirements the context is one of `T`, and this task's.
        let mut context = unsafe { FsContext::<T>::from_raw(fc) };
        // The context has its own state, which no superblock takes.
        let (fc, Some(new)) = context.parts() else {
            return EINVAL.to_errno();
        };
        // SAFETY: By this function's requirements the context has a root, of a superblock of `T`.
        let sb = unsafe { SuperBlock::<T>::from_raw((*fc.root).d_sb) };
        T::reconfigure(sb.info(), sb.key(), &new.info);
        fc.sb_flags |= bindings::SB_RDONLY;
        fc.sb_flags_mask |= bindings::SB_POSIXACL;
        if T::acl_enabled(sb.info()) {
            fc.sb_flags |= bindings::SB_POSIXACL;
        } else {
            fc.sb_flags &= !bindings::SB_POSIXACL;
        }
        0
    }
}
