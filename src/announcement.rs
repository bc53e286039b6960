//! The value of a key in etcd. It means: "this node can be joined here".

use std::{fmt, num::NonZeroU16};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, Visitor},
};

use crate::host::Host;

/// The JSON value of an announcement.
///
/// It is written as compact JSON in this order, so that the default is byte for byte what the sidekick of 2014 wrote:
/// `{"http":4200,"transport":4300}`. When it is read, white space and unknown fields are ignored, and `null` counts as
/// absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// CrateDB's HTTP port.
    #[serde(deserialize_with = "port")]
    pub http: NonZeroU16,
    /// CrateDB's transport port, at which peers join.
    #[serde(deserialize_with = "port")]
    pub transport: NonZeroU16,
    /// CrateDB's PostgreSQL port, if it is announced.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "port_or_none")]
    pub psql: Option<NonZeroU16>,
    /// The address to connect to, if it is not the host in the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Host>,
}

/// Which port of an announcement a reader wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Port {
    /// The transport port, at which peers join.
    #[default]
    Transport,
    /// The HTTP port.
    Http,
    /// The PostgreSQL port. Not every host announces it.
    Psql,
}

impl Announcement {
    /// The value to store in etcd.
    pub fn to_json(&self) -> String {
        // Numbers and strings can always be serialized. An empty value would be read as invalid, and not trusted.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a value from etcd.
    ///
    /// # Errors
    /// One sentence that says why `value` is no announcement.
    pub fn from_json(value: &[u8]) -> Result<Self, serde_json::Error> {
        // Without this check, serde would also read the fields from a JSON array, by position.
        if value.trim_ascii_start().first() != Some(&b'{') {
            return Err(serde_json::Error::custom("it is no JSON object"));
        }
        serde_json::from_slice(value)
    }

    /// The port that a reader asks for, if it is announced.
    pub fn port(&self, port: Port) -> Option<u16> {
        match port {
            Port::Transport => Some(self.transport),
            Port::Http => Some(self.http),
            Port::Psql => self.psql,
        }
        .map(NonZeroU16::get)
    }
}

/// Reads a port. The message of serde would quote the wrong value, even if it has a megabyte.
struct PortVisitor;

impl Visitor<'_> for PortVisitor {
    type Value = Option<NonZeroU16>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port from 1 to 65535")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        let port = u16::try_from(number).ok().and_then(NonZeroU16::new);
        port.map(Some).ok_or_else(|| E::custom("a port is not from 1 to 65535"))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Err(E::custom("a port is no number"))
    }
}

fn port_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU16>, D::Error> {
    deserializer.deserialize_any(PortVisitor)
}

fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NonZeroU16, D::Error> {
    port_or_none(deserializer)?.ok_or_else(|| D::Error::custom("a port is null"))
}

impl Serialize for Host {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Host {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn port(number: u16) -> NonZeroU16 {
        NonZeroU16::new(number).unwrap()
    }

    #[test]
    fn default_value_is_what_the_2014_sidekick_wrote() {
        let plain = Announcement { http: port(4200), transport: port(4300), psql: None, address: None };
        assert_eq!(plain.to_json(), r#"{"http":4200,"transport":4300}"#);
    }

    #[test]
    fn optional_fields_follow_when_configured() {
        let full = Announcement {
            http: port(4200),
            transport: port(4300),
            psql: Some(port(5432)),
            address: Some("10.0.0.5".parse().unwrap()),
        };
        assert_eq!(full.to_json(), r#"{"http":4200,"transport":4300,"psql":5432,"address":"10.0.0.5"}"#);
    }

    #[test]
    fn white_space_unknown_fields_and_null_are_read() {
        let read = Announcement::from_json(
            b" {\"zone\": {\"a\": [1]}, \"http\": 4200, \"transport\": 4300, \"psql\": null}\n",
        );
        assert_eq!(read.unwrap().port(Port::Transport), Some(4300));
    }

    #[test]
    fn complaint_about_a_large_value_is_short() {
        let large = "\u{1}".repeat(1000).escape_default().to_string().replace("\\u{1}", "\\u0001");
        for field in ["http", "transport", "psql", "address"] {
            let value = format!(r#"{{"http":4200,"transport":4300,"{field}":"{large}"}}"#);
            let error = Announcement::from_json(value.as_bytes()).unwrap_err().to_string();
            assert!(error.len() < 200, "{field}: {error}");
        }
    }

    #[test]
    fn junk_is_no_announcement() {
        let deep = format!(r#"{{"http":{},"transport":4300}}"#, "[".repeat(100_000));
        for junk in [
            "",
            "{}",
            "[]",
            "[4200,4300]",
            "4300",
            "null",
            r#"{"http":4200}"#,
            r#"{"http":0,"transport":4300}"#,
            r#"{"http":4200,"transport":65536}"#,
            r#"{"http":4200,"transport":-1}"#,
            r#"{"http":4200,"transport":"4300"}"#,
            r#"{"http":4200,"transport":4300.5}"#,
            r#"{"http":4200,"transport":4300,"address":"a,b"}"#,
            r#"{"http":4200,"transport":4300,"address":"-Cx=y"}"#,
            r#"{"http":4200,"transport":4300} trailing"#,
            &deep,
        ] {
            assert!(Announcement::from_json(junk.as_bytes()).is_err(), "{:.60}", junk);
        }
        assert!(Announcement::from_json(b"\xff\xfe").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(http in 1u16.., transport in 1u16.., psql in proptest::option::of(1u16..)) {
            let value = Announcement {
                http: port(http), transport: port(transport), psql: psql.map(port), address: None,
            };
            prop_assert_eq!(Announcement::from_json(value.to_json().as_bytes()).unwrap(), value);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Announcement::from_json(&bytes);
        }
    }
}
