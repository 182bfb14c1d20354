// SPDX-License-Identifier: GPL-2.0

//! Paths of files of which the kernel tells the size and a key: looked for in the mounts, a little
//! at a time.
//!
//! A file with a size that is asked for is opened and its start is read, which binds it to its
//! shared inode as any other reader does; no other file is opened.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    explain::{head, key},
    mounts::{device_text, ours, verify, Verify},
    system::{display, System, TopFile},
};

/// Paths that are told of a file.
const PATHS: usize = 8;

/// Files of one size whose start is read.
const CANDIDATES: usize = 64;

/// Names that are looked at in one walk through all mounts.
const ENTRIES: u64 = 1_000_000;

/// After a walk, as many times as it took pass before the next one.
const REST: u32 = 9;

/// The files of a mount that are still to be looked at.
struct Tree {
    entries: walkdir::IntoIter,
    verify: Verify,
}

/// A file of a size that is asked for.
struct Candidate {
    path: PathBuf,
    verify: Verify,
    /// Made of its start; empty if that cannot be read.
    key: Option<String>,
}

/// What is known of paths.
#[derive(Default)]
pub struct Names {
    /// Trees that were not walked through yet, the next one last.
    trees: Vec<Tree>,
    /// Names that were looked at in this walk.
    entries: u64,
    /// Files by their sizes; empty for a size that was asked for and that no file has.
    candidates: HashMap<u64, Vec<Candidate>>,
    /// Keys of files whose paths were told by their size.
    sized: HashSet<String>,
    /// Something was left out.
    partial: bool,
    /// What the walk has taken so far.
    took: Duration,
    /// When the last one was over.
    ended: Option<Instant>,
}

impl Names {
    /// Adds paths to the files, as far as they are found in this time. Tells whether all that could
    /// be found was.
    pub fn add(
        &mut self,
        system: &System,
        files: &mut [TopFile],
        time: Duration,
    ) -> io::Result<bool> {
        let begin = Instant::now();
        let until = begin + time;
        let sizes: HashSet<u64> = files.iter().map(|file| file.size).collect();
        if self.is_due(&sizes) {
            self.begin(system, &sizes)?;
        }
        self.walk(until);
        self.took += begin.elapsed();
        let domain = match system.parameter("domain_id") {
            Ok(domain) if domain != "(null)" => domain,
            _ => String::new(),
        };
        let read = self.read_starts(&domain, until);
        self.by_key(files);
        self.sized.clear();
        if self.trees.is_empty() && read && !self.partial {
            self.by_size(files);
        }
        let known = sizes.iter().all(|size| self.candidates.contains_key(size));
        Ok(known && self.trees.is_empty() && read && !self.partial)
    }

    /// Whether the file with this key was found by its size when paths were last added.
    pub fn is_by_size(&self, key: &str) -> bool {
        self.sized.contains(key)
    }

    /// Whether there is a size that no walk has looked for, and time to do so again.
    fn is_due(&self, sizes: &HashSet<u64>) -> bool {
        let rested = self
            .ended
            .is_none_or(|ended| ended.elapsed() >= self.took * REST);
        let new = sizes.iter().any(|size| !self.candidates.contains_key(size));
        self.trees.is_empty() && rested && new
    }

    /// Begins a walk through all mounts whose files are told from others by their content.
    fn begin(&mut self, system: &System, sizes: &HashSet<u64>) -> io::Result<()> {
        *self = Self::default();
        self.candidates = sizes.iter().map(|size| (*size, Vec::new())).collect();
        let mut devices = HashSet::new();
        for info in system.mountinfo()? {
            let Some(verify) = verify(&info) else {
                continue;
            };
            if info.root != Path::new("/")
                || !ours(system, &info.device)
                || !devices.insert(info.device.clone())
            {
                continue;
            }
            // Another mount namespace may have something else there.
            match fs::symlink_metadata(&info.target) {
                Ok(meta) if device_text(meta.dev()) == info.device => {}
                _ => {
                    self.partial = true;
                    continue;
                }
            }
            // Sorted, directories are read at once and none stays open: the mount can go meanwhile.
            let walk = walkdir::WalkDir::new(&info.target);
            self.trees.push(Tree {
                entries: walk.same_file_system(true).sort_by_file_name().into_iter(),
                verify,
            });
        }
        self.trees.reverse();
        Ok(())
    }

    /// Goes on with the walk.
    fn walk(&mut self, until: Instant) {
        while let Some(tree) = self.trees.last_mut() {
            if Instant::now() >= until {
                return;
            }
            if self.entries >= ENTRIES {
                self.partial = true;
                self.trees.clear();
                break;
            }
            let Some(entry) = tree.entries.next() else {
                self.trees.pop();
                continue;
            };
            self.entries += 1;
            let Ok(entry) = entry else {
                self.partial = true;
                continue;
            };
            if !entry.file_type().is_file() {
                continue;
            }
            let Ok(meta) = entry.metadata() else {
                self.partial = true;
                continue;
            };
            let Some(candidates) = self.candidates.get_mut(&meta.len()) else {
                continue;
            };
            if candidates.len() >= CANDIDATES {
                self.partial = true;
                continue;
            }
            candidates.push(Candidate {
                path: entry.into_path(),
                verify: tree.verify,
                key: None,
            });
        }
        self.ended.get_or_insert_with(Instant::now);
    }

    /// Makes the keys that are missing. Tells whether it has got to the end.
    fn read_starts(&mut self, domain: &str, until: Instant) -> bool {
        for (size, candidates) in &mut self.candidates {
            for candidate in candidates {
                if candidate.key.is_some() {
                    continue;
                }
                if Instant::now() >= until {
                    return false;
                }
                let start = head(&candidate.path);
                candidate.key =
                    Some(start.map_or_else(|_| String::new(), |start| key(domain, *size, &start)));
            }
        }
        true
    }

    /// Files that the kernel finds by this key, too.
    fn by_key(&self, files: &mut [TopFile]) {
        for file in files {
            let candidates = self
                .candidates
                .get(&file.size)
                .map_or(&[][..], Vec::as_slice);
            let found = candidates.iter().filter(|candidate| {
                candidate.verify == Verify::Digest && candidate.key.as_ref() == Some(&file.key)
            });
            file.paths = found
                .take(PATHS)
                .map(|candidate| display(&candidate.path))
                .collect();
        }
    }

    /// With `verify=compare`, the kernel's keys depend on a secret. There it is the one file of
    /// this size, if all that have the size begin alike.
    fn by_size(&mut self, files: &mut [TopFile]) {
        let mut unnamed: HashMap<u64, Vec<&mut TopFile>> = HashMap::new();
        for file in files.iter_mut().filter(|file| file.paths.is_empty()) {
            unnamed.entry(file.size).or_default().push(file);
        }
        for (size, mut files) in unnamed {
            let candidates = self.candidates.get(&size).into_iter().flatten();
            let candidates: Vec<_> = candidates
                .filter(|candidate| candidate.verify == Verify::Compare)
                .collect();
            let ([file], [first, ..]) = (&mut files[..], &candidates[..]) else {
                continue;
            };
            let known = first.key.as_ref().is_some_and(|key| !key.is_empty());
            if known && candidates.iter().all(|other| other.key == first.key) {
                let paths = candidates.iter().take(PATHS);
                file.paths = paths.map(|one| display(&one.path)).collect();
                self.sized.insert(file.key.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(path: &str, verify: Verify, key: &str) -> Candidate {
        Candidate {
            path: path.into(),
            verify,
            key: Some(key.into()),
        }
    }

    fn file(size: u64, key: &str) -> TopFile {
        TopFile {
            sharers: 2,
            pages: 1,
            size,
            key: key.into(),
            aliased_blocks: 0,
            saved_bytes: 4096,
            paths: Vec::new(),
        }
    }

    #[test]
    fn by_the_key_where_it_is_known() {
        let mut names = Names::default();
        let same: Vec<_> = (0..PATHS + 2)
            .map(|at| candidate(&format!("/m/{at}"), Verify::Digest, "aa"))
            .chain([candidate("/m/other", Verify::Digest, "bb")])
            .collect();
        names.candidates.insert(10, same);
        let mut files = [file(10, "aa"), file(10, "cc"), file(11, "bb")];
        names.by_key(&mut files);
        assert_eq!(files[0].paths.len(), PATHS);
        assert!(files[1].paths.is_empty() && files[2].paths.is_empty());
        // What is verified by digests has no secret key.
        names.by_size(&mut files);
        assert!(files[1].paths.is_empty());
    }

    #[test]
    fn by_the_size_only_if_there_is_no_doubt() {
        let mut names = Names::default();
        let compare = |path, key| candidate(path, Verify::Compare, key);
        names
            .candidates
            .insert(1, vec![compare("/a", "x"), compare("/b", "x")]);
        names
            .candidates
            .insert(2, vec![compare("/c", "x"), compare("/d", "y")]);
        names.candidates.insert(3, vec![compare("/e", "")]);
        names.candidates.insert(4, vec![compare("/f", "x")]);
        let mut files = [1, 2, 3, 4, 4, 5].map(|size| file(size, "secret"));
        names.by_key(&mut files);
        assert!(files.iter().all(|file| file.paths.is_empty()));
        files[0].key = "first".into();
        names.by_size(&mut files);
        assert_eq!(files[0].paths, ["/a", "/b"]);
        assert!(names.is_by_size("first") && !names.is_by_size("secret"));
        assert!(
            files[1..].iter().all(|file| file.paths.is_empty()),
            "{files:?}"
        );
    }
}
