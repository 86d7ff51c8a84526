//! Proving that a snapshot is whole: every layer is sound, its memory loads in a process of its
//! own, and the machine runs from there for a moment. It writes to layers that are thrown away, is
//! connected to nothing, and the machine itself is not touched.

use super::commands::Cont;
use super::instance::Instance;
use super::launch::Begin;
use super::revert::{RevertError, check_memory, load};
use super::{Qemu, failed};
use crate::diary::{Diary, Note};
use crate::hypervisor::Hypervisor;
use crate::volume::{Volume, VolumeError};
use std::thread;
use std::time::Duration;
use tintype_model::effect::{Facts, Outcome, Verify};
use tintype_model::refusal::Code;
use tintype_model::vm::VmState;

/// How long the machine runs from the snapshot.
const TRIAL: Duration = Duration::from_millis(300);

#[derive(Debug, thiserror::Error)]
enum VerifyError {
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error("its memory does not load: {0}")]
    Memory(#[from] RevertError),
    #[error("it loads and does not run: it is {0}")]
    DidNotRun(String),
}

pub(super) fn verify(qemu: &Qemu, verify: &Verify, diary: &mut dyn Diary) -> Outcome {
    let result = look(qemu, verify, diary);
    let cleaned = clean_up(qemu, verify);
    let running = qemu.state(verify.launch.vm) == VmState::Running;
    let facts = Facts { running, ..Facts::default() };
    match (result, cleaned) {
        (Ok(()), Ok(())) => Outcome::Done(facts),
        (Err(error), _) => failed(Code::VerifyFailed, &error, facts),
        (_, Err(error)) => failed(Code::StorageFailed, &error, facts),
    }
}

/// After a crash: what was begun is thrown away, and nothing is proved.
pub(super) fn recover(qemu: &Qemu, verify: &Verify) -> Outcome {
    let _ = clean_up(qemu, verify);
    let running = qemu.state(verify.launch.vm) == VmState::Running;
    failed(Code::Interrupted, &"tintype ended meanwhile", Facts { running, ..Facts::default() })
}

fn look(qemu: &Qemu, verify: &Verify, diary: &mut dyn Diary) -> Result<(), VerifyError> {
    let vm = verify.launch.vm;
    let frozen = verify.launch.disks.iter().flat_map(|disk| disk.chain.iter().skip(1));
    let frozen: Vec<_> = frozen.collect();
    for (n, &&layer) in frozen.iter().enumerate() {
        diary.tell("checking layers", n as f64 / (frozen.len() + 1) as f64);
        qemu.volume.check(vm, layer)?;
    }
    if !verify.memory {
        return Ok(());
    }
    diary.tell("loading memory", 0.5);
    let folder = qemu.folder(vm);
    check_memory(&folder, verify.snapshot, &verify.launch)?;
    let launched = Instance::launch(&folder, &verify.launch, &qemu.capabilities, Begin::Apart);
    let instance = launched.map_err(RevertError::from)?;
    let tried = diary
        .note(Note::Launched { instance: instance.number() })
        .map_err(|error| VerifyError::Memory(error.into()))
        .and_then(|()| run_for_a_moment(&instance, verify));
    instance.process().kill();
    tried
}

fn run_for_a_moment(instance: &Instance, verify: &Verify) -> Result<(), VerifyError> {
    load(instance, verify.snapshot)?;
    instance.qmp().run(&Cont {}).map_err(RevertError::from)?;
    thread::sleep(TRIAL);
    let state = instance.qmp().run_state().map_err(RevertError::from)?;
    if state == "running" { Ok(()) } else { Err(VerifyError::DidNotRun(state)) }
}

/// Ends the process and removes the layers that were made for this; the machine's own stay.
fn clean_up(qemu: &Qemu, verify: &Verify) -> Result<(), VolumeError> {
    let vm = verify.launch.vm;
    let folder = qemu.folder(vm);
    let current = folder.current();
    let others = folder.numbers().into_iter().filter(|&number| Some(number) != current);
    for process in others.filter_map(|number| Instance::recorded(&folder, number)) {
        process.kill();
    }
    folder.clear_instances(current);
    verify.launch.disks.iter().try_for_each(|disk| qemu.volume.remove(vm, disk.chain[0]))
}
