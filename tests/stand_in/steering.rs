//! How a test steers one node: words in the file `/data/stand-in`, with blanks between them, read anew
//! each time.
//!
//! | word | what it does |
//! | --- | --- |
//! | `hang` | the node accepts connections and says nothing any more |
//! | `exit=N` | the node exits with N |
//! | `listen-after=MS` | the node binds its ports this long after its start |
//! | `stop-after=MS` | the node takes this long to end on SIGTERM, instead of 100 ms |
//! | `user=NAME:PASSWORD` | a user with a password, as `CREATE USER` would make one |

/// The file. The image has its volume there.
const FILE: &str = "/data/stand-in";

/// The words of now; none where there is no such file.
pub fn words() -> Vec<String> {
    let text = std::fs::read_to_string(FILE).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// Whether `word` is one of them.
pub fn is_steered(word: &str) -> bool {
    words().iter().any(|other| other == word)
}

/// The number behind the first word that begins with `prefix`.
pub fn steered(prefix: &str) -> Option<u64> {
    words().iter().find_map(|word| word.strip_prefix(prefix)?.parse().ok())
}

/// CrateDB's version that is played: what the image's own `STAND_IN_VERSION` says, or else 6.4.3.
pub fn version() -> String {
    std::env::var("STAND_IN_VERSION").unwrap_or_else(|_| "6.4.3".to_owned())
}

/// Whether that version is older than 6, where `/` waits for the recovery and SRV knows UDP alone.
pub fn is_before_6() -> bool {
    version().split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major < 6)
}
