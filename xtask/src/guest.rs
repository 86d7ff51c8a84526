//! Builds the test guest from distribution packages: a Debian cloud kernel, busybox, our program.

use anyhow::{Context, Result, bail};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the guest drives: disks, the agent's port and the power button.
const MODULES: [&str; 5] = ["virtio_pci", "virtio_blk", "virtio_console", "button", "evdev"];

/// Builds `target/guest/{vmlinuz,initrd.gz}`; quick when nothing changed.
pub(crate) fn build(root: &Path) -> Result<()> {
    let out = root.join("target/guest");
    fs::create_dir_all(&out)?;
    let program = build_program(root)?;
    let kernel = unpack_kernel(&out)?;
    let files = digest(&[&program, Path::new("/bin/busybox")])?;
    let stamp = format!("{}\n{}\n{files}\n", kernel.version, MODULES.join(" "));
    let stamp_file = out.join("stamp");
    if fs::read_to_string(&stamp_file).is_ok_and(|old| old == stamp)
        && out.join("initrd.gz").exists()
    {
        return Ok(());
    }
    fs::copy(kernel.image(), out.join("vmlinuz"))?;
    pack_initrd(&out, &program, &kernel)?;
    fs::write(stamp_file, stamp)?;
    println!("guest: {} with Linux {}", out.display(), kernel.version);
    Ok(())
}

struct Kernel {
    tree: PathBuf,
    version: String,
}

impl Kernel {
    fn image(&self) -> PathBuf {
        self.tree.join(format!("boot/vmlinuz-{}", self.version))
    }
}

fn build_program(root: &Path) -> Result<PathBuf> {
    let target = root.join("target/guest-program");
    run(Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--release", "--package", "tintype-guest"])
        .args(["--target", "x86_64-unknown-linux-gnu", "--target-dir"])
        .arg(&target)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .current_dir(root))?;
    Ok(target.join("x86_64-unknown-linux-gnu/release/tintype-guest"))
}

/// Downloads the newest cloud kernel package and unpacks it, without installing it.
fn unpack_kernel(out: &Path) -> Result<Kernel> {
    let tree = out.join("kernel");
    if let Some(version) = unpacked_version(&tree) {
        return Ok(Kernel { tree, version });
    }
    let package = kernel_package().or_else(|_| {
        apt_update()?;
        kernel_package()
    })?;
    let download = out.join("download");
    fs::create_dir_all(&download)?;
    // apt fetches as an unprivileged user, who has to be able to write here.
    fs::set_permissions(&download, fs::Permissions::from_mode(0o777))?;
    let fetch =
        || run(Command::new("apt-get").args(["download", "-qq", &package]).current_dir(&download));
    if fetch().is_err() {
        apt_update()?;
        fetch()?;
    }
    let deb = fs::read_dir(&download)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&package)))
        .context("apt-get downloaded no kernel package")?;
    let _ = fs::remove_dir_all(&tree);
    run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&tree))?;
    let version = unpacked_version(&tree).context("the kernel package holds no boot/vmlinuz-*")?;
    Ok(Kernel { tree, version })
}

fn unpacked_version(tree: &Path) -> Option<String> {
    fs::read_dir(tree.join("boot")).ok()?.find_map(|entry| {
        entry.ok()?.file_name().to_str()?.strip_prefix("vmlinuz-").map(str::to_owned)
    })
}

fn kernel_package() -> Result<String> {
    output(Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]))?
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .map(str::to_owned)
        .context("apt knows no linux-image-cloud-amd64")
}

fn apt_update() -> Result<()> {
    let root = output(Command::new("id").arg("-u"))?.trim() == "0";
    let mut command = Command::new(if root { "apt-get" } else { "sudo" });
    if !root {
        command.arg("apt-get");
    }
    run(command.args(["update", "-qq"]))
}

fn pack_initrd(out: &Path, program: &Path, kernel: &Kernel) -> Result<()> {
    let tree = out.join("initrd");
    let _ = fs::remove_dir_all(&tree);
    for dir in ["bin", "proc", "sys", "dev", "modules"] {
        fs::create_dir_all(tree.join(dir))?;
    }
    fs::copy("/bin/busybox", tree.join("bin/busybox"))?;
    fs::copy(program, tree.join("bin/tintype-guest"))?;
    let mut init = String::from(
        "#!/bin/busybox sh\nbusybox=/bin/busybox\n$busybox mount -t proc proc /proc\n\
         $busybox mount -t sysfs sys /sys\n$busybox mount -t devtmpfs dev /dev\n",
    );
    for module in modules_in_order(kernel)? {
        let name =
            module.file_name().context("a module has a name")?.to_string_lossy().into_owned();
        let target = tree.join("modules").join(&name);
        fs::copy(&module, &target)?;
        let mut plain = name.clone();
        if let Some(stem) = name.strip_suffix(".xz") {
            run(Command::new("xz").arg("--decompress").arg("--force").arg(&target))?;
            plain = stem.to_owned();
        }
        init.push_str(&format!("$busybox insmod /modules/{plain}\n"));
    }
    init.push_str("exec /bin/tintype-guest\n");
    let init_file = tree.join("init");
    fs::write(&init_file, init)?;
    fs::set_permissions(&init_file, fs::Permissions::from_mode(0o755))?;
    run(Command::new("sh")
        .arg("-c")
        .arg("find . | cpio --quiet -o -H newc | gzip -1 > ../initrd.gz")
        .current_dir(&tree))
}

/// The module files with what they depend on, each once, dependencies first.
fn modules_in_order(kernel: &Kernel) -> Result<Vec<PathBuf>> {
    let tree = fs::canonicalize(&kernel.tree)?;
    run(Command::new("/sbin/depmod").arg("-b").arg(&tree).arg(&kernel.version))?;
    let mut files = Vec::new();
    for module in MODULES {
        let listing = output(
            Command::new("/sbin/modprobe")
                .args(["--show-depends", "-S", &kernel.version, "-d"])
                .arg(&tree)
                .arg(module),
        )?;
        for line in listing.lines() {
            if let Some(path) = line.strip_prefix("insmod ") {
                let path = PathBuf::from(path.trim());
                if !files.contains(&path) {
                    files.push(path);
                }
            }
        }
    }
    Ok(files)
}

/// What `sha256sum` says of the files.
fn digest(files: &[&Path]) -> Result<String> {
    output(Command::new("sha256sum").args(files))
}

pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}
