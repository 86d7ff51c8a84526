//! The QMP commands that Tintype uses, typed in and out. Source: QEMU's `qapi/*.json`, 9.0 and up.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A QMP command: its arguments are its fields.
pub trait Command: Serialize {
    /// Its name.
    const NAME: &'static str;
    /// Whether it changes nothing.
    const ASKS_ONLY: bool = false;
    /// What QEMU answers.
    type Answer: DeserializeOwned;
}

/// An answer that says nothing.
#[derive(Debug, Deserialize)]
pub struct Nothing {}

macro_rules! commands {
    ($($(#[$doc:meta])* $type:ident $name:literal $(asks $asks:literal)? -> $answer:ty {
        $($field:ident: $kind:ty),*
    })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub struct $type { $(#[doc = stringify!($field)] pub $field: $kind),* }

        impl Command for $type {
            const NAME: &'static str = $name;
            $(const ASKS_ONLY: bool = $asks;)?
            type Answer = $answer;
        }
    )*};
}

commands! {
    /// Whether the guest runs.
    QueryStatus "query-status" asks true -> Status {}
    /// How a migration stands.
    QueryMigrate "query-migrate" asks true -> MigrationInfo {}
    /// Which background jobs there are on blocks.
    QueryBlockJobs "query-block-jobs" asks true -> Vec<BlockJob> {}
    /// What each device is connected to.
    QueryBlock "query-block" asks true -> Vec<BlockDevice> {}
    /// Which character devices there are.
    QueryChardev "query-chardev" asks true -> Vec<Chardev> {}
    /// Connects what a character device leads to with something else.
    ChardevChange "chardev-change" -> Nothing { id: &'static str, backend: ChardevBackend }
    /// Waits for somebody who goes on sending memory.
    MigrateRecover "migrate-recover" -> Nothing { uri: String }
    /// The version.
    QueryVersion "query-version" asks true -> Version {}
    /// The machine types.
    QueryMachines "query-machines" asks true -> Vec<Machine> {}
    /// The generation id.
    QueryVmGenerationId "query-vm-generation-id" asks true -> GenerationId {}
    /// Stops the processors.
    Stop "stop" -> Nothing {}
    /// Starts the processors.
    Cont "cont" -> Nothing {}
    /// Ends QEMU.
    Quit "quit" -> Nothing {}
    /// Presses the power button.
    SystemPowerdown "system_powerdown" -> Nothing {}
    /// Opens a block node with other options.
    BlockdevReopen "blockdev-reopen" -> Nothing { options: Vec<Value> }
    /// Gives a block node another size.
    BlockResize "block_resize" -> Nothing { node_name: String, size: u64 }
    /// Closes a block node.
    BlockdevDel "blockdev-del" -> Nothing { node_name: String }
    /// Several acts on blocks at one instant, or none.
    Transaction "transaction" -> Nothing { actions: Vec<Value> }
    /// Ends a ready job for good.
    BlockJobComplete "block-job-complete" -> Nothing { device: String }
    /// Lets a job end that has done all but its last step.
    JobFinalize "job-finalize" -> Nothing { id: String }
    /// Gives a job up.
    BlockJobCancel "block-job-cancel" -> Nothing { device: String, force: bool }
    /// Rewrites the name of the backing file in an image.
    ChangeBackingFile "change-backing-file" -> Nothing {
        device: String, image_node_name: String, backing_file: String
    }
    /// Switches migration capabilities.
    MigrateSetCapabilities "migrate-set-capabilities" -> Nothing { capabilities: Vec<Capability> }
    /// Saves the guest's state.
    Migrate "migrate" -> Nothing { uri: String }
    /// Lets a migration go on that waits for a word.
    MigrateContinue "migrate-continue" -> Nothing { state: &'static str }
    /// Gives a migration up.
    MigrateCancel "migrate_cancel" -> Nothing {}
    /// Loads the guest's state.
    MigrateIncoming "migrate-incoming" -> Nothing { uri: String }
    /// Reads guest memory into a file.
    Pmemsave "pmemsave" asks true -> Nothing { val: u64, size: u64, filename: String }
    /// A command of QEMU's own console, for what QMP has no word for.
    HumanMonitorCommand "human-monitor-command" asks true -> String { command_line: &'static str }
    /// Hands over a descriptor.
    AddFd "add-fd" -> AddedFd { fdset_id: u32 }
    /// Takes descriptors back.
    RemoveFd "remove-fd" -> Nothing { fdset_id: u32 }
}

/// Opens a block node; the options stand for themselves.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct BlockdevAdd(pub Value);

impl Command for BlockdevAdd {
    const NAME: &'static str = "blockdev-add";
    type Answer = Nothing;
}

/// Writes a layer down into one beneath.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BlockCommit {
    /// The job's id.
    pub job_id: String,
    /// The node at the top of the chain.
    pub device: String,
    /// The node that is written down.
    pub top_node: String,
    /// The node it is written to.
    pub base_node: String,
    /// What the node above `top_node` shall say its backing file is; there is none above the
    /// active one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing_file: Option<String>,
    /// Whether it ends by itself; otherwise it waits for [`JobFinalize`].
    pub auto_finalize: bool,
}

impl Command for BlockCommit {
    const NAME: &'static str = "block-commit";
    type Answer = Nothing;
}

/// Answer to [`QueryStatus`].
#[derive(Debug, Deserialize)]
pub struct Status {
    /// Such as `running`, `paused`, `inmigrate`.
    pub status: String,
}

/// Answer to [`QueryMigrate`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MigrationInfo {
    /// None when nothing was ever migrated.
    pub status: Option<MigrationStatus>,
    /// What of RAM was done.
    pub ram: Option<RamInfo>,
    /// How long it took to be prepared, in milliseconds, once it is.
    pub setup_time: Option<u64>,
    /// How long the guest was held, in milliseconds, once it has ended.
    pub downtime: Option<u64>,
    /// Why it failed.
    pub error_desc: Option<String>,
}

/// Sets migration parameters.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct MigrateSetParameters {
    /// How much is written in a second at most, in bytes; 0 for as much as can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bandwidth: Option<u64>,
    /// How long the guest may be held, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downtime_limit: Option<u64>,
    /// How much is written in a second while it is held, in bytes: to tell how long that takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avail_switchover_bandwidth: Option<u64>,
    /// How many threads save memory that is saved by several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multifd_channels: Option<usize>,
}

impl MigrateSetParameters {
    /// So many bytes a second at most; 0 for as many as can be.
    pub fn at_most(max_bandwidth: u64) -> Self {
        Self { max_bandwidth: Some(max_bandwidth), ..Self::default() }
    }

    /// The guest is held when the rest takes no longer than this, in milliseconds, at so many bytes
    /// a second.
    pub fn rest_within(downtime_limit: u64, bytes_a_second: u64) -> Self {
        Self {
            downtime_limit: Some(downtime_limit),
            avail_switchover_bandwidth: Some(bytes_a_second),
            ..Self::default()
        }
    }

    /// So many threads save memory.
    pub fn threads(multifd_channels: usize) -> Self {
        Self { multifd_channels: Some(multifd_channels), ..Self::default() }
    }
}

impl Command for MigrateSetParameters {
    const NAME: &'static str = "migrate-set-parameters";
    type Answer = Nothing;
}

impl MigrateSetCapabilities {
    /// Switches capabilities on or off.
    pub fn switch(names: &[&'static str], state: bool) -> Self {
        let capability = |&capability: &&'static str| Capability { capability, state };
        Self { capabilities: names.iter().map(capability).collect() }
    }
}

/// How a migration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MigrationStatus {
    /// None yet.
    None,
    /// Being prepared.
    Setup,
    /// On its way; not necessarily past the point where memory is protected.
    Active,
    /// Done.
    Completed,
    /// Gone wrong.
    Failed,
    /// Being given up.
    Cancelling,
    /// Given up.
    Cancelled,
    /// Held before the switch-over.
    PreSwitchover,
    /// Saving devices.
    Device,
    /// The machine runs, and its memory is still coming in.
    PostcopyActive,
    /// The machine runs, and nobody sends the rest of its memory.
    PostcopyPaused,
    /// One that Tintype does not use.
    #[serde(other)]
    Other,
}

/// What of RAM was done.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RamInfo {
    /// Pages written.
    pub normal: u64,
    /// Pages found to be zero.
    pub duplicate: u64,
    /// Bytes there are.
    pub total: u64,
    /// Bytes still to be written.
    pub remaining: u64,
    /// How often it was looked what was written to meanwhile.
    pub dirty_sync_count: u64,
}

/// One of [`QueryBlockJobs`].
#[derive(Debug, Deserialize)]
pub struct BlockJob {
    /// Its id.
    pub device: String,
    /// How much is done.
    pub offset: u64,
    /// Of how much.
    pub len: u64,
    /// Whether it waits for [`BlockJobComplete`].
    pub ready: bool,
    /// Such as `running`, or `pending` when it waits for [`JobFinalize`].
    pub status: String,
}

/// One of [`QueryBlock`].
#[derive(Debug, Deserialize)]
pub struct BlockDevice {
    /// What is in it.
    pub inserted: Option<Inserted>,
}

/// What is in a block device.
#[derive(Debug, Deserialize)]
pub struct Inserted {
    /// The image with what is beneath.
    pub image: ImageInfo,
}

/// An image with what is beneath.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImageInfo {
    /// Its file.
    pub filename: String,
    /// What is beneath.
    pub backing_image: Option<Box<ImageInfo>>,
}

impl ImageInfo {
    /// The names of the files of the chain, topmost first.
    pub fn files(&self) -> Vec<String> {
        let chain = std::iter::successors(Some(self), |image| image.backing_image.as_deref());
        chain.map(|image| file_name(&image.filename)).collect()
    }
}

/// The name of a file as QEMU tells it: a path, or all options of the image as `json:{…}` while
/// they are others than the image itself says.
fn file_name(told: &str) -> String {
    let options = told.strip_prefix("json:").and_then(|text| serde_json::from_str(text).ok());
    let path = options.and_then(|options: Value| {
        let file = options.get("file").unwrap_or(&options);
        file["filename"].as_str().map(str::to_owned)
    });
    let path = path.unwrap_or_else(|| told.to_owned());
    path.rsplit('/').next().unwrap_or(&path).to_owned()
}

/// What a character device leads to.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", content = "data", rename_all = "lowercase")]
pub enum ChardevBackend {
    /// Several others, all at once.
    Hub {
        /// Their ids.
        chardevs: Vec<&'static str>,
    },
    /// A socket that is listened at.
    Socket {
        /// Where.
        addr: ChardevSocket,
        /// That QEMU listens.
        server: bool,
        /// Whether it waits until somebody has come.
        wait: bool,
    },
}

/// The address of a socket.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", content = "data", rename_all = "lowercase")]
pub enum ChardevSocket {
    /// By a path.
    Unix {
        /// The path.
        path: String,
    },
}

/// Part of the answer to [`QueryChardev`].
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Chardev {
    /// Its id.
    pub label: String,
    /// Whether somebody in the guest has opened what it is connected to.
    pub frontend_open: bool,
}

/// Answer to [`QueryVersion`].
#[derive(Debug, Deserialize)]
pub struct Version {
    /// The release.
    pub qemu: Triple,
    /// What the distribution adds.
    pub package: String,
}

/// Numbers of a release.
#[derive(Debug, Deserialize)]
pub struct Triple {
    /// First.
    pub major: u32,
    /// Second.
    pub minor: u32,
    /// Third.
    pub micro: u32,
}

/// One of [`QueryMachines`].
#[derive(Debug, Deserialize)]
pub struct Machine {
    /// Such as `pc-q35-10.0`.
    pub name: String,
    /// Such as `q35`.
    pub alias: Option<String>,
}

/// Answer to [`QueryVmGenerationId`].
#[derive(Debug, Deserialize)]
pub struct GenerationId {
    /// The id.
    pub guid: String,
}

/// Answer to [`AddFd`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AddedFd {
    /// Where it went.
    pub fdset_id: u32,
}

/// A migration capability and whether it is wanted.
#[derive(Debug, Clone, Serialize)]
pub struct Capability {
    /// Its name.
    pub capability: &'static str,
    /// On or off.
    pub state: bool,
}

#[cfg(test)]
mod tests {
    use super::file_name;

    #[test]
    fn a_file_is_named_however_qemu_tells_it() {
        assert_eq!(file_name("a.qcow2"), "a.qcow2");
        assert_eq!(file_name("/pool/vm/a.qcow2"), "a.qcow2");
        let told = r#"json:{"driver": "qcow2", "backing": {"file": {"filename": "b"}},
            "file": {"driver": "file", "filename": "./a.qcow2"}}"#;
        assert_eq!(file_name(told), "a.qcow2");
        assert_eq!(file_name(r#"json:{"driver": "file", "filename": "a.raw"}"#), "a.raw");
    }
}
