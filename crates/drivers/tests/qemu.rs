//! What only the real QEMU shows: how its process is confined, and what it tells the guest.

mod bench;

use bench::qemu::QemuHost;
use bench::{Bench, Host, done};
use std::fs;
use tintype_drivers::qemu::commands::QueryVmGenerationId;
use tintype_drivers::{GuestUser, Volume};
use tintype_model::operation::Power;
use tintype_model::snapshot::Kind;

/// A revert gives the guest a new generation id, the one that is recorded.
#[test]
fn the_guest_is_told_that_it_was_reverted() {
    let bench = Bench::new(QemuHost::new());
    let vm = bench.running();
    let told = || {
        let instance = bench.host.qemu.instance(vm).unwrap();
        instance.qmp().run(&QueryVmGenerationId {}).unwrap().guid
    };
    assert_eq!(told(), bench.timeline(vm).vm.generation.to_string());
    let before = told();
    let one = bench.taken(vm, Kind::DiskAndMemory);
    done(bench.revert(vm, one, Power::AsTaken));
    assert_ne!(told(), before);
    assert_eq!(told(), bench.timeline(vm).vm.generation.to_string());
}

/// QEMU runs in a sandbox, and as an unprivileged user when we are root.
#[test]
fn a_guest_runs_confined() {
    let bench = Bench::new(QemuHost::new());
    let vm = bench.running();
    let pid = bench.host.qemu.instance(vm).unwrap().process().pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(field("Seccomp:"), "2", "system calls are filtered");
    match GuestUser::for_guests() {
        Some(user) => {
            assert_eq!(field("Uid:"), user.uid.to_string());
            assert_ne!(field("Uid:"), "0");
            assert_eq!(field("CapEff:"), "0000000000000000");
        }
        None => assert_eq!(field("Uid:"), rustix::process::getuid().as_raw().to_string()),
    }
}

/// Plain tools open what we leave: every layer is sound, and says what it lies on.
#[test]
fn plain_tools_open_every_layer() {
    let bench = Bench::new(QemuHost::new());
    let vm = bench.running();
    for number in 1..=8 {
        bench.host.write(vm, number);
        bench.taken(vm, Kind::Disk);
        bench.settle(vm);
    }
    done(bench.stop(vm));
    let timeline = bench.timeline(vm);
    for layer in timeline.layers.values() {
        assert!(bench.host.qemu.volume().exists(vm, layer.file()));
        let name = layer.file().name();
        let run = |args: &[&str]| {
            let mut command = std::process::Command::new("qemu-img");
            let output = command.args(args).current_dir(bench.host.folder(vm).path());
            let output = output.output().unwrap();
            assert!(output.status.success(), "{args:?}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        run(&["check", "-q", &name]);
        let info = run(&["info", "--output=json", &name]);
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        let parent = layer.parent.map(|id| timeline.layers[&id].file().name());
        assert_eq!(info["backing-filename"].as_str(), parent.as_deref());
    }
}
