//! `tintype completion`

use crate::args::Args;
use clap::CommandFactory;
use clap_complete::Shell;

pub(crate) fn print(shell: Shell) {
    clap_complete::generate(shell, &mut Args::command(), "tintype", &mut std::io::stdout());
}
