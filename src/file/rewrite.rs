//! Rewrites a file in place, so that it never ends with a part of a line.

use std::{fs::File, io, os::unix::fs::FileExt};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

use super::{
    Trouble,
    place::{Place, read},
};

/// Gives the existing file this `content`. Returns whether that changed it.
///
/// If it fails, the file has its old content. Only if the disk cannot even restore that, less is left: whole lines of
/// one of the two contents.
pub(super) fn rewrite(place: &Place, content: &str) -> Result<bool, Trouble> {
    let file = open(place)?;
    let old = read(&file)?;
    if old == content.as_bytes() {
        return Ok(false);
    }
    change(&file, &old, content.as_bytes())?;
    Ok(true)
}

/// Checks whether the file could be rewritten.
pub(super) fn check(place: &Place) -> Result<(), Trouble> {
    open(place).map(drop)
}

fn open(place: &Place) -> Result<File, Trouble> {
    match place.marks() {
        (_, Some(mark)) => Err(mark.of_file()),
        (_, None) => place.open(true),
    }
}

/// The operations on a file that are needed here. In the tests it is a file on a disk that fails.
trait Medium {
    /// Reserves room for this many bytes, without changing the length of the file.
    fn reserve(&self, bytes: u64) -> io::Result<()>;
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn cut(&self, length: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
    fn content(&self) -> io::Result<Vec<u8>>;
}

impl Medium for File {
    fn reserve(&self, bytes: u64) -> io::Result<()> {
        Ok(fallocate(self, FallocateFlags::KEEP_SIZE, 0, bytes)?)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn content(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.metadata()?.len()).unwrap_or(usize::MAX)];
        self.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

fn change(medium: &impl Medium, old: &[u8], new: &[u8]) -> io::Result<()> {
    reserve(medium, old, new)?;
    put(medium, old.len(), new).inspect_err(|_| {
        if put(medium, old.len().max(new.len()), old).is_err() {
            leave_whole_lines(medium, old, new);
        }
    })
}

/// Writes the content in one write, and then sets the length.
fn put(medium: &impl Medium, length_before: usize, content: &[u8]) -> io::Result<()> {
    medium.write_at(&covering(content, length_before), 0)?;
    medium.cut(content.len() as u64)?;
    medium.sync()
}

/// Reserves room for the new content before any byte of the old one is touched.
fn reserve(medium: &impl Medium, old: &[u8], new: &[u8]) -> io::Result<()> {
    if new.len() <= old.len() {
        return Ok(());
    }
    let reserved = medium.reserve(new.len() as u64);
    let cannot = [Errno::OPNOTSUPP, Errno::NOSYS, Errno::INVAL].map(Errno::raw_os_error);
    match reserved {
        // On NFS before 4.2, ext2 and FUSE, a comment after the old content takes the room.
        Err(error) if error.raw_os_error().is_some_and(|code| cannot.contains(&code)) => {
            let comment = vec![b'#'; new.len() - old.len()];
            medium.write_at(&comment, old.len() as u64).and_then(|()| medium.sync()).inspect_err(|_| {
                // The first error is the one that is reported.
                let _ = medium.cut(old.len() as u64);
            })
        }
        reserved => reserved,
    }
}

/// The last resort: cuts the file after its last whole line that agrees with the beginning of one of the two contents.
fn leave_whole_lines(medium: &impl Medium, old: &[u8], new: &[u8]) {
    let whole = medium.content().map_or(0, |now| {
        let same = |content: &[u8]| now.iter().zip(content).take_while(|(a, b)| a == b).count();
        let kept = &now[..same(old).max(same(new))];
        kept.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
    });
    // If this fails, nothing more can be done.
    let _ = medium.cut(whole as u64);
}

/// `content`, followed by a comment over the rest of a longer old content. So a reader at this moment finds no part of
/// a line.
fn covering(content: &[u8], before: usize) -> Vec<u8> {
    let mut bytes = content.to_vec();
    bytes.resize(bytes.len().max(before), b'#');
    bytes
}

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        collections::VecDeque,
    };

    use proptest::prelude::*;

    use super::*;

    /// A disk whose first writes end after these numbers of bytes.
    struct Failing {
        content: RefCell<Vec<u8>>,
        limits: RefCell<VecDeque<usize>>,
        /// Whether it supports fallocate(2).
        reserves: bool,
        /// How many times it can be synced.
        syncs: Cell<usize>,
    }

    impl Failing {
        fn new(content: &str, limits: impl IntoIterator<Item = usize>, reserves: bool, syncs: usize) -> Self {
            Self {
                content: RefCell::new(content.as_bytes().to_vec()),
                limits: RefCell::new(limits.into_iter().collect()),
                reserves,
                syncs: Cell::new(syncs),
            }
        }

        fn holds(self) -> String {
            String::from_utf8(self.content.into_inner()).unwrap()
        }
    }

    impl Medium for Failing {
        fn reserve(&self, _: u64) -> io::Result<()> {
            if self.reserves { Ok(()) } else { Err(Errno::OPNOTSUPP.into()) }
        }

        fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            let taken = bytes.len().min(self.limits.borrow_mut().pop_front().unwrap_or(usize::MAX));
            let (mut content, offset) = (self.content.borrow_mut(), offset as usize);
            let length = content.len().max(offset + taken);
            content.resize(length, 0);
            content[offset..offset + taken].copy_from_slice(&bytes[..taken]);
            if taken == bytes.len() { Ok(()) } else { Err(Errno::NOSPC.into()) }
        }

        fn cut(&self, length: u64) -> io::Result<()> {
            self.content.borrow_mut().resize(length as usize, 0);
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            self.syncs.set(self.syncs.get().checked_sub(1).ok_or(Errno::IO)?);
            Ok(())
        }

        fn content(&self) -> io::Result<Vec<u8>> {
            Ok(self.content.borrow().clone())
        }
    }

    fn lines() -> impl Strategy<Value = String> {
        proptest::collection::vec("[a-d]{1,6}:4300\n", 0..12).prop_map(|lines| lines.concat())
    }

    proptest! {
        #[test]
        fn content_is_old_or_new_when_one_write_fails(
            old in lines(), new in lines(), before in 0usize..2, limit in 0usize..80, reserves in any::<bool>(),
        ) {
            let limits = [usize::MAX, usize::MAX].into_iter().take(before).chain([limit]);
            let disk = Failing::new(&old, limits, reserves, 9);
            let expected = if change(&disk, old.as_bytes(), new.as_bytes()).is_ok() { new } else { old };
            prop_assert_eq!(disk.holds(), expected);
        }

        #[test]
        fn content_ends_at_a_line_whatever_fails(
            old in lines(),
            new in lines(),
            limits in proptest::collection::vec(0usize..80, 0..4),
            reserves in any::<bool>(),
            syncs in 0usize..4,
        ) {
            let disk = Failing::new(&old, limits, reserves, syncs);
            let done = change(&disk, old.as_bytes(), new.as_bytes());
            let now = disk.holds();
            let is_part = |content: &str| {
                content.starts_with(&now) && (now.is_empty() || now.ends_with('\n'))
            };
            prop_assert!(is_part(&new) || (done.is_err() && is_part(&old)), "{now:?} of {old:?} and {new:?}");
        }
    }

    #[test]
    fn what_covers_a_longer_content_is_a_comment() {
        assert_eq!(covering(b"a:1\n", 9), b"a:1\n#####");
        assert_eq!(covering(b"a:1\n", 5), b"a:1\n#");
        assert_eq!(covering(b"a:1\n", 3), b"a:1\n");
        assert_eq!(covering(b"", 4), b"####");
    }
}
