//! A layer over another is the image that `qemu-img` makes, and is told apart once it was written
//! to.

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;
use tintype_drivers::volume::Volume;
use tintype_drivers::volume::qcow2::Qcow2;
use tintype_model::layer::{Format, LayerFile};
use tintype_model::{LayerId, VmId};
use uuid::Uuid;

/// How [`Qcow2`] asks `qemu-img` for layers that lie on none.
const CREATE: [&str; 6] =
    ["create", "-q", "-f", "qcow2", "-o", "extended_l2=on,cluster_size=128k,lazy_refcounts=off"];

/// The folder of a machine without layers, in a pool that goes with it.
fn machine() -> (TempDir, Qcow2, VmId) {
    let root = tempfile::tempdir().unwrap();
    let volume = Qcow2::new(root.path().to_owned(), None);
    let vm = VmId(Uuid::new_v4());
    volume.prepare(vm).unwrap();
    (root, volume, vm)
}

fn layer(format: Format) -> LayerFile {
    LayerFile { id: LayerId(Uuid::new_v4()), format }
}

fn tool(folder: &Path, name: &str, args: &[&str]) -> String {
    let output = Command::new(name).current_dir(folder).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// What `qemu-img` says of an image, but for its name and what it takes on disk.
fn described(folder: &Path, name: &str) -> Value {
    let mut info: Value =
        serde_json::from_str(&tool(folder, "qemu-img", &["info", "--output=json", name])).unwrap();
    let all = info.as_object_mut().unwrap();
    for own in ["filename", "actual-size", "children"] {
        all.remove(own);
    }
    info
}

#[test]
fn an_overlay_is_what_qemu_img_makes() {
    let (root, volume, vm) = machine();
    let folder = &root.path().join(vm.to_string());
    for (format, size) in [
        (Format::Raw, 1 << 20),
        (Format::Qcow2, (1 << 30) - 512),
        (Format::Qcow2, 1 << 30),
        (Format::Qcow2, (1 << 30) + 512),
        (Format::Raw, 1 << 40),
        (Format::Qcow2, 3 << 50),
    ] {
        let (on, over) = (layer(format), layer(Format::Qcow2));
        let (on_name, name) = (on.name(), over.name());
        if format == Format::Raw {
            fs::File::create(folder.join(&on_name)).unwrap().set_len(size).unwrap();
        } else {
            let size = size.to_string();
            tool(folder, "qemu-img", &[&CREATE[..], &[&on_name, &size]].concat());
        }
        // Made again, it is made anew.
        volume.overlay(vm, over, on).unwrap();
        volume.overlay(vm, over, on).unwrap();
        let beneath = ["-b", &on_name, "-F", format.as_str()];
        tool(folder, "qemu-img", &[&CREATE[..], &beneath[..], &["theirs"][..]].concat());
        assert_eq!(described(folder, &name), described(folder, "theirs"), "{size}");
        tool(folder, "qemu-img", &["check", "-q", &name]);
        assert!(volume.is_blank(vm, over).unwrap());

        let last = format!("write -P 7 {} 512", size - 512);
        tool(folder, "qemu-io", &["-c", "write -P 5 65536 512", "-c", &last, &name]);
        tool(folder, "qemu-img", &["check", "-q", &name]);
        let reads = ["-c", "read -P 5 65536 512", "-c", &last.replace("write", "read"), &name];
        let read = tool(folder, "qemu-io", &reads);
        assert!(!read.contains("verification failed"), "{read}");
        assert!(!volume.is_blank(vm, over).unwrap());
    }
}

#[test]
fn one_that_somebody_writes_to_is_not_made_anew() {
    let (root, volume, vm) = machine();
    let folder = root.path().join(vm.to_string());
    let (on, over) = (layer(Format::Raw), layer(Format::Qcow2));
    fs::File::create(folder.join(on.name())).unwrap().set_len(1 << 20).unwrap();
    volume.overlay(vm, over, on).unwrap();
    let writer = fs::OpenOptions::new().write(true).open(folder.join(over.name())).unwrap();
    let refused = volume.overlay(vm, over, on).unwrap_err().to_string();
    assert!(refused.contains("open for writing"), "{refused}");
    drop(writer);
    volume.overlay(vm, over, on).unwrap();
}
