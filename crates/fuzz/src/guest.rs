//! What is said by QEMU, which a guest may have taken over, and by the agent in the guest.

use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use tintype_drivers::qemu::commands::{
    AddedFd, BlockDevice, BlockJob, Chardev, GenerationId, Machine, MigrationInfo, Nothing, Status,
    Version,
};
use tintype_drivers::qemu::{GuestAgent, Heard, read_message};

/// So many commands wait for a reply.
const ASKED: u64 = 4;
/// The most events that are kept (`docs/format` has none of this: it is ours to choose).
const EVENTS_MOST: usize = 256;

/// Lines of QMP: what nobody asked for is not kept, what is kept can be understood or refused.
pub fn qmp(bytes: &[u8]) {
    let mut heard = Heard::default();
    (0..ASKED).for_each(|id| heard.expect(id));
    let mut reader = bytes;
    while let Ok(Some(message)) = read_message(&mut reader) {
        heard.take(message);
        assert!(heard.events().len() <= EVENTS_MOST);
    }
    assert!((ASKED..2 * ASKED).all(|id| heard.reply(id).is_none()), "nobody asked");
    for id in 0..ASKED {
        if let Some(Ok(answer)) = heard.reply(id) {
            understand(&answer);
        }
        assert!(heard.reply(id).is_none(), "it was taken");
    }
}

/// Each answer that may be expected, of whatever was said.
fn understand(answer: &Value) {
    let _ = as_answer::<Status>(answer);
    let _ = as_answer::<MigrationInfo>(answer);
    let _ = as_answer::<Vec<BlockJob>>(answer);
    let _ = as_answer::<Vec<Chardev>>(answer);
    let _ = as_answer::<Version>(answer);
    let _ = as_answer::<Vec<Machine>>(answer);
    let _ = as_answer::<GenerationId>(answer);
    let _ = as_answer::<AddedFd>(answer);
    let _ = as_answer::<Nothing>(answer);
    let devices = as_answer::<Vec<BlockDevice>>(answer).unwrap_or_default();
    for image in devices.into_iter().filter_map(|device| Some(device.inserted?.image)) {
        // Names are compared with those in the machine's folder, and lead nowhere else.
        assert!(image.files().iter().all(|name| !name.contains('/')));
    }
}

fn as_answer<T: DeserializeOwned>(answer: &Value) -> Option<T> {
    serde_json::from_value(answer.clone()).ok()
}

/// What an agent says to one exchange, and no more.
pub fn guest_agent(bytes: &[u8]) {
    const ID: u64 = 7;
    let Ok((ours, mut theirs)) = UnixStream::pair() else { return };
    // More than a socket takes at once would wait for a reader.
    if theirs.write_all(&bytes[..bytes.len().min(64 << 10)]).is_err() {
        return;
    }
    let _ = theirs.shutdown(Shutdown::Write);
    let agent = GuestAgent::over(ours, ID);
    let counted = agent.and_then(|mut agent| agent.count("guest-fsfreeze-thaw", PATIENCE));
    let mut asked = Vec::new();
    let _ = theirs.read_to_end(&mut asked);
    assert_eq!(asked.first(), Some(&0xff), "what others asked is cut off");
    if counted.is_ok() {
        assert!(String::from_utf8_lossy(&asked).contains("guest-fsfreeze-thaw"));
    }
}

const PATIENCE: Duration = Duration::from_secs(1);
