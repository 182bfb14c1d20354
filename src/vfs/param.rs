// SPDX-License-Identifier: GPL-2.0

//! Mount options: their table, and the values that are given.

use kernel::prelude::*;

use super::chars;
use crate::bindings;

/// One mount option.
#[repr(transparent)]
pub(crate) struct Param(pub(super) bindings::fs_parameter_spec);

/// Names of an enumerated option's values and their numbers; the last has a null name.
#[repr(transparent)]
pub(crate) struct Choice(bindings::constant_table);

/// The values of an enumerated option.
pub(crate) struct Choices(pub(crate) &'static [Choice]);

/// All mount options, each with a number of its own, ended by [`Param::END`]. A name that is a flag
/// and takes a value, too, is two of them.
pub(crate) struct ParamTable(pub(crate) &'static [Param]);

// SAFETY: The tables are constant; their pointers are to static strings.
unsafe impl Sync for Choices {}
// SAFETY: The tables are constant; their pointers are to static strings and tables.
unsafe impl Sync for ParamTable {}
// SAFETY: The entries are constant; their pointers are to static strings and tables.
unsafe impl Sync for Param {}
// SAFETY: The entries are constant; their pointers are to static strings.
unsafe impl Sync for Choice {}

impl ParamTable {
    pub(super) fn as_ptr(&self) -> *const Param {
        self.0.as_ptr()
    }
}

impl Choice {
    /// Ends a list.
    pub(crate) const END: Self = Choice(bindings::constant_table {
        name: core::ptr::null(),
        value: 0,
    });

    /// A value and its number.
    pub(crate) const fn new(name: &'static CStr, value: i32) -> Self {
        Choice(bindings::constant_table {
            name: chars(name),
            value,
        })
    }
}

impl Param {
    /// Ends a table.
    pub(crate) const END: Self = Param(bindings::fs_parameter_spec {
        name: core::ptr::null(),
        type_: None,
        opt: 0,
        flags: 0,
        data: core::ptr::null(),
    });

    const fn spec(
        name: &'static CStr,
        opt: u8,
        type_: bindings::fs_param_type,
        flags: u16,
    ) -> Self {
        Param(bindings::fs_parameter_spec {
            name: chars(name),
            type_,
            opt,
            flags,
            data: core::ptr::null(),
        })
    }

    /// `name`
    pub(crate) const fn flag(name: &'static CStr, opt: u8) -> Self {
        Self::spec(name, opt, None, 0)
    }

    /// `name` or `noname`
    pub(crate) const fn flag_no(name: &'static CStr, opt: u8) -> Self {
        Self::spec(name, opt, None, bindings::fs_param_neg_with_no as u16)
    }

    /// `name=NUMBER`
    pub(crate) const fn number(name: &'static CStr, opt: u8) -> Self {
        Self::spec(name, opt, Some(bindings::fs_param_is_u64), 0)
    }

    /// `name=STRING`
    pub(crate) const fn string(name: &'static CStr, opt: u8) -> Self {
        Self::spec(name, opt, Some(bindings::fs_param_is_string), 0)
    }

    /// `name=` one of `choices`
    pub(crate) const fn choice(name: &'static CStr, opt: u8, choices: &'static Choices) -> Self {
        let mut this = Self::spec(name, opt, Some(bindings::fs_param_is_enum), 0);
        this.0.data = choices.0.as_ptr().cast();
        this
    }

    /// The source: a path, or an open file through `fsconfig(FSCONFIG_SET_FD)`. Handled by this
    /// module.
    pub(crate) const fn source() -> Self {
        Self::spec(
            c"source",
            SOURCE,
            Some(bindings::fs_param_is_file_or_string),
            0,
        )
    }
}

/// Option number that filesystems must not use.
pub(super) const SOURCE: u8 = u8::MAX;

/// The value of a mount option.
pub(crate) enum ParamValue<'a> {
    /// A flag; `false` with `no` before its name.
    Flag(bool),
    /// A number.
    Number(u64),
    /// The number of an enumerated value.
    Choice(i32),
    /// A string.
    String(&'a CStr),
}
