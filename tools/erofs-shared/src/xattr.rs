// SPDX-License-Identifier: GPL-2.0

//! The extended attributes of an inode, all of them.

use erofs_shared_format::{
    inode::Inode,
    superblock::Area,
    xattr::{getxattr, index, listxattr, XattrSources},
    HostHash, ReadError,
};

use crate::image::Volume;

/// First parts of names.
const PREFIXES: [(u8, &str); 6] = [
    (index::USER, "user."),
    (index::POSIX_ACL_ACCESS, "system.posix_acl_access"),
    (index::POSIX_ACL_DEFAULT, "system.posix_acl_default"),
    (index::TRUSTED, "trusted."),
    (index::LUSTRE, "lustre."),
    (index::SECURITY, "security."),
];

/// An attribute's whole name, and its value or why that cannot be had.
pub type Xattr = (Vec<u8>, Result<Vec<u8>, ReadError>);

/// Reads all attributes of an inode.
pub fn read_all(volume: &Volume, inode: &Inode) -> Result<Vec<Xattr>, ReadError> {
    if inode.xattr_isize == 0 {
        return Ok(Vec::new());
    }
    let sb = &volume.sb;
    let own = volume.area(inode.area)?;
    let shared = volume.area(if sb.shared_ea_in_metabox() {
        Area::Metabox
    } else {
        Area::Image
    })?;
    let sources = XattrSources {
        inode: &own,
        shared: &shared,
    };
    let prefix_of = |wanted: u8| {
        let found = PREFIXES.iter().find(|(index, _)| *index == wanted)?;
        Some(found.1.as_bytes())
    };
    let list =
        |out: Option<&mut [u8]>| listxattr(sb, inode, &sources, &volume.prefixes, prefix_of, out);
    let mut names = vec![0; list(None)?];
    list(Some(&mut names))?;
    let mut all = Vec::new();
    for name in names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let Some((index, rest)) = PREFIXES
            .iter()
            .find_map(|(index, text)| Some((*index, name.strip_prefix(text.as_bytes())?)))
        else {
            continue;
        };
        let get = |out: Option<&mut [u8]>| {
            getxattr::<_, HostHash>(sb, inode, &sources, &volume.prefixes, index, rest, out)
        };
        let value = get(None).and_then(|len| {
            let mut value = vec![0; len];
            get(Some(&mut value))?;
            Ok(value)
        });
        all.push((name.to_vec(), value));
    }
    Ok(all)
}
