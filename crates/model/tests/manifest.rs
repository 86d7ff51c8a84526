//! Manifests are read as what anybody may have written.

use proptest::prelude::{any, proptest};
use tintype_model::manifest::{Manifest, layer_file};

#[test]
fn what_is_no_manifest_is_refused() {
    for text in ["", "{}", "null", "{\"format\":2}", "{\"format\":1}", "[1]"] {
        assert!(Manifest::read(text).is_err(), "{text}");
    }
    let other = Manifest::read("{\"format\":2}").unwrap_err();
    assert_eq!(other, "it has format 2, and 1 is known");
}

#[test]
fn only_names_as_we_write_them_are_layers() {
    let id = "00000000-0000-4000-8000-000000000001";
    assert!(layer_file(&format!("{id}.qcow2")).is_some());
    assert!(layer_file(&format!("{id}.raw")).is_some());
    for name in [
        format!("{id}.memory"),
        format!("{id}.qcow2.old"),
        format!("{}.qcow2", id.replace('-', "")),
        format!("../{id}.qcow2"),
        id.to_owned(),
    ] {
        assert!(layer_file(&name).is_none(), "{name}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_fail(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let text = String::from_utf8_lossy(&bytes);
        let _ = Manifest::read(&text);
        let _ = layer_file(&text);
    }
}
