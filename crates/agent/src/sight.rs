//! What there is of machines on a host beside what effects do: looked at, and put in order when
//! somebody has decided how.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use tintype_drivers::Host;
use tintype_model::finding::{Repair, Sighting};
use tintype_model::manifest::{Manifest, Survey};
use tintype_model::refusal::Code;
use tintype_model::{Refusal, VmId};

/// What there is of a machine, but for what other processes have open.
///
/// # Errors
/// When storage fails.
pub fn look(host: &dyn Host, vm: VmId, settle: &BTreeSet<String>) -> std::io::Result<Sighting> {
    let premises = host.premises();
    let files = premises.files(vm, settle)?;
    let replaced = premises.open_files(vm).replaced;
    let held = premises.held(vm);
    let revision = written(host, vm);
    Ok(Sighting { files, replaced, held, revision, ..Sighting::default() })
}

/// The revision that the manifest of a machine tells of, if it has one.
fn written(host: &dyn Host, vm: VmId) -> Option<i64> {
    Manifest::revision_in(&host.premises().manifest(vm)?)
}

/// Writes down beside a machine's layers what they are, unless what is written there is newer: then
/// the database is an old one.
///
/// # Errors
/// Why it could not be written.
pub fn describe(host: &dyn Host, vm: VmId, manifest: &Manifest) -> Result<(), Refusal> {
    match written(host, vm).map(|there| there.cmp(&manifest.revision)) {
        Some(Ordering::Greater) => {
            return Err(Refusal::new(Code::FilesInDoubt).detail("what is written there is newer"));
        }
        Some(Ordering::Equal) => return Ok(()),
        Some(Ordering::Less) | None => {}
    }
    match host.premises().describe(vm, &manifest.to_text()) {
        // A machine that is being made has no folder yet, one that is gone has none any more.
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Refusal::new(Code::StorageFailed).detail(error.to_string()))
        }
        _ => Ok(()),
    }
}

/// What there is of a machine, to take it up.
pub fn survey(host: &dyn Host, vm: VmId) -> Survey {
    let premises = host.premises();
    Survey {
        vm,
        manifest: premises.manifest(vm),
        sighting: look(host, vm, &BTreeSet::new()).unwrap_or_default(),
        lies_on: premises.lies_on(vm).unwrap_or_default(),
        written: premises.open_files(vm).written,
        state: host.hypervisor().state(vm),
    }
}

/// Does for a repair what is to be done on the host; says what it did.
///
/// # Errors
/// Why it could not be done; nothing is changed then.
pub fn repair(host: &dyn Host, vm: VmId, repair: &Repair) -> Result<String, Refusal> {
    let failed =
        |error: &dyn std::fmt::Display| Refusal::new(Code::StorageFailed).detail(error.to_string());
    match repair {
        Repair::AcceptLayer { layer } => {
            host.volume().check(vm, *layer).map_err(|error| failed(&error))?;
            Ok("sound in itself, and taken as it is".to_owned())
        }
        Repair::SetAside { file } => {
            let there = host.premises().set_aside(vm, file).map_err(|error| failed(&error))?;
            Ok(format!("now {there}"))
        }
        Repair::SetAsideMachine => {
            let there = host.premises().set_aside_machine(vm).map_err(|error| failed(&error))?;
            Ok(format!("now {there}"))
        }
        Repair::Resume => {
            host.premises().resume(vm).map_err(|error| failed(&error))?;
            Ok("the guest goes on".to_owned())
        }
        Repair::AcceptMemory { .. } | Repair::ForgetMemory { .. } | Repair::GiveUp { .. } => {
            Ok(String::new())
        }
    }
}
