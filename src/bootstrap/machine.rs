//! Identifies this machine and its boot. So a node that was started again can be told from another node with the same
//! name.

use std::{fmt, fs};

use ring::hmac;
use serde::{Deserialize, Serialize};

/// The file with the operating system's id of this machine (machine-id(5)).
const MACHINE_ID: &str = "/etc/machine-id";
/// The file with the kernel's id of this boot. It is the same in every container of a machine, until the machine boots
/// again.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// The message that is hashed with the id, so that the result is for our use only.
const OURS: &[u8] = b"crate-discovery bootstrap";

/// A machine, as 32 hex digits that mean nothing elsewhere.
///
/// It is derived from the id of the machine. machine-id(5) asks for a keyed hash if an id leaves the machine: ours is
/// HMAC-SHA256, cut to 128 bits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MachineId(String);

impl From<MachineId> for String {
    fn from(machine: MachineId) -> Self {
        machine.0
    }
}

impl TryFrom<String> for MachineId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_hex =
            text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if is_hex { Ok(Self(text)) } else { Err("the machine is not 32 hex digits") }
    }
}

/// This machine has no id that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this machine has no id: neither {MACHINE_ID} nor {BOOT_ID} holds one")]
pub struct NoMachineId;

impl MachineId {
    /// The id of this machine: from `/etc/machine-id`, or from the id of this boot if a container has no such file.
    ///
    /// # Errors
    /// [`NoMachineId`] if `/proc` is missing, too.
    pub fn of_this_machine() -> Result<Self, NoMachineId> {
        read(MACHINE_ID).or_else(|| read(BOOT_ID)).ok_or(NoMachineId)
    }

    /// The id for a machine without an id. No other machine has it.
    pub(super) fn unknown() -> Self {
        Self("0".repeat(32))
    }

    /// Derives the id from 32 hex digits, with or without dashes. Anything else is no id, for example the word
    /// `uninitialized` in an image.
    pub fn derive(text: &str) -> Option<Self> {
        let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
        if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, digits.to_ascii_lowercase().as_bytes());
        let hash = hmac::sign(&key, OURS);
        Some(Self(hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()))
    }
}

/// One boot of a machine, as 32 hex digits that mean nothing elsewhere. Clones of a machine share its id, but each has
/// boots of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(MachineId);

impl BootId {
    /// The boot that we run in. `None` if `/proc` does not show it, as in a sandbox with `ProcSubset=pid`.
    pub fn of_this_boot() -> Option<Self> {
        read(BOOT_ID).map(Self)
    }

    /// Derives it from the kernel's id; see [`MachineId::derive`].
    pub fn derive(text: &str) -> Option<Self> {
        MachineId::derive(text).map(Self)
    }
}

/// Reads an id from a file of the system.
fn read(path: &str) -> Option<MachineId> {
    fs::read_to_string(path).ok().as_deref().and_then(MachineId::derive)
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_of_a_machine_is_stable_and_does_not_give_the_machines_own_away() {
        let own = "3d1219c7c4c5404aaa1f6d2a48adfda4";
        let derived = MachineId::derive(&format!("{own}\n")).unwrap();
        // The value is written down here, because a newer release has to recognise what an older one stored.
        assert_eq!(derived.to_string(), "f165794d426c3833406606f798e5028c");
        assert_eq!(MachineId::derive("3D1219C7-C4C5-404A-AA1F-6D2A48ADFDA4"), Some(derived));
    }

    #[test]
    fn what_is_no_id_gives_none() {
        for bad in ["", "\n", "uninitialized\n", "3d1219c7", "zd1219c7c4c5404aaa1f6d2a48adfda4"] {
            assert_eq!(MachineId::derive(bad), None, "{bad:?}");
        }
        assert!(MachineId::of_this_machine().is_ok(), "Linux always has one");
    }
}
