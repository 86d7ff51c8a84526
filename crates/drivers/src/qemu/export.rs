//! Writing a snapshot to a folder of the pool's `.exports`: a qcow2 file for each disk, its memory,
//! and a script that starts plain QEMU from there. Nothing in it refers to anything outside.
//!
//! All is written to a folder of another name first, which takes its own at last: what is there is
//! whole.

use super::mapped_ram::{FormatError, say_that_it_ran};
use super::{Qemu, failed, launch};
use crate::diary::Diary;
use crate::firmware::firmware;
use crate::hypervisor::Hypervisor;
use crate::steps;
use crate::volume::qcow2::copy;
use crate::volume::{Volume, VolumeError};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use tintype_model::Refusal;
use tintype_model::config::{Firmware, Role};
use tintype_model::effect::{EXPORTS, Export, Facts, Outcome};
use tintype_model::refusal::Code;
use tintype_model::snapshot::memory_name;

/// The file that says what was exported, and that it was this export.
const ABOUT: &str = "export.json";
/// The file with the memory.
pub(super) const MEMORY: &str = "memory";
/// The file with the firmware's code.
pub(super) const CODE: &str = "firmware.fd";

#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error("{} is there already", .0.display())]
    Taken(PathBuf),
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Memory(#[from] FormatError),
    #[error("what was exported cannot be told: {0}")]
    About(#[from] serde_json::Error),
}

/// The names that the files of an export's disks have in its folder, in the order of its disks.
pub(super) fn disk_files(export: &Export) -> Vec<String> {
    let mut data = 0..;
    let name = |role| match role {
        Role::Firmware => "firmware-variables.qcow2".to_owned(),
        Role::Data => format!("disk{}.qcow2", data.next().unwrap_or(0)),
    };
    export.launch.disks.iter().map(|disk| disk.role).map(name).collect()
}

/// Exports; what was begun before is begun anew, and what was done is not done again.
pub(super) fn export(
    qemu: &Qemu,
    export: &Export,
    diary: &mut dyn Diary,
    stop: &AtomicBool,
) -> Outcome {
    let vm = export.launch.vm;
    let written = write(qemu, export, diary, stop);
    if written.is_err() {
        let _ = fs::remove_dir_all(part(qemu, export));
    }
    let mut made = export.launch.disks.iter().map(|disk| disk.chain[0]);
    let removed = made.try_for_each(|layer| qemu.volume.remove(vm, layer));
    let facts = Facts { running: qemu.state(vm).is_live(), ..Facts::default() };
    match (written, removed) {
        (Ok(()), Ok(())) => Outcome::Done(facts),
        (Err(error @ ExportError::Taken(_)), _) => {
            let taken = Refusal::new(Code::NameTaken).detail(error.to_string());
            Outcome::Failed(taken.hint("choose another name, or remove what is there"), facts)
        }
        (Err(error), _) => failed(Code::StorageFailed, &error, facts),
        (_, Err(error)) => failed(Code::StorageFailed, &error, facts),
    }
}

/// Where an export is until it is whole.
fn part(qemu: &Qemu, export: &Export) -> PathBuf {
    qemu.root.join(EXPORTS).join(format!(".{}", export.snapshot))
}

fn write(
    qemu: &Qemu,
    export: &Export,
    diary: &mut dyn Diary,
    stop: &AtomicBool,
) -> Result<(), ExportError> {
    let (exports, part) = (qemu.root.join(EXPORTS), part(qemu, export));
    let folder = &exports.join(&export.name);
    let about = serde_json::to_string_pretty(export)?;
    if folder.symlink_metadata().is_ok() {
        let ours = fs::read_to_string(folder.join(ABOUT)).is_ok_and(|there| there == about);
        return if ours { Ok(()) } else { Err(ExportError::Taken(folder.clone())) };
    }
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| ExportError::Io { path, source }
    };
    let _ = fs::remove_dir_all(&part);
    let make = || DirBuilder::new().recursive(true).mode(0o700).create(&part);
    steps::around("file make folder", make).map_err(at(&part))?;
    disks(qemu, export, &part, diary, stop)?;
    let machine = qemu.folder(export.launch.vm);
    let bring = |from: &Path, name: &str| {
        let copied = steps::around("file copy out", || copy(from, &part.join(name)));
        copied.map_err(at(from))
    };
    if export.memory {
        diary.tell("copying memory", 0.8);
        bring(&machine.path().join(memory_name(export.snapshot)), MEMORY)?;
        let memory = File::options().read(true).write(true).open(part.join(MEMORY));
        say_that_it_ran(&memory.map_err(at(&part))?)?;
    }
    let config = &export.launch.config;
    if let Some(kernel) = &config.kernel {
        bring(&machine.path().join("kernel"), "kernel")?;
        if kernel.initrd {
            bring(&machine.path().join("initrd"), "initrd")?;
        }
    }
    if config.firmware == Firmware::Uefi
        && let Some((code, _)) = firmware()
    {
        bring(Path::new(code), CODE)?;
    }
    let start = part.join("start");
    fs::write(&start, script(export))
        .and_then(|()| fs::set_permissions(&start, fs::Permissions::from_mode(0o700)))
        .map_err(at(&start))?;
    fs::write(part.join(ABOUT), about).map_err(at(&part))?;
    sync_with_files(&part).map_err(at(&part))?;
    let renamed = steps::around("file name export", || {
        renameat_with(CWD, &part, CWD, folder, RenameFlags::NOREPLACE)
    });
    renamed.map_err(|error| at(folder)(error.into()))?;
    sync(&exports).and_then(|()| sync(&qemu.root)).map_err(at(folder))
}

/// Makes one file of each disk, in the machine's folder as who guests run as, and brings it out.
fn disks(
    qemu: &Qemu,
    export: &Export,
    part: &Path,
    diary: &mut dyn Diary,
    stop: &AtomicBool,
) -> Result<(), ExportError> {
    let vm = export.launch.vm;
    let disks = &export.launch.disks;
    for (n, (disk, name)) in disks.iter().zip(disk_files(export)).enumerate() {
        diary.tell("copying disks", 0.8 * n as f64 / disks.len() as f64);
        let (made, to) = (disk.chain[0], part.join(name));
        qemu.volume.flatten(vm, disk.chain[1], vm, made, stop)?;
        let from = qemu.folder(vm).path().join(made.name());
        steps::around("file bring disk out", || {
            fs::rename(&from, &to)?;
            let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
            lchown(&to, Some(user.as_raw()), Some(group.as_raw()))
        })
        .map_err(|source| ExportError::Io { path: to.clone(), source })?;
    }
    Ok(())
}

/// Puts a folder's names on disk.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Puts a folder and the files in it on disk.
fn sync_with_files(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        File::open(entry?.path())?.sync_all()?;
    }
    sync(folder)
}

/// A script that starts the machine: each time from the snapshot on, with what it writes in files
/// that are made anew.
fn script(export: &Export) -> String {
    let mut text = format!(
        "#!/bin/sh\n\
         # {}, as it was when snapshot {} was taken.\n\
         # What it writes goes to now-*, which are made anew each time. The console is this\n\
         # terminal's, or what CONSOLE says: any character device of QEMU.\n\
         set -e\n\
         cd \"$(dirname \"$0\")\"\n\
         : \"${{CONSOLE:=stdio,signal=off}}\"\n",
        export.launch.name.replace('\n', " "),
        export.snapshot,
    );
    for file in disk_files(export) {
        text.push_str(&format!("qemu-img create -q -f qcow2 -b {file} -F qcow2 now-{file}\n"));
    }
    text.push_str("exec qemu-system-x86_64 -chardev \"$CONSOLE,id=serial\"");
    for option in launch::exported(export) {
        text.push_str(if option.starts_with('-') { " \\\n    " } else { " " });
        text.push_str(&format!("'{}'", option.replace('\'', "'\\''")));
    }
    text.push_str(" \"$@\"\n");
    text
}
