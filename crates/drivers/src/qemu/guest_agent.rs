//! The guest agent: a program in the guest that freezes its filesystems on request.
//!
//! Format: QEMU's `qga/qapi-schema.json`, JSON lines over a serial port. Its socket has room for
//! one client, so it is held for one exchange only: whoever has to thaw next finds it free.

use super::commands::QueryChardev;
use super::instance::Instance;
use super::launch::AGENT;
use super::qmp::{Qmp, QmpError, connect};
use super::watchdog::{Armed, Heal, Watch};
use crate::steps;
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest answer taken from a guest, in bytes.
const ANSWER_MOST: u64 = 1 << 20;
/// Ends what an agent did not read to its end, and begins what it says after it.
const MARK: u8 = 0xff;
/// How long an agent that does nothing may take to answer.
pub(super) const PROMPT: Duration = Duration::from_secs(5);
/// How long filesystems may take to write what they hold.
pub(super) const FREEZING: Duration = Duration::from_secs(10);

/// Why a guest's filesystems could not be frozen or thawed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Nobody in the guest has opened the port.
    #[error("no guest agent runs in the guest")]
    Absent,
    /// It is there, and says nothing.
    #[error("the guest agent did not answer within {0:?}")]
    Silent(Duration),
    /// It said no.
    #[error("the guest agent said: {0}")]
    Refused(String),
    /// Somebody else thawed what we had frozen.
    #[error("the guest's filesystems did not stay frozen")]
    Thawed,
    /// Whoever had frozen them died before it was sure that they had stayed so.
    #[error("it was interrupted while the guest's filesystems were frozen")]
    Interrupted,
    /// The socket failed.
    #[error("the guest agent's socket: {0}")]
    Io(io::Error),
}

impl From<QmpError> for AgentError {
    fn from(error: QmpError) -> Self {
        Self::Io(io::Error::other(error))
    }
}

impl From<io::Error> for AgentError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Self::Absent,
            _ => Self::Io(error),
        }
    }
}

/// A guest whose filesystems are frozen. They are thawed when this goes, by the watchdog if need
/// be.
pub(super) struct Frozen<'a> {
    instance: &'a Instance,
    filesystems: u64,
    armed: Option<Armed<'a>>,
}

impl<'a> Frozen<'a> {
    /// Has the guest write everything and hold still.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn freeze(instance: &'a Instance, watch: &'a Watch) -> Result<Self, AgentError> {
        if !has_agent(instance.qmp())? {
            return Err(AgentError::Absent);
        }
        let mut frozen = Self::assume(instance, watch)?;
        frozen.filesystems = freeze(&instance.agent_socket())?;
        Ok(frozen)
    }

    /// A guest that may be frozen still, by a tintype that is gone.
    ///
    /// # Errors
    /// When the watchdog is gone.
    pub(super) fn assume(instance: &'a Instance, watch: &'a Watch) -> Result<Self, AgentError> {
        let heal = Heal::Thaw { agent: instance.agent_socket(), socket: instance.watch_socket() };
        Ok(Self { instance, filesystems: 0, armed: Some(watch.arm(heal)?) })
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it was not frozen all the time.
    pub(super) fn thaw(mut self) -> Result<(), AgentError> {
        let thawed = self.release()?;
        if thawed == 0 && self.filesystems > 0 {
            return Err(AgentError::Thawed);
        }
        Ok(())
    }

    fn release(&mut self) -> Result<u64, AgentError> {
        let Some(armed) = self.armed.take() else { return Ok(0) };
        match thaw(&self.instance.agent_socket()) {
            Ok(thawed) => {
                armed.disarm()?;
                Ok(thawed)
            }
            Err(error) => {
                tracing::warn!(%error, "thawing; the watchdog goes on with it");
                armed.leave();
                Err(error)
            }
        }
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _ = self.release();
    }
}

/// Whether somebody in the guest listens at the agent's port.
///
/// # Errors
/// When QEMU does not answer.
pub(super) fn has_agent(qmp: &Qmp) -> Result<bool, QmpError> {
    let devices = qmp.run(&QueryChardev {})?;
    Ok(devices.iter().any(|device| device.label == AGENT && device.frontend_open))
}

/// Freezes all filesystems; answers how many.
///
/// # Errors
/// When the agent does not, or not in time: then they may be frozen all the same.
fn freeze(socket: &Path) -> Result<u64, AgentError> {
    steps::around("guest agent freeze", || {
        GuestAgent::connect(socket)?.count("guest-fsfreeze-freeze", FREEZING)
    })
}

/// Thaws all filesystems; answers how many were frozen.
///
/// # Errors
/// When the agent does not answer: then they may be frozen still.
pub(super) fn thaw(socket: &Path) -> Result<u64, AgentError> {
    steps::around("guest agent thaw", || {
        GuestAgent::connect(socket)?.count("guest-fsfreeze-thaw", PROMPT)
    })
}

/// One exchange with an agent.
#[derive(Debug)]
pub struct GuestAgent {
    reader: BufReader<UnixStream>,
}

impl GuestAgent {
    fn connect(socket: &Path) -> Result<Self, AgentError> {
        let id = u64::from(uuid::Uuid::new_v4().as_fields().0);
        Self::over(connect(socket)?, id)
    }

    /// Waits until the agent has dropped what it was told by others: it repeats an id that nobody
    /// else uses.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn over(stream: UnixStream, id: u64) -> Result<Self, AgentError> {
        let mut agent = Self { reader: BufReader::new(stream) };
        agent.say(&[MARK])?;
        agent.ask("guest-sync-delimited", &json!({ "id": id }))?;
        let until = Instant::now() + PROMPT;
        loop {
            agent.read_until(MARK, until, PROMPT)?;
            let line = agent.read_until(b'\n', until, PROMPT)?;
            let answer: Value = serde_json::from_slice(&line).unwrap_or_default();
            if answer["return"].as_u64() == Some(id) {
                return Ok(agent);
            }
        }
    }

    /// Executes a command that answers a number.
    ///
    /// # Errors
    /// When it is refused, or not answered in time.
    pub fn count(&mut self, command: &str, patience: Duration) -> Result<u64, AgentError> {
        self.ask(command, &json!({}))?;
        let line = self.read_until(b'\n', Instant::now() + patience, patience)?;
        let answer: Value = serde_json::from_slice(&line).unwrap_or_default();
        let refused = || {
            let said = answer["error"]["desc"].as_str();
            AgentError::Refused(said.unwrap_or("something it does not say usually").to_owned())
        };
        answer["return"].as_u64().ok_or_else(refused)
    }

    fn ask(&mut self, command: &str, arguments: &Value) -> Result<(), AgentError> {
        let line = json!({ "execute": command, "arguments": arguments });
        self.say(format!("{line}\n").as_bytes())
    }

    fn say(&mut self, bytes: &[u8]) -> Result<(), AgentError> {
        Ok(self.reader.get_mut().write_all(bytes)?)
    }

    /// What it says up to and with a byte.
    fn read_until(
        &mut self,
        end: u8,
        until: Instant,
        patience: Duration,
    ) -> Result<Vec<u8>, AgentError> {
        let silent = || AgentError::Silent(patience);
        let mut said = Vec::new();
        while said.last() != Some(&end) {
            let left = until.checked_duration_since(Instant::now()).ok_or_else(silent)?;
            self.reader.get_ref().set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let room = ANSWER_MOST.saturating_sub(said.len() as u64);
            match self.reader.by_ref().take(room).read_until(end, &mut said) {
                Ok(0) => return Err(AgentError::Absent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(silent()),
                other => other?,
            };
        }
        Ok(said)
    }
}

#[cfg(test)]
mod tests {
    use super::{AgentError, freeze};
    use serde_json::Value;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::thread;

    /// A port behind which an agent first finishes what others asked, then answers like this.
    fn port(answer: &'static str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = line.strip_prefix(b"\xff").unwrap_or(&line);
                let asked: Value = serde_json::from_slice(text).unwrap();
                if let Some(id) = asked["arguments"]["id"].as_u64() {
                    stream.write_all(b"{\"return\": 5}\n\xff{\"return\": 1}\n\xff").unwrap();
                    stream.write_all(format!("{{\"return\": {id}}}\n").as_bytes()).unwrap();
                } else {
                    stream.write_all(answer.as_bytes()).unwrap();
                }
                line.clear();
            }
        });
        (folder, path)
    }

    #[test]
    fn a_port_that_nobody_opens_has_no_agent() {
        let folder = tempfile::tempdir().unwrap();
        let error = freeze(&folder.path().join("agent.sock")).unwrap_err();
        assert!(matches!(error, AgentError::Absent), "{error}");
    }

    #[test]
    fn answers_to_others_are_passed_over() {
        let (_folder, path) = port("{\"return\": 2}\n");
        assert_eq!(freeze(&path).unwrap(), 2);
    }

    #[test]
    fn what_an_agent_refuses_is_told() {
        let (_folder, path) = port("{\"error\": {\"desc\": \"vetoed by a hook\"}}\n");
        let error = freeze(&path).unwrap_err();
        assert!(error.to_string().contains("vetoed by a hook"), "{error}");
    }

    #[test]
    fn nonsense_is_a_refusal() {
        let (_folder, path) = port("\u{0}]]\n");
        assert!(matches!(freeze(&path).unwrap_err(), AgentError::Refused(_)));
    }
}
