//! Texts for people: how bytes from elsewhere are shown, and errors in plain words.

/// The longest text from elsewhere that is shown, in characters.
const LONGEST: usize = 200;

/// Turns bytes that somebody else wrote into a text for a log field. A long text is cut, and a byte that is not UTF-8
/// is shown as `\xff`. ASCII control characters below 0x20 are left to the log, which escapes them in both formats. All
/// other characters that cannot be printed are escaped here, because the JSON log would not do it. Among them are the
/// marks that change the direction of writing, such as `\u{202e}`.
pub fn decode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for c in head(bytes).chars() {
        if c.is_ascii() && c != '\x7f' { text.push(c) } else { text.extend(c.escape_debug()) }
    }
    cut(text)
}

/// As [`decode`], but safe to print anywhere, even between quotes: it is one line, and quotes and backslashes are
/// escaped.
pub fn escape(bytes: &[u8]) -> String {
    cut(head(bytes).escape_debug().to_string())
}

/// The beginning of `bytes` as a text. If there is more than is shown, it has at least one character more than that.
fn head(bytes: &[u8]) -> String {
    // A character has at most four bytes, so a megabyte need not be decoded to show a line.
    let head = &bytes[..bytes.len().min(4 * (LONGEST + 1))];
    let mut text = String::new();
    for chunk in head.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

fn cut(text: String) -> String {
    if text.chars().count() > LONGEST { text.chars().take(LONGEST).chain(['…']).collect() } else { text }
}

/// An I/O error in plain words: "no such file or directory", without "(os error 2)".
pub fn plain_io(error: &std::io::Error) -> String {
    plain(&error.to_string())
}

/// A message in our style: it begins in lower case, and has no "(os error 2)".
pub fn plain(message: &str) -> String {
    // The path after the number is left out, because the sentence around this one names it.
    let message = message.split_once(" (os error ").map_or(message, |(message, _)| message);
    let mut rest = message.chars();
    match rest.next() {
        // "No such file" gets a small letter, "TLS" and "I/O" do not.
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
        assert_eq!(decode("\u{202e}a\u{9b}31m \"é\"".as_bytes()), "\\u{202e}a\\u{9b}31m \"é\"");
        let turned = "\u{202e}".repeat(1000);
        assert_eq!(decode(turned.as_bytes()).chars().count(), LONGEST + 1);
    }

    proptest! {
        #[test]
        fn escaped_bytes_are_one_printable_line(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let escaped = escape(&bytes);
            let decoded = decode(&bytes);
            prop_assert!(!decoded.contains(|c: char| c.is_control() && !c.is_ascii()));
            for text in [&escaped, &decoded] {
                let turns = |c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
                prop_assert!(!text.contains(turns) && text.chars().count() <= LONGEST + 1);
            }
        }
    }
}
