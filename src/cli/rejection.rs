//! Turns what clap rejects into one sentence of ours.

use std::error::Error as _;

use clap::{
    Command,
    error::{ContextKind, ContextValue, Error, ErrorKind},
};

use super::Outcome;

/// Help and version are printed to stdout. Everything else is a rejection.
pub(super) fn outcome(error: &Error, command: &Command) -> Outcome {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Outcome::Print(error.render().to_string()),
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            Outcome::Reject(match sentence(error, command) {
                Some(sentence) => format!("error: {sentence}\n"),
                None => error.render().to_string(),
            })
        }
        _ => Outcome::Reject(error.render().to_string()),
    }
}

fn sentence(error: &Error, command: &Command) -> Option<String> {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else { return None };
    let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) else { return None };
    let flag = argument.split([' ', '=']).next()?;
    let allowed = match (error.source(), error.get(ContextKind::ValidValue)) {
        (Some(source), _) => source.to_string(),
        (None, Some(ContextValue::Strings(values))) if !values.is_empty() => {
            format!("allowed is {}", values.join(", "))
        }
        _ => return None,
    };
    if value.is_empty() {
        return Some(format!("missing value for \"{flag}\": {allowed}"));
    }
    let source =
        variable(command, flag, value).map(|name| format!(", taken from {name}")).unwrap_or_default();
    Some(format!("invalid value {value:?} for \"{flag}\"{source}: {allowed}"))
}

/// The variable for `flag`, if `value` came from it.
fn variable(command: &Command, flag: &str, value: &str) -> Option<String> {
    let long = flag.strip_prefix("--")?;
    let mut arguments = command.get_subcommands().flat_map(Command::get_arguments);
    let name = arguments.find(|argument| argument.get_long() == Some(long))?.get_env()?.to_str()?;
    (std::env::var(name).ok()?.split(',').any(|part| part == value)).then(|| name.to_owned())
}
