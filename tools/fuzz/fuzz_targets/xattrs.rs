// SPDX-License-Identifier: GPL-2.0

//! Extended attributes of an inode, against a list of them that is read in the simplest way.
//!
//! Input: nid and place of the long prefixes (16 bytes), a name (16 bytes), then the image from its
//! superblock on.

#![no_main]

use erofs_shared_format::{
    error::{Error, Kind},
    inode::Inode,
    superblock::Superblock,
    xattr::{getxattr, index, listxattr, LongPrefix, XattrHeader, XattrSources},
    HostHash,
};
use erofs_shared_fuzz::{check_error, image_of, inode, superblock, Counting, Params};
use libfuzzer_sys::fuzz_target;

/// Most calls of `bread` for an entry's header or name: each lies in one or two units.
const READS: u64 = 2;

fn prefix_of(class: u8) -> Option<&'static [u8]> {
    Some(match class {
        index::USER => b"user.",
        index::POSIX_ACL_ACCESS => b"system.posix_acl_access",
        index::POSIX_ACL_DEFAULT => b"system.posix_acl_default",
        index::TRUSTED => b"trusted.",
        index::SECURITY => b"security.",
        _ => return None,
    })
}

/// An attribute: class, name behind the class, value. The value may be cut off by the image's end.
struct Attr<'a>(u8, Vec<u8>, Option<&'a [u8]>);

/// All attributes in their order. `None`: something is out of place.
fn all<'a>(
    sb: &Superblock,
    inode: &Inode,
    image: &'a [u8],
    prefixes: &[LongPrefix],
) -> Option<Vec<Attr<'a>>> {
    let get = |pos: u64, len: u64| image.get(pos as usize..(pos.checked_add(len)?) as usize);
    let start = inode.iloc + u64::from(inode.inode_isize);
    let end = start + u64::from(inode.xattr_isize);
    let shared = u64::from(get(start + 4, 1)?[0]);
    let mut positions = Vec::new();
    let mut pos = start + 12 + 4 * shared;
    let size_at = |pos: u64| {
        let head = get(pos, 4)?;
        let value = u64::from(u16::from_le_bytes([head[2], head[3]]));
        Some((4 + u64::from(head[0]) + value).next_multiple_of(4))
    };
    while pos < end {
        positions.push(pos);
        pos += size_at(pos)?;
        if pos > end {
            return None;
        }
    }
    for number in 0..shared {
        let id = get(start + 12 + 4 * number, 4)?;
        let id = u64::from(u32::from_le_bytes(id.try_into().ok()?));
        positions.push(u64::from(sb.xattr_blkaddr) * u64::from(sb.block_size()) + 4 * id);
    }
    let mut out = Vec::new();
    for pos in positions {
        let head = get(pos, 4)?;
        let (len, value_len) = (u64::from(head[0]), u16::from_le_bytes([head[2], head[3]]));
        let rest = get(pos + 4, len)?;
        let (class, mut name) = if head[1] & 0x80 == 0 {
            (head[1], Vec::new())
        } else {
            match prefixes.get(usize::from(head[1] & 0x7F)) {
                Some(prefix) => (prefix.base_index, prefix.infix().to_vec()),
                None => continue,
            }
        };
        name.extend_from_slice(rest);
        out.push(Attr(class, name, get(pos + 4 + len, value_len.into())));
    }
    Some(out)
}

struct Case<'a> {
    sb: &'a Superblock,
    inode: &'a Inode,
    source: &'a Counting<'a>,
    prefixes: &'a [LongPrefix],
    /// Most reads of a search: each entry's header and name, and each shared id.
    limit: u64,
}

impl Case<'_> {
    fn get(&self, class: u8, name: &[u8], out: Option<&mut [u8]>) -> Result<usize, Error> {
        let sources = XattrSources {
            inode: self.source,
            shared: self.source,
        };
        let value = out.as_ref().map_or(0, |out| out.len() as u64 / 512 + READS);
        let Case {
            sb,
            inode,
            prefixes,
            ..
        } = self;
        let got = getxattr::<_, HostHash>(sb, inode, &sources, prefixes, class, name, out);
        assert!(self.source.reads() <= self.limit + value);
        got
    }

    fn list(&self, out: Option<&mut [u8]>) -> Result<usize, Error> {
        let sources = XattrSources {
            inode: self.source,
            shared: self.source,
        };
        let Case {
            sb,
            inode,
            prefixes,
            ..
        } = self;
        let got = listxattr(sb, inode, &sources, prefixes, prefix_of, out);
        assert!(self.source.reads() <= self.limit);
        got
    }

    fn check_list(&self, wanted: Option<&[Attr<'_>]>) {
        let size = match self.list(None) {
            Ok(size) => size,
            Err(err) => {
                assert!(wanted.is_none(), "{err}");
                return check_error(&err);
            }
        };
        let Some(wanted) = wanted else {
            return;
        };
        let mut names = Vec::new();
        for Attr(class, name, _) in wanted {
            if let Some(prefix) = prefix_of(*class) {
                names.extend_from_slice(&[prefix, name, &[0]].concat());
            }
        }
        assert_eq!(size, names.len());
        let mut out = vec![0xA5; size + 1];
        assert_eq!(self.list(Some(&mut out)), Ok(size));
        assert_eq!((&out[..size], out[size]), (&names[..], 0xA5));
        assert_eq!(self.list(Some(&mut out[..size])), Ok(size));
        if let Some(less) = size.checked_sub(1) {
            let err = self
                .list(Some(&mut out[..less]))
                .expect_err("the buffer is too small");
            assert_eq!(err.kind, Kind::Range);
        }
    }

    fn check_get(&self, header: &XattrHeader, wanted: Option<&[Attr<'_>]>, class: u8, name: &[u8]) {
        let size = self.get(class, name, None);
        let Some(wanted) = wanted else {
            return;
        };
        if name.len() > 255 {
            assert_eq!(size.map_err(|err| err.kind), Err(Kind::Range));
            return;
        }
        let first = wanted.iter().find(|attr| attr.0 == class && attr.1 == name);
        let Some(Attr(_, _, value)) =
            first.filter(|_| header.may_have::<HostHash>(self.sb, class, name))
        else {
            assert_eq!(size.map_err(|err| err.kind), Err(Kind::NoData));
            return;
        };
        let size = size.expect("the attribute is there");
        let mut out = vec![0xA5; size + 1];
        match value {
            Some(value) => {
                assert_eq!(size, value.len());
                assert_eq!(self.get(class, name, Some(&mut out)), Ok(size));
                assert_eq!((&out[..size], out[size]), (*value, 0xA5));
            }
            None => check_error(
                &self
                    .get(class, name, Some(&mut out))
                    .expect_err("past the end"),
            ),
        }
        if let Some(less) = size.checked_sub(1) {
            let err = self
                .get(class, name, Some(&mut out[..less]))
                .expect_err("too small");
            assert_eq!(err.kind, Kind::Range);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut params = Params(data);
    let (nid, prefix_pos) = (params.u64(), params.u64());
    let name = params.take::<16>();
    let image = image_of(params.0);
    let Some(sb) = superblock(&image) else {
        return;
    };
    let source = Counting::new(&image, 512);
    let mut prefixes = Vec::new();
    // Where the superblock says, or else where the input says.
    for start in [u64::from(sb.xattr_prefix_start) << 2, prefix_pos] {
        let mut pos = start;
        for _ in 0..sb.xattr_prefix_count {
            let before = pos;
            match LongPrefix::read(&source, &mut pos) {
                Ok(prefix) => {
                    assert!(pos > before);
                    prefixes.push(prefix);
                }
                Err(err) => {
                    check_error(&err);
                    source.reads();
                    break;
                }
            }
            assert!(source.reads() <= 2 * READS);
        }
    }
    let Some(inode) = inode(&sb, nid, &source) else {
        return;
    };
    let header = XattrHeader::read(&sb, &inode, &source);
    let limit = READS * (1 + 2 * u64::from(inode.xattr_isize / 4) + 3 * 255);
    source.reads();
    let case = Case {
        sb: &sb,
        inode: &inode,
        source: &source,
        prefixes: &prefixes,
        limit,
    };
    let header = match header {
        Ok(Some(header)) => header,
        Ok(None) => {
            assert_eq!(inode.xattr_isize, 0);
            assert_eq!(case.list(None), Ok(0));
            let err = case
                .get(index::USER, b"one", None)
                .expect_err("no attributes");
            return assert_eq!(err.kind, Kind::NoData);
        }
        Err(err) => {
            check_error(&err);
            assert_eq!(case.list(None), Err(err));
            assert_eq!(case.get(index::USER, b"one", None), Err(err));
            return;
        }
    };
    header.no_acl(&sb);
    let attrs = all(&sb, &inode, &image, &prefixes);
    let attrs = attrs.as_deref();
    case.check_list(attrs);
    let len = name
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(name.len());
    for class in 0..8 {
        case.check_get(&header, attrs, class, &name[..len]);
    }
    for Attr(class, name, _) in attrs.unwrap_or(&[]).iter().take(32) {
        case.check_get(&header, attrs, *class, name);
    }
});
