//! Layers as qcow2 files in a folder of the machine, worked on with qemu-img.

use super::{Volume, VolumeError, header, overlay, refuse_if_written};
use crate::firmware::firmware;
use crate::guest_user::GuestUser;
use crate::steps;
use rustix::fs::{SeekFrom, seek};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tintype_model::VmId;
use tintype_model::effect::{NewDisk, Source};
use tintype_model::layer::{Format, LayerFile};

/// Subclusters make copy-on-write as small as a page.
const LAYOUT: &str = "extended_l2=on,cluster_size=128k,lazy_refcounts=off";
/// How `qemu-img check` says that clusters are taken and not used, as after a power cut, and that
/// nothing is damaged (qemu-img(1)).
const LEAKED: i32 = 3;
/// What is copied at once, in bytes.
const CHUNK: usize = 1 << 20;

/// Layers as files below `root`, in a folder for each machine.
#[derive(Clone, Debug)]
pub struct Qcow2 {
    root: PathBuf,
    user: Option<GuestUser>,
}

impl Qcow2 {
    /// Layers below `root` that belong to `user`.
    pub fn new(root: PathBuf, user: Option<GuestUser>) -> Self {
        Self { root, user }
    }

    fn folder(&self, vm: VmId) -> PathBuf {
        self.root.join(vm.to_string())
    }

    fn path(&self, vm: VmId, layer: LayerFile) -> PathBuf {
        self.folder(vm).join(layer.name())
    }

    /// The size of a layer as a guest sees it.
    fn size_bytes(&self, vm: VmId, layer: LayerFile) -> Result<u64, VolumeError> {
        let path = self.path(vm, layer);
        let look = || {
            let file = File::open(&path)?;
            match layer.format {
                Format::Raw => Ok(file.metadata()?.len()),
                Format::Qcow2 => match header::read(&file)? {
                    header::Kind::Qcow2(header) => Ok(header.size_bytes),
                    header::Kind::Foreign(_) | header::Kind::Plain => {
                        Err(io::Error::other("it is no qcow2 image"))
                    }
                },
            }
        };
        look().map_err(|e| failure("looking at", &path, e))
    }

    /// Hands a new file to who guests run as, and puts it and its name on disk.
    fn settle(&self, vm: VmId, path: &Path) -> Result<(), VolumeError> {
        let settle = || {
            if let Some(user) = self.user {
                user.own(path)?;
            }
            File::open(path)?.sync_all()?;
            File::open(self.folder(vm))?.sync_all()
        };
        settle().map_err(|e| failure("settling", path, e))
    }

    /// Runs qemu-img in the machine's folder; kills it when asked to give way.
    fn image(&self, vm: VmId, args: &[&str], give_way: &AtomicBool) -> Result<(), VolumeError> {
        self.image_or(vm, args, None, give_way)
    }

    /// The same, of a call whose exit code `harmless` is as good as 0.
    fn image_or(
        &self,
        vm: VmId,
        args: &[&str],
        harmless: Option<i32>,
        give_way: &AtomicBool,
    ) -> Result<(), VolumeError> {
        let what = args.first().copied().unwrap_or_default();
        steps::around(&format!("file qemu-img {what}"), || {
            let mut command = Command::new("qemu-img");
            confine(&mut command, &self.folder(vm), self.user)
                .map_err(|e| failure("entering", &self.folder(vm), e))?;
            let mut child = command
                .args(args)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .map_err(|e| failure("starting qemu-img in", &self.folder(vm), e))?;
            loop {
                match child.try_wait() {
                    Ok(None) if give_way.load(Ordering::SeqCst) => {
                        let _ = child.kill();
                        let _ = child.wait();
                        return Err(VolumeError::Yielded);
                    }
                    Ok(None) => thread::sleep(Duration::from_millis(2)),
                    Ok(Some(status)) if status.success() => return Ok(()),
                    Ok(Some(status)) if harmless.is_some() && status.code() == harmless => {
                        return Ok(());
                    }
                    Ok(Some(_)) | Err(_) => break,
                }
            }
            let output =
                child.wait_with_output().map_err(|e| failure("waiting in", &self.root, e))?;
            let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(VolumeError::Tool(format!("qemu-img {what}: {text}")))
        })
    }

    fn must(&self, vm: VmId, args: &[&str]) -> Result<(), VolumeError> {
        self.image(vm, args, &AtomicBool::new(false))
    }
}

impl Volume for Qcow2 {
    fn prepare(&self, vm: VmId) -> Result<(), VolumeError> {
        let folder = self.folder(vm);
        let prepare = || {
            fs::create_dir_all(&folder)?;
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
            self.user.map_or(Ok(()), |user| user.own(&folder))?;
            File::open(&self.root)?.sync_all()
        };
        steps::around("file make folder", prepare).map_err(|e| failure("making", &folder, e))
    }

    fn copy_in(&self, vm: VmId, from: &Path, name: &str) -> Result<(), VolumeError> {
        let to = self.folder(vm).join(name);
        steps::around("file copy in", || copy(from, &to))
            .map_err(|e| failure("copying", from, e))?;
        self.settle(vm, &to)
    }

    fn copy_over(&self, from: VmId, to: VmId, name: &str) -> Result<(), VolumeError> {
        let file = self.folder(from).join(name);
        if !file.exists() {
            return Ok(());
        }
        self.copy_in(to, &file, name)
    }

    fn create(&self, vm: VmId, disk: &NewDisk) -> Result<(), VolumeError> {
        let path = self.path(vm, disk.layer);
        match &disk.source {
            Source::Empty => {
                let (name, size) = (disk.layer.name(), disk.size_bytes.to_string());
                self.must(vm, &["create", "-q", "-f", "qcow2", "-o", LAYOUT, &name, &size])?;
            }
            Source::File(from) => {
                let from = Path::new(from);
                steps::around("file copy in", || copy(from, &path))
                    .map_err(|e| failure("copying", from, e))?;
            }
            Source::FirmwareTemplate => {
                let Some((_, vars)) = firmware() else {
                    return Err(VolumeError::Tool("no UEFI firmware is installed".to_owned()));
                };
                let name = disk.layer.name();
                self.must(vm, &["convert", "-q", "-f", "raw", "-O", "qcow2", vars, &name])?;
            }
        }
        self.settle(vm, &path)
    }

    fn overlay(&self, vm: VmId, layer: LayerFile, on: LayerFile) -> Result<(), VolumeError> {
        let path = self.path(vm, layer);
        let size_bytes = self.size_bytes(vm, on)?;
        let make = || {
            match File::open(&path) {
                Ok(there) => refuse_if_written(&there, &path).map_err(io::Error::other)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            let _ = fs::remove_file(&path);
            let mut new = OpenOptions::new();
            let file = new.write(true).create_new(true).mode(0o600).open(&path)?;
            overlay::write(&file, size_bytes, on)
        };
        steps::around("file make overlay", make).map_err(|e| failure("making", &path, e))?;
        self.settle(vm, &path)
    }

    fn remove(&self, vm: VmId, layer: LayerFile) -> Result<(), VolumeError> {
        let path = self.path(vm, layer);
        match steps::around("file remove layer", || fs::remove_file(&path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failure("removing", &path, error))
            }
            _ => Ok(()),
        }
    }

    fn merge(
        &self,
        vm: VmId,
        child: LayerFile,
        into: LayerFile,
        give_way: &AtomicBool,
    ) -> Result<(), VolumeError> {
        // Into what the image says it lies on. To name it would have qemu-img resolve whole paths,
        // and what is above the machine's folder may be closed to the guests' user.
        self.relink(vm, child, into)?;
        self.image(vm, &["commit", "-q", "-d", "-f", "qcow2", &child.name()], give_way)?;
        self.sync(vm, into)
    }

    fn fold(
        &self,
        vm: VmId,
        top: LayerFile,
        base: LayerFile,
        fresh: LayerFile,
        give_way: &AtomicBool,
    ) -> Result<(), VolumeError> {
        let (from, to) = (self.path(vm, top), self.path(vm, fresh));
        steps::around("file copy layer", || copy(&from, &to))
            .map_err(|e| failure("copying", &from, e))?;
        if let Some(user) = self.user {
            user.own(&to).map_err(|e| failure("giving", &to, e))?;
        }
        let (name, beneath, format) = (fresh.name(), base.name(), base.format.as_str());
        let args = ["rebase", "-q", "-f", "qcow2", "-b", &beneath, "-F", format, &name];
        if let Err(error) = self.image(vm, &args, give_way) {
            self.remove(vm, fresh)?;
            return Err(error);
        }
        self.settle(vm, &to)
    }

    fn share(&self, from: VmId, layer: LayerFile, to: VmId) -> Result<(), VolumeError> {
        let (from, link) = (self.path(from, layer), self.path(to, layer));
        match steps::around("file share layer", || fs::hard_link(&from, &link)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(failure("sharing", &from, error))
            }
            _ => self.settle(to, &link),
        }
    }

    fn flatten(
        &self,
        from: VmId,
        top: LayerFile,
        to: VmId,
        layer: LayerFile,
        give_way: &AtomicBool,
    ) -> Result<(), VolumeError> {
        // By a path that needs no permission on what is above the pool.
        let target = format!("../{to}/{}", layer.name());
        let (format, name) = (top.format.as_str(), top.name());
        let args = ["convert", "-q", "-f", format, "-O", "qcow2", "-o", LAYOUT, &name, &target];
        self.image(from, &args, give_way)?;
        self.settle(to, &self.path(to, layer))
    }

    fn resize(&self, vm: VmId, layer: LayerFile, size_bytes: u64) -> Result<(), VolumeError> {
        let (format, name, size) = (layer.format.as_str(), layer.name(), size_bytes.to_string());
        self.must(vm, &["resize", "-q", "--shrink", "-f", format, &name, &size])?;
        self.settle(vm, &self.path(vm, layer))
    }

    fn check(&self, vm: VmId, layer: LayerFile) -> Result<(), VolumeError> {
        match layer.format {
            Format::Qcow2 => {
                let args = ["check", "-q", "-U", "-f", "qcow2", &layer.name()];
                self.image_or(vm, &args, Some(LEAKED), &AtomicBool::new(false))
            }
            Format::Raw => self.allocated_bytes(vm, layer).map(drop),
        }
    }

    fn relink(&self, vm: VmId, layer: LayerFile, on: LayerFile) -> Result<(), VolumeError> {
        let (name, beneath, format) = (layer.name(), on.name(), on.format.as_str());
        self.must(vm, &["rebase", "-q", "-u", "-f", "qcow2", "-b", &beneath, "-F", format, &name])
    }

    fn sync(&self, vm: VmId, layer: LayerFile) -> Result<(), VolumeError> {
        let path = self.path(vm, layer);
        File::open(&path).and_then(|file| file.sync_all()).map_err(|e| failure("syncing", &path, e))
    }

    fn exists(&self, vm: VmId, layer: LayerFile) -> bool {
        self.path(vm, layer).exists()
    }

    fn is_blank(&self, vm: VmId, layer: LayerFile) -> Result<bool, VolumeError> {
        let path = self.path(vm, layer);
        let look = || {
            let file = File::open(&path)?;
            match header::read(&file)? {
                header::Kind::Qcow2(header) => header.is_blank(&file),
                header::Kind::Foreign(_) | header::Kind::Plain => Ok(false),
            }
        };
        look().map_err(|e| failure("looking at", &path, e))
    }

    fn allocated_bytes(&self, vm: VmId, layer: LayerFile) -> Result<u64, VolumeError> {
        let path = self.path(vm, layer);
        let meta = fs::metadata(&path).map_err(|e| failure("measuring", &path, e))?;
        Ok(meta.blocks() * 512)
    }
}

/// Makes a tool one that works in `folder` as the user guests run as, whose images it reads, and
/// that dies with us: nobody may write on when the work is done again.
fn confine(command: &mut Command, folder: &Path, user: Option<GuestUser>) -> io::Result<()> {
    use rustix::process::{Signal, fchdir, set_parent_process_death_signal};
    use std::os::unix::process::CommandExt;
    let folder = File::open(folder)?;
    // SAFETY: between fork and exec only system calls are made, which are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            fchdir(&folder)?;
            if let Some(user) = user {
                user.become_it()?;
            }
            set_parent_process_death_signal(Some(Signal::KILL))?;
            Ok(())
        });
    }
    Ok(())
}

fn failure(what: &str, path: &Path, source: io::Error) -> VolumeError {
    VolumeError::Io { what: format!("{what} {}", path.display()), source }
}

/// Copies a file: by sharing its blocks where the filesystem can, else what of it is data.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let target = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(to)?;
    if rustix::fs::ioctl_ficlone(&target, &source).is_ok() {
        return Ok(());
    }
    let length = source.metadata()?.len();
    target.set_len(length)?;
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < length {
        let from = match seek(&source, SeekFrom::Data(at)) {
            Ok(from) => from,
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = seek(&source, SeekFrom::Hole(from))?.min(length);
        at = from;
        while at < end {
            let most = buffer.len().min(usize::try_from(end - at).unwrap_or(CHUNK));
            source.read_exact_at(&mut buffer[..most], at)?;
            target.write_all_at(&buffer[..most], at)?;
            at += most as u64;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::copy;
    use std::fs;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn a_copy_is_equal_and_as_sparse() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let file = fs::File::create(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"first", 0).unwrap();
        file.write_all_at(b"last", (64 << 20) - 4).unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(fs::read(&from).unwrap(), fs::read(&to).unwrap());
        assert!(fs::metadata(&to).unwrap().blocks() < 64);
    }
}
