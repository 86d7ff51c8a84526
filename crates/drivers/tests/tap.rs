//! A machine on a tap interface can be reverted: the new process opens the interface before the
//! old one has let go of it. In a network namespace made for the test.

mod bench;

use bench::qemu::QemuHost;
use bench::{Bench, Host, done};
use std::process::{Command, Stdio};
use tintype_model::change::Change;
use tintype_model::config::{Network, Nic};
use tintype_model::operation::{Command as Asked, Power};
use tintype_model::snapshot::Kind;

const INSIDE: &str = "TINTYPE_TEST_IN_NAMESPACE";

/// Runs this test again in a network namespace of its own, as root of it.
#[test]
fn a_machine_on_a_tap_is_reverted() {
    if std::env::var_os(INSIDE).is_some() {
        return on_a_tap();
    }
    let root = rustix::process::geteuid().is_root();
    let options: &[&str] = if root { &["--net"] } else { &["--map-root-user", "--net"] };
    let status = Command::new("unshare")
        .args(options)
        .arg("--")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "a_machine_on_a_tap_is_reverted"])
        .env(INSIDE, "1")
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

fn ip(args: &[&str]) {
    assert!(Command::new("ip").args(args).status().unwrap().success(), "ip {args:?}");
}

fn on_a_tap() {
    ip(&["tuntap", "add", "dev", "tap7", "mode", "tap", "multi_queue"]);
    ip(&["link", "set", "tap7", "up"]);
    let bench = Bench::new(QemuHost::new());
    let vm = bench.create(1);
    let mut config = bench.timeline(vm).vm.config;
    let network = Network::Tap("tap7".to_owned());
    config.nics = vec![Nic { mac: "52:54:00:00:00:01".to_owned(), network }];
    bench.apply(vm, &[Change::VmConfig(config)]);
    done(bench.run(vm, Asked::StartVm));
    bench.host.wait_until_up(vm);
    bench.host.write(vm, 1);
    let one = bench.taken(vm, Kind::Disk);
    bench.host.write(vm, 2);
    done(bench.revert(vm, one, Power::Start));
    assert_eq!(bench.host.read(vm).disks, [1]);
}
