//! What a QEMU can do, found out once by asking a scratch one.

use super::commands::{MigrateSetCapabilities, QueryMachines, QueryVersion, Quit};
use super::launch;
use super::qmp::{Qmp, QmpError};
use crate::firmware::firmware;
use crate::guest_user::GuestUser;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tintype_model::capability::{Capabilities, Support};
use tintype_model::config::{Accel, Platform};
use tintype_model::settings::Limit;

/// The oldest QEMU that has mapped-ram, without which memory cannot be saved as we do.
const OLDEST: u32 = 9;
/// The first QEMU that can join two consoles.
const SHARES_CONSOLE: u32 = 10;

/// Why a QEMU cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// There is none.
    #[error("qemu-system-x86_64 cannot be started: {0}")]
    Absent(std::io::Error),
    /// It does not answer.
    #[error("qemu-system-x86_64 does not answer: {0}")]
    Mute(#[from] QmpError),
    /// It is too old.
    #[error(
        "QEMU {0} is too old: {OLDEST}.0 or newer is needed, for snapshots of memory at fixed \
             places in a file (mapped-ram)"
    )]
    Old(String),
    /// It knows no q35 machine.
    #[error("this QEMU has no machine type q35")]
    NoMachine,
    /// The accelerator asked for does not work.
    #[error("accel = kvm was asked for, but {0}")]
    NoKvm(&'static str),
}

/// Asks the QEMU of this host what it can do, as the user that guests run as. `accel` is what the
/// configuration wants, if it does.
///
/// # Errors
/// When there is no QEMU, or one that cannot be used.
pub fn probe(scratch: &Path, accel: Option<Accel>) -> Result<Capabilities, ProbeError> {
    let folder = scratch.join(format!("probe-{}", std::process::id()));
    let mut child = start(&folder).map_err(ProbeError::Absent)?;
    let answer = ask(&folder.join("qmp.sock"), accel);
    let _ = child.kill();
    let _ = child.wait();
    let _ = fs::remove_dir_all(&folder);
    answer
}

fn start(folder: &Path) -> std::io::Result<Child> {
    fs::create_dir_all(folder)?;
    let user = GuestUser::for_guests();
    if let Some(user) = user {
        user.allow_userfaultfd();
        user.own(folder)?;
    }
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35"])
        .args(["-accel", "tcg", "-m", "16", "-S", "-qmp", "unix:qmp.sock,server=on,wait=off"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    launch::detach(&mut command, fs::File::open(folder)?, user, Vec::new());
    command.spawn()
}

fn ask(socket: &Path, accel: Option<Accel>) -> Result<Capabilities, ProbeError> {
    let qmp = connect(socket)?;
    let version = qmp.run(&QueryVersion {})?;
    let numbers = &version.qemu;
    let text = format!("{}.{}.{}", numbers.major, numbers.minor, numbers.micro);
    if numbers.major < OLDEST {
        return Err(ProbeError::Old(text));
    }
    let machines = qmp.run(&QueryMachines {})?;
    let is_q35 = |alias: &Option<String>| alias.as_deref() == Some("q35");
    let machine = machines.iter().find(|machine| is_q35(&machine.alias));
    let machine = machine.ok_or(ProbeError::NoMachine)?.name.clone();
    let background_snapshots = can(&qmp, &SAVES);
    let memory_on_demand = can(&qmp, &SERVES);
    let _ = qmp.run(&Quit {});
    let (accel, accels) = match (accel, kvm_trouble()) {
        (Some(Accel::Kvm), Some(trouble)) => return Err(ProbeError::NoKvm(trouble)),
        (Some(Accel::Tcg), _) | (None, Some(_)) => (Accel::Tcg, vec![Accel::Tcg]),
        (Some(Accel::Kvm) | None, None) => (Accel::Kvm, vec![Accel::Kvm, Accel::Tcg]),
    };
    let cpu = match accel {
        Accel::Kvm => "host",
        Accel::Tcg => "max",
    };
    let yes_if = |yes: bool, why: &str| {
        if yes { Support::Yes } else { Support::No(why.to_owned()) }
    };
    Ok(Capabilities {
        kind: "qemu".to_owned(),
        snapshot_cap: Limit::Unlimited,
        hypervisor: format!("QEMU {text}{}", package(&version.package)),
        platform: Platform { machine, cpu: cpu.to_owned(), accel },
        machines: machines.into_iter().map(|machine| machine.name).collect(),
        accels,
        background_snapshots,
        memory_on_demand,
        quiesce: Support::Yes,
        shared_console: yes_if(
            numbers.major >= SHARES_CONSOLE,
            "this QEMU is older than 10 and cannot join two consoles",
        ),
        uefi: yes_if(firmware().is_some(), "no UEFI firmware is installed (package ovmf)"),
    })
}

fn package(package: &str) -> String {
    if package.is_empty() { String::new() } else { format!(" ({package})") }
}

fn connect(socket: &Path) -> Result<Qmp, QmpError> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match Qmp::connect(socket) {
            Err(_) if Instant::now() < until => thread::sleep(Duration::from_millis(5)),
            other => return other,
        }
    }
}

/// Whether memory of the kind we use can be saved while the guest runs: the kernel has a say too.
const SAVES: [&str; 2] = ["background-snapshot", "mapped-ram"];
/// Whether a machine gets its memory when it touches it: as well.
const SERVES: [&str; 1] = ["postcopy-ram"];

/// Whether this can be switched on, and off again.
fn can(qmp: &Qmp, capabilities: &[&'static str]) -> Support {
    let switch = |state| qmp.run(&MigrateSetCapabilities::switch(capabilities, state));
    match switch(true).and_then(|_| switch(false)) {
        Ok(_) => Support::Yes,
        Err(error) => Support::No(error.to_string()),
    }
}

/// Why KVM does not work here, if so. A /dev/kvm can exist and be of no use.
fn kvm_trouble() -> Option<&'static str> {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let offered = flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    if !offered {
        return Some("the processor offers neither vmx nor svm");
    }
    let opened = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    if opened.is_err() { Some("/dev/kvm cannot be opened") } else { None }
}

#[cfg(test)]
mod tests {
    use super::{ProbeError, ask};
    use crate::qemu::qmp::tests::serve;

    #[test]
    fn a_qemu_older_than_nine_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("qmp.sock");
        let version = r#"{"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": "old"}"#;
        let server = serve(&path, format!("{{\"return\": {version}, \"id\": 2}}\n"));
        let error = ask(&path, None).unwrap_err();
        assert!(matches!(&error, ProbeError::Old(version) if version == "7.2.22"), "{error}");
        assert!(error.to_string().contains("9.0 or newer"), "{error}");
        server.join().unwrap();
    }
}
