//! A QMP client: JSON lines over a Unix socket, replies by id, events kept for whoever waits.
//!
//! Format: QEMU's `docs/interop/qmp-spec.rst`.

use crate::steps;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufRead, BufReader, IoSlice, Read, Write};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::commands::Command;
use super::urgent::Urgent;

/// Longest line taken from QEMU, in bytes.
const LINE_MOST: u64 = 16 << 20;
/// How many events are kept for whoever comes to wait for one.
const EVENTS_MOST: usize = 256;
/// How long QEMU may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What can go wrong between QEMU and us.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// QEMU said no.
    #[error("{command}: {description}")]
    Refused {
        /// What was asked.
        command: String,
        /// What QEMU said.
        description: String,
    },
    /// The connection is gone, and QEMU with it as a rule.
    #[error("{0}: the connection to QEMU is gone")]
    Gone(String),
    /// No answer in time.
    #[error("{0}: QEMU did not answer within {1:?}")]
    Silent(String, Duration),
    /// An answer of another shape than asked for.
    #[error("{0}: unexpected answer: {1}")]
    Strange(String, String),
    /// The socket failed.
    #[error("QMP socket: {0}")]
    Io(#[from] std::io::Error),
}

/// A connection to one QEMU.
#[derive(Debug)]
pub struct Qmp {
    stream: Mutex<(UnixStream, u64)>,
    inbox: Arc<Inbox>,
}

#[derive(Debug, Default)]
struct Inbox {
    heard: Mutex<Heard>,
    changed: Condvar,
}

/// What QEMU has said and nobody has taken yet.
#[derive(Debug, Default)]
pub struct Heard {
    awaited: BTreeSet<u64>,
    replies: BTreeMap<u64, Result<Value, String>>,
    events: VecDeque<Event>,
    closed: bool,
}

/// Something QEMU told unasked.
#[derive(Clone, Debug)]
pub struct Event {
    /// Such as `STOP`.
    pub name: String,
    /// What belongs to it.
    pub data: Value,
}

impl Qmp {
    /// Connects and negotiates. The path may be longer than a socket address: it is reached
    /// through its folder.
    ///
    /// # Errors
    /// When nobody listens, or who listens is no QMP server.
    pub fn connect(path: &Path) -> Result<Self, QmpError> {
        let stream = connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let greeting =
            read_message(&mut reader)?.ok_or_else(|| QmpError::Gone("greeting".to_owned()))?;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::Strange("greeting".to_owned(), greeting.to_string()));
        }
        stream.set_read_timeout(None)?;
        let inbox = Arc::new(Inbox::default());
        let theirs = Arc::clone(&inbox);
        thread::Builder::new().name("qmp".to_owned()).spawn(move || {
            // Who holds a guest waits for what is read here.
            let _urgent = Urgent::begin();
            theirs.fill(reader);
        })?;
        let qmp = Self { stream: Mutex::new((stream, 0)), inbox };
        let id = qmp.ask("qmp_capabilities", &json!({}), None)?;
        qmp.inbox.reply("qmp_capabilities", id)?;
        Ok(qmp)
    }

    /// Executes a typed command.
    ///
    /// # Errors
    /// When QEMU refuses, is gone or does not answer.
    pub fn run<C: Command>(&self, command: &C) -> Result<C::Answer, QmpError> {
        self.run_with(command, None)
    }

    /// Executes a typed command that takes a descriptor along.
    ///
    /// # Errors
    /// As for [`Qmp::run`].
    pub fn run_with<C: Command>(
        &self,
        command: &C,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<C::Answer, QmpError> {
        self.send_along(command, fd)?.answer()
    }

    /// Sends a command and does not wait: QEMU executes in the order in which it is asked, so that
    /// what follows need not be held up by an answer on its way.
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn send<C: Command>(&self, command: &C) -> Result<Sent<'_, C>, QmpError> {
        self.send_along(command, None)
    }

    fn send_along<C: Command>(
        &self,
        command: &C,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<Sent<'_, C>, QmpError> {
        let arguments = serde_json::to_value(command)
            .map_err(|e| QmpError::Strange(C::NAME.to_owned(), e.to_string()))?;
        steps::before(&step::<C>());
        let id = self.ask(C::NAME, &arguments, fd)?;
        Ok(Sent { inbox: &self.inbox, id, command: PhantomData })
    }

    /// The run state, such as `running` or `paused`.
    ///
    /// # Errors
    /// As for [`Qmp::run`].
    pub fn run_state(&self) -> Result<String, QmpError> {
        Ok(self.run(&super::commands::QueryStatus {})?.status)
    }

    /// Answers under which number the reply will come.
    fn ask(
        &self,
        name: &str,
        arguments: &Value,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<u64, QmpError> {
        let mut stream = self.stream.lock().expect("no holder panics");
        stream.1 += 1;
        let id = stream.1;
        self.inbox.heard().expect(id);
        let mut line = json!({ "execute": name, "arguments": arguments, "id": id }).to_string();
        line.push('\n');
        let sent = match fd {
            Some(fd) => send_with(&stream.0, line.as_bytes(), fd),
            None => stream.0.write_all(line.as_bytes()),
        };
        sent.map_err(|_| QmpError::Gone(name.to_owned()))?;
        Ok(id)
    }

    /// Waits for an event that `wanted` accepts; `None` when the time is over or QEMU is gone.
    pub fn wait_for(&self, patience: Duration, wanted: impl Fn(&Event) -> bool) -> Option<Event> {
        let until = Instant::now() + patience;
        let mut heard = self.inbox.heard();
        loop {
            if let Some(at) = heard.events.iter().position(&wanted) {
                return heard.events.remove(at);
            }
            let left = until.checked_duration_since(Instant::now())?;
            if heard.closed || left.is_zero() {
                return None;
            }
            heard = self.inbox.changed.wait_timeout(heard, left).expect("no holder panics").0;
        }
    }

    /// Forgets the events seen so far whose names begin like this.
    pub fn forget_events(&self, prefix: &str) {
        self.inbox.heard().events.retain(|event| !event.name.starts_with(prefix));
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.inbox.heard().closed
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        if let Ok(stream) = self.stream.get_mut() {
            let _ = stream.0.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// The name of a command as a step.
fn step<C: Command>() -> String {
    let label = if C::ASKS_ONLY { "poll qmp" } else { "qmp" };
    format!("{label} {}", C::NAME)
}

/// A command that was sent. Whoever does not take its answer does not want it.
#[derive(Debug)]
pub struct Sent<'a, C> {
    inbox: &'a Inbox,
    id: u64,
    command: PhantomData<C>,
}

impl<C: Command> Sent<'_, C> {
    /// Waits for the answer.
    ///
    /// # Errors
    /// When QEMU refuses, is gone or does not answer.
    pub fn answer(self) -> Result<C::Answer, QmpError> {
        let reply = self.inbox.reply(C::NAME, self.id);
        steps::after(&step::<C>());
        decode(C::NAME, reply?)
    }
}

impl<C> Drop for Sent<'_, C> {
    fn drop(&mut self) {
        self.inbox.heard().unexpect(self.id);
    }
}

impl Inbox {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().expect("no holder panics")
    }

    fn fill(&self, mut reader: BufReader<UnixStream>) {
        while let Ok(Some(message)) = read_message(&mut reader) {
            self.heard().take(message);
            self.changed.notify_all();
        }
        self.heard().closed = true;
        self.changed.notify_all();
    }

    fn reply(&self, name: &str, id: u64) -> Result<Value, QmpError> {
        let until = Instant::now() + PATIENCE;
        let mut heard = self.heard();
        loop {
            if let Some(reply) = heard.reply(id) {
                return reply.map_err(|description| QmpError::Refused {
                    command: name.to_owned(),
                    description,
                });
            }
            if heard.closed {
                return Err(QmpError::Gone(name.to_owned()));
            }
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                return Err(QmpError::Silent(name.to_owned(), PATIENCE));
            };
            heard = self.changed.wait_timeout(heard, left).expect("no holder panics").0;
        }
    }
}

impl Heard {
    /// Somebody waits for the reply to this command. Replies that nobody waits for are dropped: a
    /// QEMU that was taken over by its guest shall not fill our memory.
    pub fn expect(&mut self, id: u64) {
        self.awaited.insert(id);
    }

    /// Nobody waits for it any more.
    fn unexpect(&mut self, id: u64) {
        self.awaited.remove(&id);
        self.replies.remove(&id);
    }

    /// Takes a message.
    pub fn take(&mut self, mut message: Value) {
        if let Some(name) = message.get("event").and_then(Value::as_str) {
            if self.events.len() == EVENTS_MOST {
                self.events.pop_front();
            }
            let name = name.to_owned();
            self.events.push_back(Event { name, data: message["data"].take() });
        } else if let Some(id) = message.get("id").and_then(Value::as_u64)
            && self.awaited.remove(&id)
        {
            let reply = match message.get("error") {
                Some(error) => Err(error["desc"].as_str().unwrap_or("no reason given").to_owned()),
                None => Ok(message["return"].take()),
            };
            self.replies.insert(id, reply);
        }
    }

    /// The reply to a command, or why it was refused; once.
    pub fn reply(&mut self, id: u64) -> Option<Result<Value, String>> {
        self.replies.remove(&id)
    }

    /// What was told unasked, the oldest first; what is too much is forgotten.
    pub fn events(&self) -> &VecDeque<Event> {
        &self.events
    }
}

fn decode<T: DeserializeOwned>(name: &str, answer: Value) -> Result<T, QmpError> {
    serde_json::from_value(answer).map_err(|e| QmpError::Strange(name.to_owned(), e.to_string()))
}

/// Connects to a Unix socket whose path may be longer than a socket address can be.
pub(crate) fn connect(path: &Path) -> std::io::Result<UnixStream> {
    use std::os::fd::AsRawFd;
    let folder = std::fs::File::open(path.parent().unwrap_or(Path::new("/")))?;
    let name = path.file_name().unwrap_or_default();
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    UnixStream::connect(short)
}

/// One message; `None` at the end.
///
/// # Errors
/// When the socket fails, or what came is no message.
pub fn read_message(reader: &mut impl BufRead) -> Result<Option<Value>, QmpError> {
    let mut line = Vec::new();
    let length = reader.by_ref().take(LINE_MOST).read_until(b'\n', &mut line)?;
    if length == 0 {
        return Ok(None);
    }
    serde_json::from_slice(&line)
        .map(Some)
        .map_err(|e| QmpError::Strange("message".to_owned(), e.to_string()))
}

fn send_with(stream: &UnixStream, bytes: &[u8], fd: BorrowedFd<'_>) -> std::io::Result<()> {
    let fds = [fd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(std::io::Error::other("no room for a descriptor"));
    }
    let sent = sendmsg(stream.as_fd(), &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    let mut rest = stream;
    rest.write_all(&bytes[sent..])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Qmp, QmpError};
    use crate::qemu::commands::QueryStatus;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::thread::{self, JoinHandle};

    /// A server that greets, accepts capabilities and says `script` once a command has come.
    pub(crate) fn serve(path: &Path, script: String) -> JoinHandle<()> {
        let listener = UnixListener::bind(path).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            stream.write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n").unwrap();
            lines.next();
            stream.write_all(b"{\"return\": {}, \"id\": 1}\n").unwrap();
            lines.next();
            stream.write_all(script.as_bytes()).unwrap();
        })
    }

    /// What a question comes to when the server says `script`.
    fn check(script: &str, expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("qmp.sock");
        let server = serve(&path, script.to_owned());
        let qmp = Qmp::connect(&path).unwrap();
        let text = match qmp.run(&QueryStatus {}) {
            Ok(answer) => answer.status,
            Err(QmpError::Gone(_)) => "gone".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(text, expected);
        server.join().unwrap();
    }

    #[test]
    fn a_reply_is_found_by_its_id_among_events() {
        check(
            "{\"event\": \"STOP\", \"timestamp\": {}}\n\
             {\"return\": {\"status\": \"other\"}, \"id\": 7}\n\
             {\"return\": {\"status\": \"paused\", \"running\": false}, \"id\": 2}\n",
            "paused",
        );
    }

    #[test]
    fn an_error_carries_what_qemu_said() {
        check(
            "{\"id\": 2, \"error\": {\"class\": \"GenericError\", \"desc\": \"no way\"}}\n",
            "query-status: no way",
        );
    }

    #[test]
    fn a_closed_connection_ends_the_wait() {
        check("", "gone");
        check("not json\n", "gone");
    }
}
