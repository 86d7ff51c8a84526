//! What an agent asks of the storage that layers lie on.

pub mod header;
mod overlay;
pub mod qcow2;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use tintype_model::effect::NewDisk;
use tintype_model::layer::LayerFile;
use tintype_model::refusal::Code;
use tintype_model::{Refusal, VmId};

/// Why storage failed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Files.
    #[error("{what}: {source}")]
    Io {
        /// What was done.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A tool said no.
    #[error("{0}")]
    Tool(String),
    /// Somebody else comes first.
    #[error("gave way")]
    Yielded,
}

/// What was found out about a file that shall become a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inspected {
    /// Its format.
    pub format: tintype_model::layer::Format,
    /// Its size as a guest would see it.
    pub size_bytes: u64,
    /// What copying it takes on disk, at most.
    pub allocated_bytes: u64,
}

/// Storage of layers. Every method may be repeated after it was interrupted.
pub trait Volume: Send + Sync {
    /// Makes the folder for a machine's layers.
    ///
    /// # Errors
    /// When storage fails; so for all methods.
    fn prepare(&self, vm: VmId) -> Result<(), VolumeError>;

    /// Copies a file of the host in, for a machine to keep.
    fn copy_in(&self, vm: VmId, from: &Path, name: &str) -> Result<(), VolumeError>;

    /// Copies a file that one machine keeps to another, if it is there.
    fn copy_over(&self, from: VmId, to: VmId, name: &str) -> Result<(), VolumeError>;

    /// Makes the first layer of a disk.
    fn create(&self, vm: VmId, disk: &NewDisk) -> Result<(), VolumeError>;

    /// Makes an empty layer over another, and puts it on disk.
    fn overlay(&self, vm: VmId, layer: LayerFile, on: LayerFile) -> Result<(), VolumeError>;

    /// Removes a layer, which may be gone already.
    fn remove(&self, vm: VmId, layer: LayerFile) -> Result<(), VolumeError>;

    /// Writes `child`, which nobody has open, down into `into`.
    fn merge(
        &self,
        vm: VmId,
        child: LayerFile,
        into: LayerFile,
        give_way: &AtomicBool,
    ) -> Result<(), VolumeError>;

    /// Makes `fresh` over `base`, seen the same as `top`; reads only but for `fresh`.
    fn fold(
        &self,
        vm: VmId,
        top: LayerFile,
        base: LayerFile,
        fresh: LayerFile,
        give_way: &AtomicBool,
    ) -> Result<(), VolumeError>;

    /// Gives a machine a layer of another one: the same file, by another name. Neither changes it
    /// from then on.
    fn share(&self, from: VmId, layer: LayerFile, to: VmId) -> Result<(), VolumeError>;

    /// Makes `layer` for machine `to`, with all that is seen through `top`, which nobody writes to.
    fn flatten(
        &self,
        from: VmId,
        top: LayerFile,
        to: VmId,
        layer: LayerFile,
        give_way: &AtomicBool,
    ) -> Result<(), VolumeError>;

    /// Gives a layer that nobody has open another size, as the guest sees it.
    fn resize(&self, vm: VmId, layer: LayerFile, size_bytes: u64) -> Result<(), VolumeError>;

    /// Looks whether a layer that nobody writes to is sound in itself.
    fn check(&self, vm: VmId, layer: LayerFile) -> Result<(), VolumeError>;

    /// Says in `layer`, which nobody has open, that it lies on `on`, which is seen the same.
    fn relink(&self, vm: VmId, layer: LayerFile, on: LayerFile) -> Result<(), VolumeError>;

    /// Puts all that was written to a layer on disk.
    fn sync(&self, vm: VmId, layer: LayerFile) -> Result<(), VolumeError>;

    /// Whether the layer is there.
    fn exists(&self, vm: VmId, layer: LayerFile) -> bool;

    /// Whether nothing was ever written to a layer that was made over another.
    fn is_blank(&self, vm: VmId, layer: LayerFile) -> Result<bool, VolumeError>;

    /// What the layer takes on disk.
    fn allocated_bytes(&self, vm: VmId, layer: LayerFile) -> Result<u64, VolumeError>;
}

/// Looks at a file that shall be copied in as a disk, without trusting it.
///
/// # Errors
/// A refusal when it is missing, in use, no image, or refers to other files.
pub fn inspect(path: &Path) -> Result<Inspected, Refusal> {
    use std::os::unix::fs::MetadataExt;
    let name = path.display();
    let missing = |error: std::io::Error| {
        Refusal::new(Code::DiskMissing)
            .detail(format!("{name}: {error}"))
            .hint("name a file that the server can read, by its whole path")
    };
    if !path.is_absolute() {
        return Err(missing(std::io::Error::other("not a whole path")));
    }
    let meta = std::fs::metadata(path).map_err(missing)?;
    if !meta.is_file() {
        return Err(Refusal::new(Code::DiskNotAnImage).detail(format!("{name} is no plain file")));
    }
    let file = std::fs::File::open(path).map_err(missing)?;
    refuse_if_written(&file, path)?;
    let allocated_bytes = meta.blocks() * 512;
    match header::read(&file).map_err(missing)? {
        header::Kind::Qcow2(header) => {
            header.refuse_strange(path)?;
            let format = tintype_model::layer::Format::Qcow2;
            Ok(Inspected { format, size_bytes: header.size_bytes, allocated_bytes })
        }
        header::Kind::Foreign(what) => Err(Refusal::new(Code::DiskNotAnImage)
            .detail(format!("{name} is a {what} image"))
            .hint("convert it first: qemu-img convert -O qcow2 FILE NEW")),
        header::Kind::Plain if meta.len() == 0 || meta.len() % 512 != 0 => {
            Err(Refusal::new(Code::DiskNotAnImage)
                .detail(format!(
                    "{name} has {} bytes, which is no whole number of sectors",
                    meta.len()
                ))
                .hint("a disk image is qcow2, or raw with a size that 512 divides"))
        }
        header::Kind::Plain => Ok(Inspected {
            format: tintype_model::layer::Format::Raw,
            size_bytes: meta.len(),
            allocated_bytes,
        }),
    }
}

/// Whether files in a folder can be opened past the page cache (`O_DIRECT`), which is for the
/// filesystem to say.
///
/// # Errors
/// When that cannot be tried.
pub fn takes_direct_io(folder: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = folder.join(".direct");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).custom_flags(libc::O_DIRECT | libc::O_NOFOLLOW);
    let taken = match options.open(&path) {
        Ok(_) => true,
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => false,
        Err(error) => return Err(error),
    };
    std::fs::remove_file(&path)?;
    Ok(taken)
}

/// A read lease is granted only where nobody has the file open for writing: the kernel knows of
/// every writer, and QEMU's own locks need not be asked.
fn refuse_if_written(file: &std::fs::File, path: &Path) -> Result<(), Refusal> {
    use std::os::fd::AsRawFd;
    // SAFETY: F_SETLEASE takes two integers; the descriptor is open for the length of the calls.
    let written = unsafe {
        let fd = file.as_raw_fd();
        let denied = libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) != 0
            && std::io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN);
        libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK);
        denied
    };
    if written {
        return Err(Refusal::new(Code::DiskInUse)
            .detail(format!("{} is open for writing elsewhere", path.display()))
            .hint("stop what uses it, or copy a snapshot of it"));
    }
    Ok(())
}
