// SPDX-License-Identifier: GPL-2.0

//! With whom a file's data is shared, by the mount options and what the image says.

use kernel::{page::PAGE_SIZE, prelude::*};

use super::{inode::parts, options::Share, xattr, Erofs};
use crate::{
    compat::code::ENODATA,
    share::{self, digest::Key, sha256::KernelSha256, Scope, BLOCK_SIZE},
    stats::{SharedFile, SharedFileList, Totals},
    vfs::Inode,
};

/// With whom an inode's data is shared. `None`: with no other inode.
pub(super) fn scope(inode: &Inode<Erofs>) -> Result<Option<Scope<'_>>> {
    let options = &inode.sb().info().options;
    let domain = options.domain();
    match options.share {
        Share::Off => Ok(None),
        Share::Content if options.compare => Ok(Some(Scope::Bytes(domain))),
        Share::Content => Ok(Some(Scope::Content(domain))),
        Share::Fingerprint => Ok(fingerprint(inode)?.map(|key| Scope::Fingerprint(domain, key))),
    }
}

/// The key of the fingerprint that the image gives for a file, if it does: the value of the xattr
/// whose name is the long prefix `ishare_xattr_prefix_id`.
fn fingerprint(inode: &Inode<Erofs>) -> Result<Option<Key>> {
    let (image, sb) = parts(inode)?;
    let Some(id) = sb.ishare_xattr_prefix_id else {
        return Ok(None);
    };
    let prefix = inode.sb().info().prefixes().get(usize::from(id));
    let Some(prefix) = prefix.filter(|_| image.xattr_isize != 0) else {
        return Ok(None);
    };
    let get = |out| xattr::get_any(inode, prefix.base_index, prefix.infix(), Some(out));
    let key = |value: Option<&[u8]>| match value {
        None => Err(EIO),
        Some([]) => Ok(None),
        Some(value) => Ok(Some(Key::of_fingerprint::<KernelSha256>(value))),
    };
    // "sha256:" and 32 bytes, if mkfs.erofs made it.
    let mut value = [0u8; 64];
    match get(&mut value) {
        Ok(size) => key(value.get(..size)),
        Err(err) if err == ENODATA => Ok(None),
        Err(err) if err == ERANGE => {
            let mut value = KVec::from_elem(0u8, BLOCK_SIZE, GFP_KERNEL)?;
            let size = get(&mut value)?;
            key(value.get(..size))
        }
        Err(err) => Err(err),
    }
}

/// Says that a block of a file is not what it was when it was verified, unless too much has been
/// said of this mount. The caller does so once for each inode, until that is evicted.
pub(super) fn report_change(inode: &Inode<Erofs>, block: u64) {
    if !inode.sb().info().log_limit.ask() {
        return;
    }
    let nid = parts(inode).map_or(0, |(image, _)| image.nid);
    pr_err!(
        "(device {}): nid {}: block {} changed underneath the mount; \
         the file is no longer shared with files of its former content\n",
        inode.sb().id(),
        nid,
        block
    );
}

/// What all mounts share.
pub(super) fn totals() -> Totals {
    let mut totals = Totals::default();
    share::for_each(&mut |shared| {
        totals.shared_inodes = totals.shared_inodes.saturating_add(1);
        if shared.content().usage().bound() > 1 {
            totals.pages_shared = totals.pages_shared.saturating_add(shared.pages());
        }
        let saved = shared.pages_saved().saturating_mul(PAGE_SIZE as u64);
        totals.bytes_saved = totals.bytes_saved.saturating_add(saved);
    });
    totals
}

/// Offers all shared inodes to a list of the first of them.
pub(super) fn top(top: &mut SharedFileList) {
    share::for_each(&mut |shared| {
        let id = shared.identity();
        let mut key = [0; 16];
        key.iter_mut()
            .zip(id.key.bytes())
            .for_each(|(to, from)| *to = *from);
        top.offer(SharedFile {
            sharers: shared.content().usage().bound(),
            pages: shared.pages(),
            aliased: shared.content().aliased(),
            size: shared.size(),
            key,
        });
    });
}
