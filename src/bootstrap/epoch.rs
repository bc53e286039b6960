//! The number that grows with each new beginning of a cluster under one prefix.

use std::{
    fmt,
    str::FromStr,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// When the list of a cluster was frozen, or when the last reset was made: milliseconds of the wall clock since 1970.
/// It is 0 if none is stored, as by an older program without epochs.
///
/// It is a time and not a count. A store that lost its data would start a count from the beginning, and the epoch of
/// the next reset would be less than that of every old note.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u64", try_from = "u64")]
pub struct Epoch(u64);

/// The last millisecond of the year 9999. A greater number cannot come from a clock, and no epoch could follow it.
const LAST: u64 = 253_402_300_799_999;

/// Why a text or a number is no [`Epoch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("the epoch is no number of milliseconds from 0 to {LAST}")]
pub struct InvalidEpoch;

impl Epoch {
    /// The next epoch, which begins at `now`. It is greater than this one, whatever the clock says.
    #[must_use]
    pub fn next(self, now: SystemTime) -> Self {
        let clock = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let clock = u64::try_from(clock).unwrap_or(LAST);
        // At the end of the range it stays the same, and a reset has no effect any more. No clock leads there.
        Self(clock.max(self.0 + 1).min(LAST))
    }
}

impl From<Epoch> for u64 {
    fn from(epoch: Epoch) -> Self {
        epoch.0
    }
}

impl TryFrom<u64> for Epoch {
    type Error = InvalidEpoch;

    fn try_from(number: u64) -> Result<Self, InvalidEpoch> {
        if number <= LAST { Ok(Self(number)) } else { Err(InvalidEpoch) }
    }
}

impl FromStr for Epoch {
    type Err = InvalidEpoch;

    fn from_str(text: &str) -> Result<Self, InvalidEpoch> {
        text.parse::<u64>().map_err(|_| InvalidEpoch)?.try_into()
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn next_epoch_is_the_clock_unless_that_went_back() {
        let at = |milliseconds| UNIX_EPOCH + Duration::from_millis(milliseconds);
        assert_eq!(Epoch::default().next(at(5000)), Epoch(5000));
        assert_eq!(Epoch(5000).next(at(4000)), Epoch(5001));
        assert_eq!(Epoch(5000).next(at(5000)), Epoch(5001));
        assert_eq!(Epoch::default().next(UNIX_EPOCH - Duration::from_secs(1)), Epoch(1));
        assert_eq!(Epoch(LAST).next(at(5000)), Epoch(LAST));
    }

    #[test]
    fn what_no_clock_can_have_said_is_no_epoch() {
        assert_eq!("1764127317000".parse(), Ok(Epoch(1_764_127_317_000)));
        for bad in ["", "-1", "x", "1.5", "253402300800000", "99999999999999999999"] {
            assert_eq!(bad.parse::<Epoch>(), Err(InvalidEpoch), "{bad:?}");
        }
        assert!(serde_json::from_str::<Epoch>("253402300800000").is_err());
    }
}
