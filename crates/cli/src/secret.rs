//! Asking for what nobody shall see.

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::io::{self, BufRead, IsTerminal, Write};

/// Asks for a secret without showing what is typed; from a pipe it is the next line.
pub(crate) fn ask(prompt: &str) -> io::Result<String> {
    let stdin = io::stdin();
    let shown = if stdin.is_terminal() {
        eprint!("{prompt}");
        io::stderr().flush()?;
        let shown = tcgetattr(&stdin)?;
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Now, &hidden)?;
        Some(shown)
    } else {
        None
    };
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if let Some(shown) = shown {
        tcsetattr(&stdin, OptionalActions::Now, &shown)?;
        eprintln!();
    }
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
