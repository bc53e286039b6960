//! Runs what may block, such as a file on a disk that hangs, on a thread of its own.

use std::{io, thread};

use tokio::sync::oneshot;

/// Runs `work` on a new thread called `name`, and gives what it gives. The runtime's own pool is not used, because that
/// one panics where no thread can be started.
///
/// # Errors
/// The thread could not be started, or ended without a result. When dropped, the thread goes on until it has done its
/// work, or the process ends.
pub async fn run<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    spawn(name, work)?.await.map_err(|_| io::Error::other("the thread ended without a result"))
}

/// As [`run`], and gives at once from where the result comes: what is waited for again after a deadline needs no second
/// thread.
///
/// # Errors
/// The thread could not be started.
pub fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let (done, result) = oneshot::channel();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Nobody may wait any more.
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
