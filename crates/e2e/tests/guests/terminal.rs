//! What the command line does for somebody who sits before it: a terminal, made by `script`.

use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use tintype_e2e::{MEMORY_MIB, TestVm, World};

/// Runs the command line on a terminal and answers what it asks; tells whether it did as told, and
/// what it said.
fn on_a_terminal(world: &World, args: &[&str], answer: &str) -> Result<(bool, String)> {
    let command = world.command(args)?;
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let line: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &line.join(" "), "/dev/null"]);
    for (name, value) in command.get_envs() {
        terminal.env(name, value.context("it is set")?);
    }
    let mut child = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    // Held until it has ended: where nothing can be typed any more a terminal hangs up.
    let mut keyboard = child.stdin.take().context("it has a keyboard")?;
    keyboard.write_all(answer.as_bytes())?;
    let mut said = String::new();
    child.stdout.take().context("it has a screen")?.read_to_string(&mut said)?;
    Ok((child.wait()?.success(), said))
}

/// R4: on a terminal, revert and delete say what is lost and ask; `--yes` and programs are not
/// asked.
#[test]
fn what_is_lost_is_said_and_asked_for() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::create(&world, "web", MEMORY_MIB)?;
    vm.snapshot(&world, "one", "disk")?;
    for (args, lost) in [
        (&["snapshot", "revert", "web", "one"][..], "what web did since"),
        (&["snapshot", "delete", "web", "one"], "deletes  \"one\""),
        (&["vm", "delete", "web"], "deletes  \"one\""),
    ] {
        let (done, said) = on_a_terminal(&world, args, "n\n")?;
        ensure!(said.contains(lost) && said.contains("Go on? [y/N]"), "{args:?}: {said}");
        ensure!(!done && said.contains("nothing was done"), "{args:?}: {said}");
    }
    vm.named(&world, "one")?;
    let (done, said) = on_a_terminal(&world, &["snapshot", "delete", "web", "one"], "y\n")?;
    ensure!(done && said.contains("Go on?"), "{said}");
    ensure!(vm.snapshots(&world)?.is_empty(), "it is still there");
    vm.snapshot(&world, "two", "disk")?;
    let (done, said) = on_a_terminal(&world, &["snapshot", "delete", "web", "two", "--yes"], "")?;
    ensure!(done && !said.contains("Go on?"), "{said}");
    ensure!(vm.snapshots(&world)?.is_empty(), "it is still there");
    Ok(())
}
