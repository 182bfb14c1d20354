// SPDX-License-Identifier: GPL-2.0

//! Checking where the data of a file is.

use erofs_shared_format::{inode::Inode, map::Extent, zmap::Data};

use super::{split, Walk};
use crate::image::Place;

impl Walk<'_> {
    /// Every extent of a file: mapped, and inside its device.
    pub(super) fn extents(&mut self, path: &[u8], inode: &Inode) {
        if inode.is_compressed() {
            return self.zextents(path, inode);
        }
        let volume = self.volume;
        let at = (Place::of(inode.area), inode.iloc);
        let mut pos = 0;
        while pos < inode.size && !self.too_many(path, inode.nid) {
            let extent = match volume.extent(inode, pos) {
                Ok(extent) => extent,
                Err(err) => {
                    self.error(path, inode.nid, at, &err);
                    return;
                }
            };
            self.counts.extents += 1;
            let end = match extent {
                Extent::Hole { la, len } => la + len,
                Extent::Inline { la, len, pa } => {
                    let area_len = volume.area_len(inode.area);
                    if pa.checked_add(len).is_none_or(|end| end > area_len) {
                        let message = format!(
                            "inline data of {len} bytes past the end of the {} ({area_len} bytes)",
                            at.0
                        );
                        self.problem(path, Some(inode.nid), Some((at.0, pa)), message);
                    }
                    la + len
                }
                Extent::Mapped {
                    la,
                    len,
                    device,
                    pa,
                } => {
                    // The last block need not be whole.
                    let used = len.min(inode.size - la);
                    self.mapped(path, inode, la, used, (device, pa));
                    la + len
                }
            };
            if end <= pos {
                let message = format!("no extent for byte {pos:#x} of the file");
                self.problem(path, Some(inode.nid), Some(at), message);
                return;
            }
            pos = end;
        }
    }

    /// Every extent of a compressed file: mapped, inside its device, its area or the packed inode, and
    /// decodable if that is asked for.
    fn zextents(&mut self, path: &[u8], inode: &Inode) {
        let volume = self.volume;
        let nid = Some(inode.nid);
        let place = Place::of(inode.area);
        let at = (place, inode.iloc);
        self.counts.compressed += 1;
        if inode.size == 0 {
            return;
        }
        let header = match volume.header(inode) {
            Ok(header) => header,
            Err(err) => return self.error(path, inode.nid, at, &err),
        };
        let mut next = volume.zextent(inode, &header, 0);
        loop {
            let extent = match next {
                Ok(extent) if extent.llen != 0 => extent,
                Ok(_) => return,
                Err(err) => return self.error(path, inode.nid, at, &err),
            };
            if self.too_many(path, inode.nid) {
                return;
            }
            self.counts.extents += 1;
            match extent.data {
                Data::Hole => {}
                Data::Fragment { pos } => {
                    // The packed inode may be what is wrong, which is a finding of its own.
                    let size = volume.packed().map_or(i64::MAX as u64, |inode| inode.size);
                    if pos.saturating_add(extent.llen) > size {
                        let message = format!(
                            "fragment of {} bytes at {pos:#x} is past the end of the packed inode ({size} bytes)",
                            extent.llen
                        );
                        self.problem(path, nid, Some(at), message);
                    }
                }
                Data::Pcluster(data) => {
                    self.counts.pclusters += 1;
                    if data.inline {
                        let area_len = volume.area_len(inode.area);
                        if data.pa.saturating_add(data.plen.into()) > area_len {
                            let message = format!(
                                "inline pcluster of {} bytes past the end of the {place} ({area_len} bytes)",
                                data.plen
                            );
                            self.problem(path, nid, Some((place, data.pa)), message);
                        }
                    } else {
                        self.mapped(path, inode, extent.la, data.plen.into(), (0, data.pa));
                    }
                    if self.decode {
                        self.counts.decoded += 1;
                        if let Err(err) = volume.decode(inode, &extent) {
                            let (_, message) = split(&err);
                            let at = match volume.locate(0, data.pa) {
                                Ok((index, _, pos)) if !data.inline => (Place::Device(index), pos),
                                _ => (place, data.pa),
                            };
                            self.problem(path, nid, Some(at), message);
                        }
                    }
                }
            }
            next = volume.zextent_next(inode, &header, &extent);
        }
    }

    fn mapped(&mut self, path: &[u8], inode: &Inode, la: u64, len: u64, (device, pa): (u16, u64)) {
        let volume = self.volume;
        let nid = Some(inode.nid);
        match volume.locate(device, pa) {
            Ok((index, image, pos)) => {
                if pos.checked_add(len).is_some_and(|end| end <= image.len()) {
                    return;
                }
                let mut message = format!(
                    "extent of {len} bytes at {la:#x} of the file is past the end of its device ({} bytes)",
                    image.len()
                );
                if index == 0 && volume.flat() && !volume.slots.is_empty() {
                    message += "; the image has extra devices: give each with --device";
                }
                self.problem(path, nid, Some((Place::Device(index), pos)), message);
            }
            Err(err) => self.error(
                path,
                inode.nid,
                (Place::of(inode.area), inode.iloc),
                &err.into(),
            ),
        }
    }
}
