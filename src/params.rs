// SPDX-License-Identifier: GPL-2.0

//! Module parameters (`src/params.c`), as they are when asked for.

use crate::bindings;

/// `register_erofs=`: whether the type `erofs` is registered, too.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Register {
    /// If no other filesystem has the name.
    Auto,
    /// Or the module is not loaded.
    On,
    /// Not.
    Off,
}

/// Values of `share=`, the mount option and its default alike.
pub(crate) const SHARE_CONTENT: i32 = bindings::SHARE_CONTENT as i32;
pub(crate) const SHARE_FINGERPRINT: i32 = bindings::SHARE_FINGERPRINT as i32;
pub(crate) const SHARE_OFF: i32 = bindings::SHARE_OFF as i32;

/// Values of `verify=`, the mount option and its default alike.
pub(crate) const VERIFY_DIGEST: i32 = bindings::VERIFY_DIGEST as i32;
pub(crate) const VERIFY_COMPARE: i32 = bindings::VERIFY_COMPARE as i32;

/// Memory for the name of a domain. Holds a secret, so that it is cleared on drop.
pub(crate) struct DomainName([u8; bindings::DOMAIN_MAX as usize + 1]);

impl DomainName {
    pub(crate) fn empty() -> Self {
        Self([0; bindings::DOMAIN_MAX as usize + 1])
    }
}

impl Drop for DomainName {
    fn drop(&mut self) {
        // SAFETY: The bytes are ours.
        unsafe { bindings::clear(self.0.as_mut_ptr().cast(), self.0.len()) }
    }
}

/// `register_erofs=`
pub(crate) fn register() -> Register {
    // SAFETY: No preconditions.
    match unsafe { bindings::param_register() } {
        bindings::REGISTER_ON => Register::On,
        bindings::REGISTER_OFF => Register::Off,
        _ => Register::Auto,
    }
}

/// `share=` of mounts that do not give it: one of the `SHARE_` values.
pub(crate) fn share() -> i32 {
    // SAFETY: No preconditions.
    unsafe { bindings::param_share() as i32 }
}

/// `verify=` of mounts that do not give it: one of the `VERIFY_` values.
pub(crate) fn verify() -> i32 {
    // SAFETY: No preconditions.
    unsafe { bindings::param_verify() as i32 }
}

/// `charge=root`: whether no memory cgroup but the root pays for shared pages.
pub(crate) fn charge_root() -> bool {
    // SAFETY: No preconditions.
    unsafe { bindings::param_charge() == bindings::CHARGE_ROOT }
}

/// `directio=`
pub(crate) fn directio() -> bool {
    // SAFETY: No preconditions.
    unsafe { bindings::param_directio() }
}

/// `finder_delay=`, in milliseconds.
pub(crate) fn finder_delay() -> u32 {
    // SAFETY: No preconditions.
    unsafe { bindings::param_finder_delay() }
}

/// `finder_cpu=`: percent, 1 to 100.
pub(crate) fn finder_cpu() -> u32 {
    // SAFETY: No preconditions.
    unsafe { bindings::param_finder_cpu() }
}

/// `finder_memory=`, in KiB: 48 to 1048576.
pub(crate) fn finder_memory() -> u32 {
    // SAFETY: No preconditions.
    unsafe { bindings::param_finder_memory() }
}

/// `reuse_delay=`, in milliseconds.
pub(crate) fn reuse_delay() -> u32 {
    // SAFETY: No preconditions.
    unsafe { bindings::param_reuse_delay() }
}

/// `domain_id=`, copied to `name`; empty if there is none.
pub(crate) fn domain(name: &mut DomainName) -> &[u8] {
    // SAFETY: The memory has the size that the function asks for. May sleep, as mounting may.
    unsafe { bindings::param_domain(name.0.as_mut_ptr().cast()) };
    let len = name.0.iter().position(|byte| *byte == 0).unwrap_or(0);
    name.0.get(..len).unwrap_or(&[])
}
