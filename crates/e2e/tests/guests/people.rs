//! People, as they meet the real binary: TLS, signing in, tokens, who sees what.

use anyhow::{Context, Result};
use std::io::Write;
use std::process::{Command, Stdio};
use tintype_e2e::{TestVm, World};

/// C1, R13, P21: an account with a user who signs in by password and sees nothing but the
/// account's.
#[test]
fn a_user_signs_in_and_sees_the_own_account() -> Result<()> {
    let world = World::start()?;
    TestVm::create(&world, "foreign", 64)?;
    let run = |args: &[&str]| world.run(args);
    run(&["domain", "create", "lab"])?;
    run(&["account", "create", "students", "--domain", "lab", "--snapshot-quota", "2"])?;
    let password = "a long enough password";
    let asked = world.command(&["user", "create", "ann", "--account", "students", "--password"])?;
    let made = answer(asked, &format!("{password}\n{password}\n"))?;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let home = tempfile::tempdir()?;
    let ann = |args: &[&str]| -> Result<Command> {
        let mut command = world.command(args)?;
        command.env("HOME", home.path()).env_remove("TINTYPE_TOKEN");
        Ok(command)
    };
    let wrong = answer(ann(&["login", "ann"])?, "not the password\n")?;
    assert_eq!(wrong.status.code(), Some(5));
    let signed_in = answer(ann(&["login", "ann"])?, &format!("{password}\n"))?;
    assert!(signed_in.status.success(), "{}", String::from_utf8_lossy(&signed_in.stderr));
    use std::os::unix::fs::PermissionsExt;
    let kept = std::fs::metadata(home.path().join(".config/tintype/config.toml"))?;
    assert_eq!(kept.permissions().mode() & 0o777, 0o600);
    let seen = answer(ann(&["vm", "list"])?, "")?;
    assert!(String::from_utf8_lossy(&seen.stdout).contains("no virtual machines"));
    let other = answer(ann(&["vm", "show", "foreign"])?, "")?;
    assert_eq!(other.status.code(), Some(4), "what one does not see is not there");
    let hosts = answer(ann(&["host", "list"])?, "")?;
    assert_eq!(hosts.status.code(), Some(5), "what is seen may still be forbidden");
    let own = answer(ann(&["vm", "create", "mine", "--memory", "64MiB", "--disk", "16MiB"])?, "")?;
    assert!(own.status.success(), "{}", String::from_utf8_lossy(&own.stderr));
    let account = run(&["account", "show", "students"])?;
    assert!(account.contains("0 of 2"), "{account}");
    for name in ["one", "two"] {
        let taken = answer(ann(&["snapshot", "create", "mine", name])?, "")?;
        assert!(taken.status.success());
    }
    let third = answer(ann(&["snapshot", "create", "mine", "three"])?, "")?;
    assert_eq!(third.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&third.stderr).contains("quota"));
    Ok(())
}

fn answer(mut command: Command, typed: &str) -> Result<std::process::Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().context("it is piped")?.write_all(typed.as_bytes())?;
    Ok(child.wait_with_output()?)
}

/// Safe by default: an address that others reach is not listened at without TLS; with a certificate
/// the command line trusts whom it is told to, and nobody else.
#[test]
fn others_are_spoken_to_by_tls_only() -> Result<()> {
    let mut world = World::start()?;
    let refused = world.command(&["serve", "--listen", "0.0.0.0:0", "--data"])?;
    let mut refused = refused;
    let data = tempfile::tempdir()?;
    let output = refused.arg(data.path()).output()?;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("TLS is off"));
    let made =
        rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    let (cert, key) = (data.path().join("cert.pem"), data.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    world.serve(&["--tls-cert", &cert, "--tls-key", &key])?;
    let output = world.tintype(&["vm", "list", "--ca", &cert])?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = world.tintype(&["vm", "list"])?;
    assert_eq!(output.status.code(), Some(1), "an unknown certificate is not trusted");
    Ok(())
}
