//! The user and password for a node that wants them from its clients.

use std::{path::PathBuf, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use tokio::{sync::oneshot, time::timeout};
use tracing::warn;

use super::news::News;
use crate::{
    credentials::{Login, Password, Secret},
    text::plain_io,
    thread,
};

/// A user of CrateDB, and the file with the password.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The user. It holds no colon.
    pub user: String,
    /// The file holds the password and at most one newline. It is read again for each probe.
    pub password_file: PathBuf,
}

/// Reads the password, each time on a thread of its own, because the disk may hang.
#[derive(Debug)]
pub(super) struct Reader {
    login: Arc<Login>,
    /// The result of the thread that reads now, if there is one.
    reading: Option<oneshot::Receiver<Result<Secret, String>>>,
    news: News,
}

impl Reader {
    pub(super) fn new(credentials: Credentials) -> Self {
        let Credentials { user, password_file } = credentials;
        let password = Password::File(password_file, "--check-password-file");
        Self { login: Arc::new(Login::new(user, password)), reading: None, news: News::new() }
    }

    pub(super) fn user(&self) -> &str {
        &self.login.user
    }

    /// The value of `Authorization` (RFC 7617). `None` if the file cannot be read in the time `within`; that is warned
    /// about when the reason changes. Safe to drop.
    pub(super) async fn authorization(&mut self, within: Duration) -> Option<Secret> {
        let read = match timeout(within, self.read()).await {
            Ok(read) => read,
            Err(_) => Err("it cannot be read in time".to_owned()),
        };
        match read {
            Ok(Secret(password)) => {
                self.news.over();
                let pair = format!("{}:{password}", self.login.user);
                Some(Secret(format!("Basic {}", BASE64_STANDARD.encode(pair))))
            }
            Err(reason) => {
                if self.news.is_news(&reason) {
                    let user = self.user();
                    warn!(user, reason, "cannot read the password of the checks: they ask without it");
                }
                None
            }
        }
    }

    async fn read(&mut self) -> Result<Secret, String> {
        // If a thread still hangs, we wait for it again, so there is never a second one.
        let reading = match &mut self.reading {
            Some(reading) => reading,
            none => {
                let login = Arc::clone(&self.login);
                let read = move || login.read_password().map_err(|error| error.to_string());
                let reading = thread::spawn("password", read)
                    .map_err(|error| format!("no thread can be started: {}", plain_io(&error)))?;
                none.insert(reading)
            }
        };
        let read = reading.await;
        self.reading = None;
        read.unwrap_or_else(|_| Err("its reader ended".to_owned()))
    }
}
