//! The command line of a QEMU.

use super::commands::{ChardevBackend, ChardevChange, ChardevSocket};
use super::export;
use super::folder::Folder;
use super::instance::Instance;
use super::qmp::QmpError;
use crate::firmware::firmware;
use crate::guest_user::GuestUser;
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use tintype_model::LayerId;
use tintype_model::capability::Capabilities;
use tintype_model::config::{Accel, Firmware, Network, Role};
use tintype_model::effect::{DiskChain, Export, Launch};
use tintype_model::layer::{Format, LayerFile};

/// How a guest begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Begin {
    /// At once, from its firmware.
    Run,
    /// From its firmware, when told.
    Held,
    /// From memory that will be loaded.
    Load,
    /// As [`Begin::Load`], and nothing it sends reaches anybody.
    Apart,
}

/// The name of the device through which the guest agent is reached.
pub(super) const AGENT: &str = "agent";

/// The name of the block node that is a layer.
pub(super) fn layer_node(layer: LayerId) -> String {
    format!("l{}", short(layer))
}

/// The name of the block node that is a layer's file.
pub(super) fn file_node(layer: LayerId) -> String {
    format!("f{}", short(layer))
}

/// Node names have 31 characters at most; 30 digits of a random id are as unique as all.
fn short(layer: LayerId) -> String {
    layer.0.simple().to_string().split_off(2)
}

/// The options that open a layer over `backing`; its file is opened as the layer is.
pub(super) fn layer_options(
    file: LayerFile,
    writable: bool,
    backing: Option<LayerId>,
    direct_io: bool,
) -> Value {
    let mut options = json!({
        "driver": file.format.as_str(),
        "node-name": layer_node(file.id),
        "read-only": !writable,
        "discard": "unmap",
        "cache": { "direct": direct_io },
        "file": {
            "driver": "file",
            "node-name": file_node(file.id),
            "filename": file.name(),
            "auto-read-only": true,
            "discard": "unmap",
        },
    });
    if file.format == Format::Qcow2 {
        options["backing"] = backing.map_or(Value::Null, |layer| layer_node(layer).into());
    }
    options
}

/// The serial port's character device.
const SERIAL: &str = "serial";

/// The socket of a local client.
fn console_socket(number: u32) -> String {
    format!("run/{number}/console.sock")
}

fn socket(id: &str, path: &str) -> String {
    format!("socket,id={id},path={path},server=on,wait=off")
}

/// Connects the console of an instance whose devices have been loaded.
pub(super) fn join_console(
    instance: &Instance,
    capabilities: &Capabilities,
) -> Result<(), QmpError> {
    let backend = if capabilities.shared_console.is_yes() {
        ChardevBackend::Hub { chardevs: vec!["console", "tty"] }
    } else {
        let addr = ChardevSocket::Unix { path: console_socket(instance.number()) };
        ChardevBackend::Socket { addr, server: true, wait: false }
    };
    instance.qmp().run(&ChardevChange { id: SERIAL, backend }).map(drop)
}

/// The command that starts an instance; descriptors it is to inherit are opened here.
pub(super) fn command(
    folder: &Folder,
    number: u32,
    launch: &Launch,
    capabilities: &Capabilities,
    begin: Begin,
) -> std::io::Result<Command> {
    let mut args = Args(Vec::new());
    args.add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    args.board(launch, firmware().map(|(code, _)| code));
    for socket in ["qmp", "watch"] {
        args.add("-qmp", format!("unix:run/{number}/{socket}.sock,server=on,wait=off"));
    }
    let shared = capabilities.shared_console.is_yes();
    match begin {
        Begin::Run | Begin::Held => args.console(number, shared),
        Begin::Load | Begin::Apart => args.console_later(number, shared),
    }
    args.guest_agent(socket(AGENT, &format!("run/{number}/agent.sock")));
    args.disks(&launch.disks, folder.is_direct());
    let taps = match begin {
        Begin::Apart => args.no_network(launch),
        Begin::Run | Begin::Held | Begin::Load => args.network(launch)?,
    };
    args.kernel(launch);
    match begin {
        Begin::Run => {}
        Begin::Held => args.0.push("-S".to_owned()),
        Begin::Load | Begin::Apart => {
            // It waits for our word also when its memory says that it ran.
            args.0.push("-S".to_owned());
            args.add("-incoming", "defer");
        }
    }
    let log = File::create(folder.log(number))?;
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(args.0)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let user = folder.user().map(|user| GuestUser {
        gid: kvm_group(launch.config.platform.accel).unwrap_or(user.gid),
        ..user
    });
    detach(&mut command, File::open(folder.path())?, user, taps);
    Ok(command)
}

/// The options that plain QEMU starts an exported machine with, in its folder: the same devices in
/// the same order, or its memory would not load. The character device of its serial port is the
/// caller's.
pub(super) fn exported(export: &Export) -> Vec<String> {
    let mut launch = export.launch.clone();
    let mut names = Vec::new();
    for (disk, file) in launch.disks.iter_mut().zip(export::disk_files(export)) {
        // What the machine writes goes to a file over what was exported.
        let now = LayerFile { id: disk.chain[1].id, format: Format::Qcow2 };
        disk.chain = vec![now, disk.chain[0]];
        names.push((disk.chain[1].name(), file.clone()));
        names.push((now.name(), format!("now-{file}")));
    }
    let mut args = Args(Vec::new());
    args.board(&launch, Some(export::CODE));
    args.add("-serial", format!("chardev:{SERIAL}"));
    args.guest_agent(format!("null,id={AGENT}"));
    args.disks(&launch.disks, false);
    for (n, nic) in launch.config.nics.iter().enumerate() {
        match &nic.network {
            Network::User => args.add("-netdev", format!("user,id=net{n}")),
            Network::Tap(name) => {
                let tap = format!("tap,id=net{n},ifname={name},script=no,downscript=no");
                args.add("-netdev", tap);
            }
        }
        args.add("-device", format!("virtio-net-pci,netdev=net{n},id=nic{n},mac={}", nic.mac));
    }
    args.kernel(&launch);
    if export.memory {
        args.add("-global", "migration.mapped-ram=on");
        args.add("-incoming", format!("file:{}", export::MEMORY));
    }
    for option in &mut args.0 {
        for (name, file) in &names {
            *option = option.replace(name, file);
        }
    }
    args.0
}

/// The group that may use /dev/kvm, where not everybody may.
fn kvm_group(accel: Accel) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let device = std::fs::metadata("/dev/kvm").ok()?;
    (accel == Accel::Kvm && device.mode() & 0o006 != 0o006).then(|| device.gid())
}

/// Makes the process one that outlives us: a session of its own, the machine's folder to work in
/// (entered before privileges are dropped: what is above it may be closed to the user), the taps.
pub(super) fn detach(
    command: &mut Command,
    folder: File,
    user: Option<GuestUser>,
    taps: Vec<File>,
) {
    use rustix::process::{fchdir, setsid};
    // SAFETY: between fork and exec only system calls are made, which are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            setsid()?;
            fchdir(&folder)?;
            for tap in &taps {
                rustix::io::fcntl_setfd(tap, rustix::io::FdFlags::empty())?;
            }
            if let Some(user) = user {
                user.become_it()?;
            }
            Ok(())
        });
    }
}

struct Args(Vec<String>);

impl Args {
    fn add(&mut self, option: &str, value: impl Into<String>) {
        self.0.extend([option.to_owned(), value.into()]);
    }

    /// All but consoles, disks and network.
    fn board(&mut self, launch: &Launch, firmware_code: Option<&str>) {
        let config = &launch.config;
        self.add("-name", format!("guest={},debug-threads=on", launch.name));
        self.0.extend(["-no-user-config", "-nodefaults"].map(str::to_owned));
        self.add("-display", "none");
        self.machine(launch, firmware_code);
        self.add("-smp", config.vcpus.to_string());
        self.add("-m", format!("size={}k", config.memory_bytes / 1024));
        self.add("-object", format!("memory-backend-ram,id=pc.ram,size={}", config.memory_bytes));
        self.add("-uuid", launch.vm.to_string());
        self.add("-device", format!("vmgenid,guid={}", launch.generation));
        self.add("-rtc", "base=utc");
    }

    fn machine(&mut self, launch: &Launch, firmware_code: Option<&str>) {
        let platform = &launch.config.platform;
        let mut machine = format!("{},memory-backend=pc.ram", platform.machine);
        if launch.config.firmware == Firmware::Uefi
            && let Some(code) = firmware_code
        {
            let options = json!({
                "driver": "raw", "node-name": "firmware", "read-only": true,
                "file": { "driver": "file", "filename": code, "auto-read-only": true },
            });
            self.add("-blockdev", options.to_string());
            let vars = launch.disks.iter().find(|disk| disk.role == Role::Firmware);
            machine.push_str(",pflash0=firmware");
            if let Some(vars) = vars {
                machine.push_str(&format!(",pflash1={}", layer_node(vars.chain[0].id)));
            }
        }
        self.add("-machine", machine);
        let accel = match platform.accel {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg,thread=multi",
        };
        self.add("-accel", accel);
        self.add("-cpu", platform.cpu.clone());
    }

    /// The serial console: one socket for a local client, one for us. Where QEMU cannot join them,
    /// the local client's is the only one.
    fn console(&mut self, number: u32, shared: bool) {
        if shared {
            self.console_sockets(number);
            self.add("-chardev", format!("hub,id={SERIAL},chardevs.0=console,chardevs.1=tty"));
        } else {
            self.add("-chardev", socket(SERIAL, &console_socket(number)));
        }
        self.add("-serial", format!("chardev:{SERIAL}"));
    }

    /// The serial console of a machine whose devices are loaded: it leads nowhere until
    /// [`join_console`] is called. A port that waited for a slow reader when it was saved waits on
    /// for good if there is none when it is loaded; what leads nowhere takes all.
    fn console_later(&mut self, number: u32, shared: bool) {
        if shared {
            self.console_sockets(number);
        }
        self.add("-chardev", format!("file,id={SERIAL},path=/dev/null"));
        self.add("-serial", format!("chardev:{SERIAL}"));
    }

    fn console_sockets(&mut self, number: u32) {
        self.add("-chardev", socket("console", &console_socket(number)));
        self.add("-chardev", socket("tty", &format!("run/{number}/tty.sock")));
    }

    /// The port at which a guest agent listens, by the name that agents look for.
    fn guest_agent(&mut self, chardev: String) {
        self.add("-chardev", chardev);
        self.add("-device", "virtio-serial-pci");
        self.add("-device", format!("virtserialport,chardev={AGENT},name=org.qemu.guest_agent.0"));
    }

    fn disks(&mut self, disks: &[DiskChain], direct_io: bool) {
        for disk in disks {
            for (at, &file) in disk.chain.iter().enumerate().rev() {
                let backing = disk.chain.get(at + 1).map(|beneath| beneath.id);
                let options = layer_options(file, at == 0, backing, direct_io);
                self.add("-blockdev", options.to_string());
            }
        }
        let data = disks.iter().filter(|disk| disk.role == Role::Data);
        for (n, disk) in data.enumerate() {
            let serial = &disk.disk.0.simple().to_string()[..20];
            let node = layer_node(disk.chain[0].id);
            let options = format!("drive={node},id=disk{n},serial={serial},bootindex={}", n + 1);
            self.add("-device", format!("virtio-blk-pci,{options}"));
        }
    }

    /// Cards that are connected to nothing. A guest that was on a tap may have asked its card for
    /// what only a tap can do; its memory loads with one, which leads nowhere and is down.
    fn no_network(&mut self, launch: &Launch) -> Vec<File> {
        let mut taps = Vec::new();
        for (n, nic) in launch.config.nics.iter().enumerate() {
            let mut options = format!("virtio-net-pci,id=nic{n},mac={}", nic.mac);
            // Without the right to make one it is tried without.
            if matches!(nic.network, Network::Tap(_))
                && let Ok(tap) = open_tap(NEW_TAP)
            {
                self.add("-netdev", format!("tap,id=net{n},fd={}", tap.as_raw_fd()));
                options.push_str(&format!(",netdev=net{n}"));
                taps.push(tap);
            }
            self.add("-device", options);
        }
        taps
    }

    fn network(&mut self, launch: &Launch) -> std::io::Result<Vec<File>> {
        let mut taps = Vec::new();
        for (n, nic) in launch.config.nics.iter().enumerate() {
            match &nic.network {
                Network::User => self.add("-netdev", format!("user,id=net{n}")),
                Network::Tap(name) => {
                    let tap = open_tap(name)?;
                    self.add("-netdev", format!("tap,id=net{n},fd={}", tap.as_raw_fd()));
                    taps.push(tap);
                }
            }
            let options = format!("netdev=net{n},id=nic{n},mac={}", nic.mac);
            self.add("-device", format!("virtio-net-pci,{options}"));
        }
        Ok(taps)
    }

    fn kernel(&mut self, launch: &Launch) {
        if let Some(kernel) = &launch.config.kernel {
            self.add("-kernel", "kernel");
            if kernel.initrd {
                self.add("-initrd", "initrd");
            }
            self.add("-append", kernel.append.clone());
        }
    }
}

/// The name of a tap interface that goes when it is closed; the kernel finds a number.
const NEW_TAP: &str = "tintype%d";

/// Opens a tap interface with a queue of our own, so that the next instance can open one before
/// this one is gone.
fn open_tap(name: &str) -> std::io::Result<File> {
    /// `struct ifreq` of <linux/if.h>: the name, then the flags in a union of 24 bytes.
    #[repr(C)]
    struct Request {
        name: [u8; 16],
        flags: u16,
        rest: [u8; 22],
    }
    /// IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE of <linux/if_tun.h>.
    const FLAGS: u16 = 0x0002 | 0x1000 | 0x4000 | 0x0100;
    /// TUNSETIFF, _IOW('T', 202, int).
    const SET_INTERFACE: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<i32>(b'T', 202);

    if name.is_empty() || name.len() > 15 {
        return Err(std::io::Error::other(format!("{name:?} names no interface")));
    }
    let mut request = Request { name: [0; 16], flags: FLAGS, rest: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    let device = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: TUNSETIFF reads one struct ifreq, which Request is laid out as.
    unsafe {
        let call = rustix::ioctl::Setter::<SET_INTERFACE, Request>::new(request);
        rustix::ioctl::ioctl(&device, call)?;
    }
    Ok(device)
}
