// SPDX-License-Identifier: GPL-2.0

//! What the module takes from the kernel crate, for kernels that have it in another form, or not at
//! all. `src/compat.mk` looks at the kernel tree and sets a `compat_...` for each that is missing;
//! it says, too, with which kernel each can go. `src/compat.c` is the same for C.

use kernel::{bindings, prelude::*};

/// The error codes that not all kernel crates have.
pub(crate) mod code {
    #[cfg(not(compat_error_codes))]
    pub(crate) use kernel::error::code::{
        EBADMSG, EFSCORRUPTED, ELOOP, ENAMETOOLONG, ENODATA, EOPNOTSUPP, ESTALE,
    };

    #[cfg(compat_error_codes)]
    mod own {
        use core::{mem::transmute, num::NonZeroI32};
        use kernel::{
            bindings,
            error::{code::EIO, Error},
        };

        // An error is its negative number, and nothing else. There is no constructor for constants.
        // SAFETY: An error has no padding.
        const _: () = assert!(unsafe { transmute::<Error, i32>(EIO) } == -(bindings::EIO as i32));

        const fn code(errno: u32) -> Error {
            match NonZeroI32::new(-(errno as i32)) {
                // SAFETY: This is how an error looks: see above. The numbers below are valid ones.
                Some(errno) => unsafe { transmute::<NonZeroI32, Error>(errno) },
                None => EIO,
            }
        }

        macro_rules! codes {
            ($($name:ident = $value:expr;)*) => {
                $(pub(crate) const $name: Error = code($value);)*
            };
        }
        codes! {
            EBADMSG = bindings::EBADMSG;
            EFSCORRUPTED = bindings::EUCLEAN;
            ELOOP = bindings::ELOOP;
            ENAMETOOLONG = bindings::ENAMETOOLONG;
            ENODATA = bindings::ENODATA;
            EOPNOTSUPP = bindings::EOPNOTSUPP;
            ESTALE = bindings::ESTALE;
        }
    }
    #[cfg(compat_error_codes)]
    pub(crate) use own::{EBADMSG, EFSCORRUPTED, ELOOP, ENAMETOOLONG, ENODATA, EOPNOTSUPP, ESTALE};
}

/// Loads before it are not reordered with loads behind it.
#[inline(always)]
pub(crate) fn smp_rmb() {
    #[cfg(not(compat_barriers))]
    kernel::sync::barrier::smp_mb(kernel::sync::barrier::Read);
    #[cfg(compat_barriers)]
    kernel::sync::barrier::smp_rmb();
}

/// Initialises what `slot` points to.
///
/// # Safety
///
/// * `slot` points to memory for a `T` that is exclusively the caller's and not initialised.
/// * It does not move until it is dropped.
pub(crate) unsafe fn raw_init<T>(slot: *mut T, init: impl PinInit<T>) {
    #[cfg(not(compat_raw_init))]
    // SAFETY: By this function's requirements, which are the same.
    unsafe {
        pin_init::raw_init(slot, init)
    };
    #[cfg(compat_raw_init)]
    // SAFETY: `slot` is valid for a `T`, not initialised, and pinned. There is no error to return.
    match unsafe { init.__pinned_init(slot) } {
        Ok(()) => {}
        Err(never) => match never {},
    }
}

/// What reads a file of sysfs.
pub(crate) type Show = unsafe extern "C" fn(
    *mut bindings::kobject,
    *mut bindings::kobj_attribute,
    *mut c_char,
) -> isize;

/// A file of sysfs that can be read.
pub(crate) fn kobj_attribute(attr: bindings::attribute, show: Show) -> bindings::kobj_attribute {
    bindings::kobj_attribute {
        attr,
        #[cfg(not(compat_kobj_attribute))]
        __bindgen_anon_1: bindings::kobj_attribute__bindgen_ty_1 { show: Some(show) },
        #[cfg(compat_kobj_attribute)]
        show: Some(show),
        ..pin_init::zeroed()
    }
}

/// Where a file is mapped, for huge pages to fit. There is none in kernels without these, such as
/// those with `CONFIG_PREEMPT_RT`.
pub(crate) const GET_UNMAPPED_AREA: GetUnmappedArea = {
    #[cfg(CONFIG_TRANSPARENT_HUGEPAGE)]
    {
        Some(bindings::thp_get_unmapped_area)
    }
    #[cfg(not(CONFIG_TRANSPARENT_HUGEPAGE))]
    None
};

/// The largest folio that may be given to a page cache, where `order` is wanted: pages alone in
/// kernels without huge pages, whose page caches have no larger ones
/// (`mapping_set_folio_order_range()`).
#[inline(always)]
pub(crate) const fn cache_order(order: u32) -> u32 {
    if cfg!(CONFIG_TRANSPARENT_HUGEPAGE) {
        order
    } else {
        0
    }
}

/// `file_operations::get_unmapped_area`
type GetUnmappedArea = Option<
    unsafe extern "C" fn(*mut bindings::file, c_ulong, c_ulong, c_ulong, c_ulong) -> c_ulong,
>;
