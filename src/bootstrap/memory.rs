//! The notes of this host on its own disk. They survive a power cut. A disk that hangs delays only those who wait for a
//! note.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use ring::digest;
use serde::{Serialize, de::DeserializeOwned};
use tracing::warn;

use super::{
    machine::MachineId,
    note::{Note, Started},
};
use crate::{
    file::{How, Target},
    text::plain_io,
    thread,
};

/// The largest file that is read, in bytes. A note takes a few hundred bytes, so a longer file is no note.
const LONGEST: u64 = 16 * 1024;

/// Where a host keeps its notes of one prefix.
#[derive(Clone, Debug)]
pub struct Memory {
    /// `--state-dir`. Without it nothing is remembered.
    directory: Option<PathBuf>,
    prefix: String,
    machine: MachineId,
}

impl Memory {
    /// The notes in `directory` about the cluster under `prefix`, for `machine`. Nothing is read yet.
    pub fn new(directory: Option<PathBuf>, prefix: &str, machine: MachineId) -> Self {
        Self { directory, prefix: prefix.to_owned(), machine }
    }

    /// As [`Memory::new`], for the machine that we run on. A machine without an id, as in an empty chroot, remembers
    /// nothing; there is a warning.
    pub fn of_this_machine(directory: Option<PathBuf>, prefix: &str) -> Self {
        match MachineId::of_this_machine() {
            Ok(machine) => Self::new(directory, prefix, machine),
            Err(error) => {
                if directory.is_some() {
                    warn!(reason = %error, "this host can note nothing");
                }
                Self::new(None, prefix, MachineId::unknown())
            }
        }
    }

    /// The prefix of the notes.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The machine of the notes.
    pub fn machine(&self) -> &MachineId {
        &self.machine
    }

    /// The note, if there is one of this prefix and this machine. If it cannot be read, there is a warning, and it
    /// counts as missing, so that etcd decides. It is read on a thread of its own. Safe to drop.
    pub async fn note(&self) -> Option<Note> {
        let note: Note = self.read("note").await?;
        (note.prefix == self.prefix && note.machine == self.machine).then_some(note)
    }

    /// What was noted when the node was last started; as [`Memory::note`].
    pub async fn started(&self) -> Option<Started> {
        let started: Started = self.read("started").await?;
        (started.prefix == self.prefix && started.machine == self.machine).then_some(started)
    }

    /// Writes the note, and waits until it is on the disk. It does nothing without `--state-dir`.
    ///
    /// # Errors
    /// One sentence; the note is as it was. If the future is dropped, the write goes on.
    pub async fn write_note(&self, note: &Note) -> Result<(), String> {
        self.write("note", note).await
    }

    /// Notes what the node is started with; as [`Memory::write_note`].
    ///
    /// # Errors
    /// As [`Memory::write_note`].
    pub async fn write_started(&self, started: &Started) -> Result<(), String> {
        self.write("started", started).await
    }

    /// The path `<directory>/<kind>-<16 hex digits of the prefix>.json`. The prefix is hashed, because it is a path
    /// itself, and may be longer than the name of a file.
    fn path(&self, kind: &str) -> Option<PathBuf> {
        let hash = digest::digest(&digest::SHA256, self.prefix.as_bytes());
        let hex: String = hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Some(self.directory.as_ref()?.join(format!("{kind}-{hex}.json")))
    }

    async fn read<T: DeserializeOwned + Send + 'static>(&self, kind: &str) -> Option<T> {
        let path = self.path(kind)?;
        let shown = path.display().to_string();
        let read = match thread::run("state", move || read(&path)).await {
            Ok(read) => read,
            Err(error) => Err(plain_io(&error)),
        };
        read.unwrap_or_else(|reason| {
            warn!(file = shown, reason, "what this host noted cannot be read: it counts as nothing");
            None
        })
    }

    async fn write(&self, kind: &str, value: &impl Serialize) -> Result<(), String> {
        let Some(path) = self.path(kind) else { return Ok(()) };
        let text = serde_json::to_string(value).map_err(|error| error.to_string())? + "\n";
        let target = Target { option: "--state-dir", path, how: How::Replace };
        match thread::run("state", move || target.write(&text)).await {
            Ok(written) => written.map(drop).map_err(|error| error.to_string()),
            Err(error) => Err(format!("failed to start a thread: {}", plain_io(&error))),
        }
    }
}

/// The content of a file. `None` if there is no file.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, String> {
    let open = || -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        File::open(path)?.take(LONGEST).read_to_end(&mut text)?;
        Ok(text)
    };
    match open() {
        // A file of which only a part was written is no valid JSON.
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|_| "it is no note of ours".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(plain_io(&error)),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::bootstrap::{Evidence, tests::machine};

    const PREFIX: &str = "/services/crate";

    fn note(memory: &Memory, epoch: u64) -> Note {
        Note {
            prefix: memory.prefix.clone(),
            machine: memory.machine.clone(),
            node: Some("crate1".to_owned()),
            cluster: None,
            epoch: epoch.try_into().unwrap(),
            evidence: Evidence::HasMaster,
        }
    }

    #[tokio::test]
    async fn note_is_of_one_prefix_and_one_machine() {
        let dir = tempfile::tempdir().unwrap();
        let memory = |prefix, on| Memory::new(Some(dir.path().to_owned()), prefix, machine(on));
        let ours = memory(PREFIX, 1);
        assert_eq!(ours.note().await, None);
        ours.write_note(&note(&ours, 7)).await.unwrap();
        assert_eq!(ours.note().await, Some(note(&ours, 7)));
        assert_eq!(memory(PREFIX, 2).note().await, None, "a clone has another machine's note");
        assert_eq!(memory("/services/other", 1).note().await, None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let text = fs::read_to_string(fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path());
        let ids =
            format!(r#""machine":"{}","node":"crate1","epoch":7,"evidence":"has-master"}}"#, machine(1));
        assert_eq!(text.unwrap(), format!(r#"{{"prefix":"/services/crate",{ids}"#) + "\n");
    }

    #[tokio::test]
    async fn note_that_is_torn_or_cannot_be_read_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(Some(dir.path().to_owned()), PREFIX, machine(1));
        memory.write_note(&note(&memory, 7)).await.unwrap();
        let path = memory.path("note").unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        for torn in ["", "{", &whole[..whole.len() / 2], "[]", &"x".repeat(100_000)] {
            fs::write(&path, torn).unwrap();
            assert_eq!(memory.note().await, None, "{torn:.20}");
        }
        fs::remove_file(&path).unwrap();
        symlink(dir.path(), &path).unwrap();
        assert_eq!(memory.note().await, None, "a directory");
    }

    #[tokio::test]
    async fn without_a_directory_nothing_is_remembered_and_nothing_fails() {
        let memory = Memory::new(None, PREFIX, machine(1));
        memory.write_note(&note(&memory, 7)).await.unwrap();
        assert_eq!(memory.note().await, None);
        let missing = Memory::new(Some("/no/such/place".into()), PREFIX, machine(1));
        let failed = missing.write_note(&note(&missing, 7)).await.unwrap_err();
        assert!(failed.starts_with("failed to write \"--state-dir\" file"), "{failed}");
        assert_eq!(missing.note().await, None);
    }
}
