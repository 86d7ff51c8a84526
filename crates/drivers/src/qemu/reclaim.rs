//! Background work on layers: removing, merging and folding, of a guest that runs or one that is
//! off. It may be done again after a crash, and gives way when asked.

use super::commands::{
    BlockCommit, BlockJobCancel, BlockJobComplete, BlockdevAdd, BlockdevDel, BlockdevReopen,
    ChangeBackingFile, JobFinalize, QueryBlockJobs,
};
use super::instance::Instance;
use super::launch::{file_node, layer_node, layer_options};
use super::qmp::QmpError;
use super::watchdog::Heal;
use super::{Qemu, failed};
use crate::hypervisor::Hypervisor;
use crate::volume::{Volume, VolumeError};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tintype_model::effect::{Facts, Outcome};
use tintype_model::layer::{Format, LayerFile};
use tintype_model::reclaim::Reclaim;
use tintype_model::refusal::Code;
use tintype_model::{LayerId, VmId};

/// How the name of the file ends that says that a layer was written down whole.
pub(super) const MERGED: &str = ".merged";

#[derive(Debug, thiserror::Error)]
enum ReclaimError {
    #[error("gave way")]
    Yielded,
    #[error(transparent)]
    Qmp(#[from] QmpError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error("merging failed: {0}")]
    Job(String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

struct Work<'a> {
    qemu: &'a Qemu,
    vm: VmId,
    give_way: &'a AtomicBool,
    instance: Option<Arc<Instance>>,
}

pub(super) fn reclaim(qemu: &Qemu, vm: VmId, work: &Reclaim, give_way: &AtomicBool) -> Outcome {
    if qemu.state(vm).is_live() && qemu.instance(vm).is_none() {
        return Outcome::Yielded;
    }
    let here = Work { qemu, vm, give_way, instance: qemu.instance(vm) };
    let past = match work {
        Reclaim::Remove { layer } => Ok(Some(*layer)),
        Reclaim::Merge { child, into, above } => {
            here.merge(*child, *into, above).map(|()| Some(*child))
        }
        Reclaim::Fold { chain, base, fresh, above, keep, .. } => here
            .fold(chain, *base, *fresh, above)
            .map(|()| chain.first().copied().filter(|_| !keep)),
    };
    let mut facts = Facts::default();
    let done = past.and_then(|past| {
        facts = Facts { switched: true, ..here.sizes(work) };
        past.map_or(Ok(()), |past| here.remove(past))
    });
    match done {
        Ok(()) => Outcome::Done(facts),
        Err(ReclaimError::Yielded | ReclaimError::Volume(VolumeError::Yielded)) => Outcome::Yielded,
        Err(error @ ReclaimError::Volume(_)) => failed(Code::StorageFailed, &error, facts),
        Err(error) => failed(Code::HypervisorFailed, &error, facts),
    }
}

impl Work<'_> {
    fn volume(&self) -> &crate::volume::qcow2::Qcow2 {
        &self.qemu.volume
    }

    fn sizes(&self, work: &Reclaim) -> Facts {
        let grown = match work {
            Reclaim::Remove { .. } => return Facts::default(),
            Reclaim::Merge { into, .. } => into,
            Reclaim::Fold { fresh, .. } => fresh,
        };
        let size = self.volume().allocated_bytes(self.vm, *grown).unwrap_or(0);
        Facts { sizes: [(grown.id, size)].into(), ..Facts::default() }
    }

    fn yield_if_asked(&self) -> Result<(), ReclaimError> {
        if self.give_way.load(Ordering::SeqCst) { Err(ReclaimError::Yielded) } else { Ok(()) }
    }

    /// Removes a layer that is of the past, and the mark that says so.
    fn remove(&self, layer: LayerFile) -> Result<(), ReclaimError> {
        if self.uses(layer)? {
            return Err(VolumeError::Tool(format!("{} is in use", layer.name())).into());
        }
        self.volume().remove(self.vm, layer)?;
        let _ = fs::remove_file(self.mark(layer));
        Ok(())
    }

    /// The file that says that a layer was merged into the one beneath it.
    fn mark(&self, child: LayerFile) -> PathBuf {
        self.qemu.folder(self.vm).path().join(format!("{}{MERGED}", child.id))
    }

    /// Writes `child` down into `into`. Through `child` the same is seen at every step, so it may
    /// be given up or repeated until it is marked that `into` holds all: from then on a guest may
    /// write to `into`, and `child` is of the past. It is removed last, by the caller.
    fn merge(
        &self,
        child: LayerFile,
        into: LayerFile,
        above: &[LayerFile],
    ) -> Result<(), ReclaimError> {
        let mark = self.mark(child);
        if !self.volume().exists(self.vm, child) {
            return Ok(());
        }
        match self.instance.as_deref() {
            Some(instance) if self.uses(into)? => {
                if self.uses(child)? {
                    self.commit(instance, child, into, &mark)?;
                }
                // QEMU flushes what it closes, and the guest waits for it.
                let _ = self.volume().sync(self.vm, child);
                let _ = instance.qmp().run(&BlockdevDel { node_name: layer_node(child.id) });
            }
            _ if mark.exists() => {}
            _ => self.volume().merge(self.vm, child, into, self.give_way)?,
        }
        for &layer in above {
            if !self.uses(layer).unwrap_or(false) {
                self.volume().relink(self.vm, layer, into)?;
            }
        }
        Ok(())
    }

    /// Merges in a running guest. The last step, after which the guest writes to `into`, is taken
    /// only once it is marked: whoever comes later must not write `child` down again.
    fn commit(
        &self,
        instance: &Instance,
        child: LayerFile,
        into: LayerFile,
        mark: &Path,
    ) -> Result<(), ReclaimError> {
        let qmp = instance.qmp();
        let id = job(child);
        if find_job(qmp.run(&QueryBlockJobs {})?, &id).is_none() {
            self.yield_if_asked()?;
            let _ = fs::remove_file(mark);
            let live = instance.chain_with(&child.name())?.unwrap_or_default();
            let is_active = live.first().is_some_and(|name| *name == child.name());
            let active = live.first().and_then(|name| id_of(name)).unwrap_or(child.id);
            qmp.forget_events("BLOCK_JOB");
            qmp.run(&BlockCommit {
                job_id: id.clone(),
                device: layer_node(active),
                top_node: layer_node(child.id),
                base_node: layer_node(into.id),
                backing_file: (!is_active).then(|| into.name()),
                auto_finalize: false,
            })?;
        }
        self.see_through(instance, &id, [child, into], mark)?;
        if instance.is_alive() && self.uses(child)? {
            let _ = fs::remove_file(mark);
            let ours = |event: &super::qmp::Event| event.data["device"] == id.as_str();
            let event = qmp.wait_for(Duration::from_millis(200), ours);
            let why = event.and_then(|event| event.data["error"].as_str().map(str::to_owned));
            return Err(ReclaimError::Job(why.unwrap_or_else(|| "it ended early".to_owned())));
        }
        Ok(())
    }

    /// Sees a merge through to its end, ours or that of a tintype that is gone. Once it is marked
    /// that all is merged, a guest that ends changes nothing about it. From the word to complete
    /// on, a disk of the guest may wait for us: the watchdog is armed for that long.
    fn see_through(
        &self,
        instance: &Instance,
        id: &str,
        layers: [LayerFile; 2],
        mark: &Path,
    ) -> Result<(), ReclaimError> {
        let qmp = instance.qmp();
        let arm = || {
            let (socket, job, mark) = (instance.watch_socket(), id.to_owned(), mark.to_owned());
            self.qemu.watch.arm(Heal::EndMerge { socket, job, mark })
        };
        let device = || id.to_owned();
        let (mut completing, mut cancelled) = (None, false);
        loop {
            let found = match qmp.run(&QueryBlockJobs {}) {
                Ok(jobs) => find_job(jobs, id),
                Err(_) if mark.exists() && !instance.is_alive() => None,
                Err(error) => return Err(error.into()),
            };
            let Some(state) = found else { break };
            if state.status == "pending" {
                set_mark(mark)?;
                let _ = qmp.run(&JobFinalize { id: device() });
            } else if self.give_way.load(Ordering::SeqCst) && completing.is_none() && !cancelled {
                cancelled = qmp.run(&BlockJobCancel { device: device(), force: true }).is_ok();
            } else if state.ready && completing.is_none() && !cancelled {
                // QEMU flushes them while the guest stands still: what is on disk need not be then.
                for layer in layers {
                    let _ = self.volume().sync(self.vm, layer);
                }
                completing = Some(arm()?);
                qmp.run(&BlockJobComplete { device: device() })?;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        if cancelled { Err(ReclaimError::Yielded) } else { Ok(()) }
    }

    /// Makes one layer of several beside the guest, then puts it in their place.
    fn fold(
        &self,
        chain: &[LayerFile],
        base: LayerFile,
        fresh: LayerFile,
        above: &[LayerFile],
    ) -> Result<(), ReclaimError> {
        let Some(&top) = chain.first() else {
            return Ok(());
        };
        if !self.uses(fresh)? && self.volume().exists(self.vm, top) {
            if let Some(instance) = &self.instance {
                // An earlier try may have opened it and come no further.
                let node_name = layer_node(fresh.id);
                let _ = instance.qmp().run(&BlockdevDel { node_name });
            }
            self.volume().fold(self.vm, top, base, fresh, self.give_way)?;
            if let Some(instance) =
                self.instance.as_deref().filter(|_| self.uses(top).is_ok_and(|used| used))
            {
                self.yield_if_asked()
                    .inspect_err(|_| drop(self.volume().remove(self.vm, fresh)))?;
                put_under(instance, top, base, fresh)?;
            }
        }
        if let Some(instance) = &self.instance {
            forget_folded(instance, chain, base, fresh)?;
        }
        for &layer in above {
            if !self.uses(layer)? {
                self.volume().relink(self.vm, layer, fresh)?;
            }
        }
        Ok(())
    }

    /// Whether a disk of the running guest is made of this layer.
    fn uses(&self, layer: LayerFile) -> Result<bool, QmpError> {
        match &self.instance {
            Some(instance) => Ok(instance.chain_with(&layer.name())?.is_some()),
            None => Ok(false),
        }
    }
}

/// Puts `fresh` in the place of `top` in a running guest.
fn put_under(
    instance: &Instance,
    top: LayerFile,
    base: LayerFile,
    fresh: LayerFile,
) -> Result<(), ReclaimError> {
    let live = instance.chain_with(&top.name())?.unwrap_or_default();
    let Some((upper, active)) = upper_of(&live, top) else {
        return Ok(());
    };
    let direct_io = instance.folder().is_direct();
    instance.qmp().run(&BlockdevAdd(layer_options(fresh, false, Some(base.id), direct_io)))?;
    let file = LayerFile { id: upper, format: Format::Qcow2 };
    let mut options = layer_options(file, upper == active, Some(fresh.id), direct_io);
    options["file"] = file_node(upper).into();
    instance.qmp().run(&BlockdevReopen { options: vec![options] })?;
    Ok(())
}

/// Closes what `fresh` has taken the place of, and says so in the layer above it.
fn forget_folded(
    instance: &Instance,
    chain: &[LayerFile],
    base: LayerFile,
    fresh: LayerFile,
) -> Result<(), ReclaimError> {
    let qmp = instance.qmp();
    let live = instance.chain_with(&fresh.name())?.unwrap_or_default();
    let Some((upper, active)) = upper_of(&live, fresh) else {
        return Ok(());
    };
    for layer in chain.iter().take_while(|layer| layer.id != base.id) {
        let _ = qmp.run(&BlockdevDel { node_name: layer_node(layer.id) });
    }
    qmp.run(&ChangeBackingFile {
        device: layer_node(active),
        image_node_name: layer_node(upper),
        backing_file: fresh.name(),
    })?;
    Ok(())
}

/// The layer that lies on `layer` in a chain, and the active one.
fn upper_of(live: &[String], layer: LayerFile) -> Option<(LayerId, LayerId)> {
    let at = live.iter().position(|name| *name == layer.name())?;
    let upper = id_of(live.get(at.checked_sub(1)?)?)?;
    Some((upper, id_of(live.first()?)?))
}

/// Makes the mark of a merge, durably.
fn set_mark(mark: &Path) -> std::io::Result<()> {
    if mark.exists() {
        return Ok(());
    }
    crate::steps::around("file mark merged", || {
        fs::OpenOptions::new().write(true).create_new(true).open(mark)?.sync_all()?;
        fs::File::open(mark.parent().unwrap_or(Path::new("/")))?.sync_all()
    })
}

fn job(child: LayerFile) -> String {
    format!("merge-{}", child.id.0.simple())
}

fn find_job(jobs: Vec<super::commands::BlockJob>, id: &str) -> Option<super::commands::BlockJob> {
    jobs.into_iter().find(|job| job.device == id)
}

/// The layer that a file of this name is.
fn id_of(name: &str) -> Option<LayerId> {
    name.split('.').next()?.parse().ok()
}
