//! Text for people: what may be shown of bytes from elsewhere, and errors without their jargon.

/// Longest text from elsewhere that is shown, in characters.
const LONGEST: usize = 200;

/// Bytes that somebody else wrote, as a text for a log field, which the log quotes and escapes: cut
/// when long, with `\xff` for what is not UTF-8.
pub fn decode(bytes: &[u8]) -> String {
    // No need to decode a megabyte to show a line; a character has at most four bytes.
    let head = &bytes[..bytes.len().min(4 * LONGEST)];
    let mut text = String::new();
    for chunk in head.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    if text.chars().count() > LONGEST || head.len() < bytes.len() {
        text = text.chars().take(LONGEST).chain(['…']).collect();
    }
    text
}

/// As [`decode`], and safe to print anywhere: one line, no control characters.
pub fn escape(bytes: &[u8]) -> String {
    decode(bytes).escape_debug().to_string()
}

/// An I/O error as a person says it: "no such file or directory", without "(os error 2)".
pub fn plain_io(error: &std::io::Error) -> String {
    plain(&error.to_string())
}

/// A message in the style of ours: lower case at its beginning, no "(os error 2)".
pub fn plain(message: &str) -> String {
    // What follows the number, a path, is named by the sentence around this one.
    let message = message.split_once(" (os error ").map_or(message, |(message, _)| message);
    let mut rest = message.chars();
    match rest.next() {
        // "No such file" but "TLS", "I/O".
        Some(first) if rest.clone().next().is_some_and(|c| c.is_lowercase() || c == ' ') => {
            first.to_lowercase().chain(rest).collect()
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn io_errors_lose_their_number() {
        assert_eq!(plain_io(&std::io::Error::from_raw_os_error(2)), "no such file or directory");
        assert_eq!(plain("TLS failed"), "TLS failed");
        assert_eq!(plain(""), "");
    }

    #[test]
    fn what_is_shown_of_a_long_key_is_short() {
        assert_eq!(escape(b"/services/crate/a\n\x1b[31m"), "/services/crate/a\\n\\u{1b}[31m");
        assert_eq!(escape(&vec![b'x'; 1_000_000]).chars().count(), LONGEST + 1);
        assert_eq!(decode(b"a\xff\xfeb"), "a\\xff\\xfeb");
    }

    proptest! {
        #[test]
        fn escaped_bytes_are_one_printable_line(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let escaped = escape(&bytes);
            prop_assert!(escaped.chars().all(|c| !c.is_control()));
            prop_assert!(decode(&bytes).chars().count() <= LONGEST + 1);
        }
    }
}
