//! Runs work that may block on a thread of its own, for example reading a file on a disk that hangs.

use std::{io, thread};

use tokio::sync::oneshot;

/// Runs `work` on a new thread called `name`, and returns its result. The pool of the runtime is not used, because it
/// panics if no thread can be started.
///
/// # Errors
/// The thread could not be started, or ended without a result. If the future is dropped, the thread goes on until its
/// work is done or the process ends.
pub async fn run<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    spawn(name, work)?.await.map_err(|_| io::Error::other("the thread ended without a result"))
}

/// As [`run`], but returns at once, with a receiver for the result. So a caller can wait again after a deadline,
/// without a second thread.
///
/// # Errors
/// The thread could not be started.
pub fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let (done, result) = oneshot::channel();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        // The receiver may have been dropped.
        let _ = done.send(work());
    })?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn result_of_the_thread_comes_back() {
        let name = run("worker", || thread::current().name().map(str::to_owned)).await.unwrap();
        assert_eq!(name.as_deref(), Some("worker"));
    }
}
