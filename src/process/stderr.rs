//! Writes lines to stderr. A caller never waits until somebody reads them.
//!
//! Stderr may be a pipe, a socket, a terminal or a file, and each of them can stop taking bytes: a log driver that
//! hangs, a frozen journald, ^S, a disk that is full or frozen. So one thread does all the writing, and only that
//! thread is delayed. It takes lines from a queue with a limited number of bytes. A line that has no room in the queue,
//! or that stderr refuses, is dropped and counted. The count is logged as soon as lines can be written again.
//!
//! Stderr is never made non-blocking, because that would change it for every process that shares it.

use std::{
    cell::RefCell,
    io,
    mem::take,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::{FileType, Mode, OFlags},
    io::Errno,
    net::SendFlags,
};
use tracing::warn;

/// The most bytes that wait in the queue.
const ROOM: usize = 128 << 10;
/// The most bytes that the thread takes at once, unless one line is longer.
const PORTION: usize = 16 << 10;
/// The most bytes of one line. The rest of a longer line is cut off.
const LONGEST: usize = 16 << 10;
/// The size of the thread's stack in bytes. Unused parts take no memory.
const STACK: usize = 128 << 10;
/// How long the end of the process waits while nothing is written.
const LAST_FLUSH: Duration = Duration::from_millis(200);
/// How long the end of the process waits for a slow reader.
const SLOW_FLUSH: Duration = Duration::from_secs(1);
/// The pause before a write is tried again, if stderr is full and another process has made it non-blocking.
const AGAIN: Duration = Duration::from_millis(50);

static QUEUE: Mutex<Queue> = Mutex::new(Queue {
    lines: Vec::new(),
    last: Vec::new(),
    dropped: 0,
    has_thread: false,
    is_writing: false,
    portions: 0,
    direct: Output { waits: false, lost: 0, cut: false },
});
/// Notified when lines were put into the queue, and when they were taken or written.
static MOVED: Condvar = Condvar::new();

thread_local! {
    /// Takes the lines of this thread instead of the queue, while the thread makes the text of a notice.
    static NOTICE: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// What waits to be written.
struct Queue {
    /// Whole lines.
    lines: Vec<u8>,
    /// The last words of the process. They come after the lines, and always have room.
    last: Vec<u8>,
    /// How many lines had no room. Until all of `lines` are taken, other lines are dropped, too, so that the count is
    /// logged at the place where lines are missing.
    dropped: u64,
    /// Whether the thread was started. It never ends.
    has_thread: bool,
    /// Whether the thread is writing what it took.
    is_writing: bool,
    /// How many portions the thread has taken.
    portions: u64,
    /// Writes while there is no thread.
    direct: Output,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.last.is_empty() && self.dropped == 0
    }

    /// Takes a portion of the lines, and, if these are all, the count and the last words.
    fn take(&mut self) -> (Vec<u8>, u64, Vec<u8>) {
        self.portions += 1;
        if self.lines.len() > PORTION {
            let ends = |bytes: &[u8]| bytes.iter().rposition(|&byte| byte == b'\n');
            if let Some(end) = ends(&self.lines[..PORTION]) {
                return (self.lines.drain(..=end).collect(), 0, Vec::new());
            }
        }
        (take(&mut self.lines), take(&mut self.dropped), take(&mut self.last))
    }

    fn has_room(&self, line: &[u8]) -> bool {
        self.dropped == 0 && self.lines.len() + line.len() <= ROOM
    }

    /// Whether the thread runs, or could be started now. A limit of processes may be reached only for a while, so each
    /// line tries again.
    fn starts_thread(&mut self) -> bool {
        if !self.has_thread {
            let out = Output { waits: true, ..self.direct };
            let started = thread::Builder::new().name("log".to_owned()).stack_size(STACK);
            self.has_thread = started.spawn(move || write_all(out)).is_ok();
        }
        self.has_thread
    }
}

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts `line`, which ends with a newline, into the queue. If the queue is full, it waits for room, at most for
/// `patience`, and then drops the line. It does not wait while there are dropped lines that were not reported.
pub(super) fn write(line: &[u8], patience: Duration) {
    if NOTICE.with_borrow_mut(|notice| notice.as_mut().map(|notice| notice.extend_from_slice(line)).is_some())
    {
        return;
    }
    let mut queue = queue();
    if !queue.starts_thread() {
        queue.direct.put(line);
        return;
    }
    let (line, end) = cut(line);
    if !patience.is_zero() {
        let full = |queue: &mut Queue| queue.dropped == 0 && !queue.has_room(line);
        let waited = MOVED.wait_timeout_while(queue, patience, full);
        queue = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
    if queue.has_room(line) {
        queue.lines.extend_from_slice(line);
        queue.lines.extend_from_slice(end);
    } else {
        queue.dropped += 1;
    }
    drop(queue);
    MOVED.notify_all();
}

/// Writes `text` after all other lines, and waits for it as [`flush`] does.
pub(super) fn write_last(text: &str) {
    let mut queue = queue();
    if queue.starts_thread() {
        queue.last.extend_from_slice(text.as_bytes());
    } else {
        queue.direct.put(text.as_bytes());
    }
    drop(queue);
    MOVED.notify_all();
    flush();
}

/// Waits until every line is written: at most 1 s while somebody reads, and 200 ms if nobody reads.
pub(super) fn flush() {
    let waits = |queue: &Queue| queue.has_thread && (queue.is_writing || !queue.is_empty());
    let (start, mut queue) = (Instant::now(), queue());
    while waits(&queue) {
        let before = queue.portions;
        let within = SLOW_FLUSH.saturating_sub(start.elapsed()).min(LAST_FLUSH);
        let stands_still = |queue: &mut Queue| waits(queue) && queue.portions == before;
        let waited = MOVED.wait_timeout_while(queue, within, stands_still);
        let (moved, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            return;
        }
        queue = moved;
    }
}

/// The part of a long line that is kept, and what is put at its end.
fn cut(line: &[u8]) -> (&[u8], &[u8]) {
    if line.len() <= LONGEST {
        return (line, b"");
    }
    // The cut must not be inside a character: a byte of this form continues one.
    let end = (0..LONGEST).rev().find(|&n| line[n] & 0xc0 != 0x80).unwrap_or(LONGEST);
    (&line[..end], "…\n".as_bytes())
}

/// The work of the thread.
fn write_all(mut out: Output) {
    let mut queue = queue();
    loop {
        queue.is_writing = false;
        MOVED.notify_all();
        queue = MOVED.wait_while(queue, |queue| queue.is_empty()).unwrap_or_else(PoisonError::into_inner);
        let (lines, dropped, last) = queue.take();
        queue.is_writing = true;
        drop(queue);
        // There is room in the queue again.
        MOVED.notify_all();
        // Each line is one write, so that lines of other processes do not come in between.
        for line in lines.split_inclusive(|&byte| byte == b'\n') {
            out.put(line);
        }
        if dropped > 0 {
            out.lost += dropped;
            // If this fails, the count is reported before the next line.
            let _ = out.tell();
        }
        if !last.is_empty() {
            out.put(&last);
        }
        queue = self::queue();
    }
}

/// Stderr, and what must still be reported about missing lines.
#[derive(Clone, Copy)]
struct Output {
    /// Whether a write waits until stderr takes the bytes.
    waits: bool,
    /// How many lines are missing and were not reported yet.
    lost: u64,
    /// Whether only a part of the last line was written.
    cut: bool,
}

impl Output {
    /// Writes one line, after a notice about lines that are missing before it. If that fails, this line counts as
    /// missing, too.
    fn put(&mut self, line: &[u8]) {
        if self.tell().and_then(|()| self.write(line)).is_err() {
            self.lost += 1;
        }
    }

    /// Reports how many lines are missing, if there are any.
    fn tell(&mut self) -> Result<(), Errno> {
        if self.lost > 0 {
            self.write(&notice(self.lost))?;
            self.lost = 0;
        }
        Ok(())
    }

    fn write(&mut self, line: &[u8]) -> Result<(), Errno> {
        if self.cut {
            self.write_bytes(b"\n")?;
            self.cut = false;
        }
        self.write_bytes(line)
    }

    fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        let mut rest = bytes;
        while !rest.is_empty() {
            // The handle of std is not used, because a write that hangs would keep its lock.
            let written =
                if self.waits { rustix::io::write(io::stderr(), rest) } else { write_at_once(rest) };
            match written {
                Ok(0) => return Err(Errno::IO),
                Ok(written) => {
                    rest = &rest[written..];
                    self.cut = !rest.is_empty();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if self.waits => thread::sleep(AGAIN),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The line that reports how many are missing, in the format of the log. It is empty if the filter of the log leaves it
/// out.
fn notice(lost: u64) -> Vec<u8> {
    NOTICE.set(Some(Vec::new()));
    warn!("{lost} log lines were dropped: stderr did not take them in time");
    NOTICE.take().unwrap_or_default()
}

/// Writes as much as stderr takes without waiting. A pipe and a terminal are opened again for that, because their mode
/// is shared with other processes. Only a file on a frozen disk can still block.
fn write_at_once(bytes: &[u8]) -> Result<usize, Errno> {
    let stat = rustix::fs::fstat(io::stderr())?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    match kind {
        FileType::Socket => rustix::net::send(io::stderr(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
        FileType::Fifo | FileType::CharacterDevice => {
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            match rustix::fs::open("/proc/self/fd/2", flags, Mode::empty()) {
                Ok(stderr) => rustix::io::write(stderr, bytes),
                // The pipe belongs to another user, who started us as this user.
                Err(_) if kind == FileType::Fifo => write_to_pipe(bytes),
                Err(error) => Err(error),
            }
        }
        // If a file were opened again, it would be written from its beginning.
        _ => rustix::io::write(io::stderr(), bytes),
    }
}

/// Writes to the pipe what it has room for. If poll(2) says that there is room, there are
/// [`PIPE_BUF`](https://man7.org/linux/man-pages/man7/pipe.7.html) bytes, unless another process writes first.
fn write_to_pipe(bytes: &[u8]) -> Result<usize, Errno> {
    const PIPE_BUF: usize = 4096;
    let stderr = io::stderr();
    let mut writable = [PollFd::new(&stderr, PollFlags::OUT)];
    if rustix::event::poll(&mut writable, Some(&Timespec::default()))? == 0 {
        return Err(Errno::AGAIN);
    }
    rustix::io::write(&stderr, &bytes[..bytes.len().min(PIPE_BUF)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_line_is_cut_at_the_end_of_a_character_and_stays_a_line() {
        assert_eq!(cut(b"short\n"), (&b"short\n"[..], &b""[..]));
        let long = format!("xx{}\n", "\u{b7}".repeat(LONGEST));
        let (kept, end) = cut(long.as_bytes());
        assert_eq!((kept, end), (&long.as_bytes()[..LONGEST - 2], "…\n".as_bytes()));
    }
}
