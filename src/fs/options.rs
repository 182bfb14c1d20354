// SPDX-License-Identifier: GPL-2.0

//! Mount options: the names and meaning of in-tree erofs (`Documentation/filesystems/erofs.rst`),
//! and `share=`, `share_blocks=`, `verify=`.

use core::ops::Deref;

use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};

use crate::io::memcg::CHARGED;
use crate::params::{
    self, SHARE_CONTENT, SHARE_FINGERPRINT, SHARE_OFF, VERIFY_COMPARE, VERIFY_DIGEST,
};
use crate::share::{sha256::KernelSha256, Domain};
use crate::vfs::{
    param::{Choice, Choices, Param},
    Context, Options as Out, ParamTable, ParamValue,
};

const USER_XATTR: u8 = 0;
const ACL: u8 = 1;
const CACHE_STRATEGY: u8 = 2;
const DAX: u8 = 3;
const DEVICE: u8 = 4;
const DOMAIN_ID: u8 = 5;
const DIRECTIO: u8 = 6;
const FSOFFSET: u8 = 7;
const INODE_SHARE: u8 = 8;
const SHARE: u8 = 9;
const SHARE_BLOCKS: u8 = 10;
const VERIFY: u8 = 11;
const DAX_MODE: u8 = 12;

const DAX_NEVER: i32 = 1;
const ON: i32 = 1;

static CACHE_STRATEGIES: Choices = Choices(&[
    Choice::new(c"disabled", CacheStrategy::Disabled as i32),
    Choice::new(c"readahead", CacheStrategy::ReadAhead as i32),
    Choice::new(c"readaround", CacheStrategy::ReadAround as i32),
    Choice::END,
]);

static DAX_MODES: Choices = Choices(&[
    Choice::new(c"always", 0),
    Choice::new(c"never", DAX_NEVER),
    Choice::END,
]);

static SHARE_MODES: Choices = Choices(&[
    Choice::new(c"content", SHARE_CONTENT),
    Choice::new(c"fingerprint", SHARE_FINGERPRINT),
    Choice::new(c"off", SHARE_OFF),
    Choice::END,
]);

static VERIFY_MODES: Choices = Choices(&[
    Choice::new(c"digest", VERIFY_DIGEST),
    Choice::new(c"compare", VERIFY_COMPARE),
    Choice::END,
]);

static ON_OFF: Choices = Choices(&[Choice::new(c"off", 0), Choice::new(c"on", ON), Choice::END]);

/// All options.
pub(super) static PARAMS: ParamTable = ParamTable(&[
    Param::flag_no(c"user_xattr", USER_XATTR),
    Param::flag_no(c"acl", ACL),
    Param::choice(c"cache_strategy", CACHE_STRATEGY, &CACHE_STRATEGIES),
    Param::flag(c"dax", DAX),
    Param::choice(c"dax", DAX_MODE, &DAX_MODES),
    Param::string(c"device", DEVICE),
    Param::string(c"domain_id", DOMAIN_ID),
    Param::flag_no(c"directio", DIRECTIO),
    Param::number(c"fsoffset", FSOFFSET),
    Param::flag(c"inode_share", INODE_SHARE),
    Param::choice(c"share", SHARE, &SHARE_MODES),
    Param::choice(c"share_blocks", SHARE_BLOCKS, &ON_OFF),
    Param::choice(c"verify", VERIFY, &VERIFY_MODES),
    Param::source(),
    Param::END,
]);

const FLAG_USER_XATTR: u32 = 1 << 0;
const FLAG_ACL: u32 = 1 << 1;
const FLAG_DIRECTIO: u32 = 1 << 2;
const FLAG_DAX_NEVER: u32 = 1 << 3;
const FLAG_SHARE_BLOCKS: u32 = 1 << 4;
/// An option says whether there is direct I/O, not the module's parameter.
const FLAG_DIRECTIO_GIVEN: u32 = 1 << 5;

/// What decides whether two files have the same content.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// Their content.
    Content,
    /// Their fingerprint xattrs, which the administrator vouches for.
    Fingerprint,
    /// Nothing does: each has a page cache of its own.
    Off,
}

impl Share {
    /// The mode with this `SHARE_` value.
    fn of(mode: i32) -> Self {
        match mode {
            SHARE_CONTENT => Share::Content,
            SHARE_FINGERPRINT => Share::Fingerprint,
            _ => Share::Off,
        }
    }
}

/// What of a compressed extent is kept when only a part of it is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum CacheStrategy {
    /// Nothing else: the rest is decoded again when it is read.
    Disabled,
    /// What is behind that part, for sequential readers.
    ReadAhead,
    /// All.
    ReadAround,
}

/// A path that `device=` gives. Anyone may give many, to a context that never mounts anything, so
/// they are charged to the memory cgroup of the giver.
///
/// # Invariants
///
/// It ends with its only NUL.
pub(super) struct DevicePath(KVec<u8>);

impl DevicePath {
    fn new(path: &CStr) -> Result<Self> {
        let mut bytes = KVec::new();
        bytes.extend_from_slice(path.to_bytes_with_nul(), CHARGED)?;
        // INVARIANT: These are a `CStr`'s.
        Ok(Self(bytes))
    }
}

impl Deref for DevicePath {
    type Target = CStr;

    fn deref(&self) -> &CStr {
        CStr::from_bytes_with_nul(&self.0).unwrap_or(c"")
    }
}

/// One mount's options. The flags may change by remount while others read them: each is used on its
/// own, so relaxed order suffices.
pub(super) struct Options {
    flags: Atomic<u32>,
    /// `cache_strategy=`, a [`CacheStrategy`]; for compressed data only.
    cache_strategy: Atomic<u32>,
    /// `share=`
    pub(super) share: Share,
    /// `verify=compare`: shared data is compared with the image's byte by byte, not by digests.
    pub(super) compare: bool,
    /// The domain that `domain_id=` names. The name itself is not kept, and not shown: to know it
    /// is to be able to join.
    domain: Domain,
    /// Whether it has a name.
    named_domain: bool,
    /// `fsoffset=`, bytes.
    pub(super) fsoffset: u64,
    /// `device=`, in order.
    pub(super) devices: KVec<DevicePath>,
}

impl Options {
    /// What holds without mount options: the module's parameters, or in-tree's defaults.
    pub(super) fn new() -> Self {
        let mut flags = FLAG_USER_XATTR | FLAG_ACL | FLAG_SHARE_BLOCKS;
        if params::directio() {
            flags |= FLAG_DIRECTIO;
        }
        let mut name = params::DomainName::empty();
        let domain = params::domain(&mut name);
        Self {
            flags: Atomic::new(flags),
            cache_strategy: Atomic::new(CacheStrategy::ReadAround as u32),
            share: Share::of(params::share()),
            compare: params::verify() == VERIFY_COMPARE,
            domain: Domain::of::<KernelSha256>(domain),
            named_domain: !domain.is_empty(),
            fsoffset: 0,
            devices: KVec::new(),
        }
    }

    fn has(&self, flag: u32) -> bool {
        self.flags.load(Relaxed) & flag != 0
    }

    fn set(&mut self, flag: u32, on: bool) {
        let flags = self.flags.get_mut();
        *flags = if on { *flags | flag } else { *flags & !flag };
    }

    pub(super) fn acl(&self) -> bool {
        self.has(FLAG_ACL)
    }

    pub(super) fn user_xattr(&self) -> bool {
        self.has(FLAG_USER_XATTR)
    }

    pub(super) fn direct_io(&self) -> bool {
        self.has(FLAG_DIRECTIO)
    }

    /// Whether that is for image files wherever they lie: an option says so.
    pub(super) fn direct_io_anywhere(&self) -> bool {
        self.has(FLAG_DIRECTIO_GIVEN)
    }

    pub(super) fn cache_strategy(&self) -> CacheStrategy {
        const DISABLED: u32 = CacheStrategy::Disabled as u32;
        const READ_AHEAD: u32 = CacheStrategy::ReadAhead as u32;
        match self.cache_strategy.load(Relaxed) {
            DISABLED => CacheStrategy::Disabled,
            READ_AHEAD => CacheStrategy::ReadAhead,
            _ => CacheStrategy::ReadAround,
        }
    }

    /// Sharing does not go beyond it.
    pub(super) fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Whether it has a name.
    pub(super) fn has_domain_id(&self) -> bool {
        self.named_domain
    }

    /// Whether single blocks are shared between files.
    pub(super) fn share_blocks(&self) -> bool {
        self.has(FLAG_SHARE_BLOCKS)
    }

    /// All that a remount may change, as a number.
    pub(super) fn changeable(&self) -> u64 {
        u64::from(self.cache_strategy.load(Relaxed)) << 32 | u64::from(self.flags.load(Relaxed))
    }

    /// Takes over what a remount may change.
    pub(super) fn take_over(&self, new: &Options) {
        self.flags.store(new.flags.load(Relaxed), Relaxed);
        self.cache_strategy
            .store(new.cache_strategy.load(Relaxed), Relaxed);
    }
}

/// Takes one option.
pub(super) fn parse(
    options: &mut Options,
    fc: &Context<'_>,
    opt: u8,
    value: ParamValue<'_>,
) -> Result {
    match (opt, value) {
        (USER_XATTR, ParamValue::Flag(on)) => options.set(FLAG_USER_XATTR, on),
        (ACL, ParamValue::Flag(on)) => options.set(FLAG_ACL, on),
        (DIRECTIO, ParamValue::Flag(on)) => {
            options.set(FLAG_DIRECTIO, on);
            options.set(FLAG_DIRECTIO_GIVEN, true);
        }
        (CACHE_STRATEGY, ParamValue::Choice(strategy)) => {
            *options.cache_strategy.get_mut() = strategy as u32;
        }
        (FSOFFSET, ParamValue::Number(offset)) => options.fsoffset = offset,
        // An image can name no more.
        (DEVICE, _) if options.devices.len() >= usize::from(u16::MAX) => {
            return Err(fc.invalid(fmt!("device: given more than 65535 times")))
        }
        (DEVICE, ParamValue::String(path)) => {
            options.devices.push(DevicePath::new(path)?, CHARGED)?;
        }
        (DAX_MODE, ParamValue::Choice(DAX_NEVER)) => options.set(FLAG_DAX_NEVER, true),
        (DAX | DAX_MODE, _) => {
            return Err(fc.invalid(fmt!(
                "dax: not supported (file data lives in the page cache here); use dax=never or leave it out"
            )))
        }
        (SHARE, ParamValue::Choice(mode)) => {
            options.share = Share::of(mode);
        }
        (VERIFY, ParamValue::Choice(mode)) => options.compare = mode == VERIFY_COMPARE,
        (SHARE_BLOCKS, ParamValue::Choice(on)) => options.set(FLAG_SHARE_BLOCKS, on == ON),
        (INODE_SHARE, ParamValue::Flag(_)) => options.share = Share::Fingerprint,
        (DOMAIN_ID, ParamValue::String(domain)) => {
            options.domain = Domain::of::<KernelSha256>(domain.to_bytes());
            options.named_domain = true;
        }
        _ => return Err(EINVAL),
    }
    Ok(())
}

/// Shows the options in effect, in the in-tree order. `has_compressed_data` and `is_file` are about
/// the image: some options have no effect without.
pub(super) fn show(options: &Options, has_compressed_data: bool, is_file: bool, out: &Out<'_>) {
    out.put(if options.user_xattr() {
        c",user_xattr"
    } else {
        c",nouser_xattr"
    });
    out.put(if options.acl() { c",acl" } else { c",noacl" });
    if has_compressed_data {
        out.put(match options.cache_strategy() {
            CacheStrategy::Disabled => c",cache_strategy=disabled",
            CacheStrategy::ReadAhead => c",cache_strategy=readahead",
            CacheStrategy::ReadAround => c",cache_strategy=readaround",
        });
    }
    match options.share {
        Share::Content => {}
        Share::Fingerprint => out.put(c",inode_share"),
        Share::Off => out.put(c",share=off"),
    }
    if options.share == Share::Content && !options.compare {
        out.put(c",verify=digest");
    }
    if options.share == Share::Content && !options.share_blocks() {
        out.put(c",share_blocks=off");
    }
    if options.has(FLAG_DAX_NEVER) {
        out.put(c",dax=never");
    }
    if is_file && options.has(FLAG_DIRECTIO_GIVEN) {
        out.put(if options.direct_io() {
            c",directio"
        } else {
            c",nodirectio"
        });
    }
    if options.fsoffset != 0 {
        out.put_number(c",fsoffset=", options.fsoffset);
    }
    for path in &options.devices {
        out.put_string(c",device=", path);
    }
}
