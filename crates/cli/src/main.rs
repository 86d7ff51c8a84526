//! `tintype`: every virtual machine has a timeline.

mod args;
mod commands;
mod connect;
mod context;
mod failure;
mod output;
mod size;

use args::{Args, Verb};
use clap::Parser;
use failure::Failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Args::parse();
    if let Verb::Watchdog = args.verb {
        commands::serve::watchdog();
        return ExitCode::SUCCESS;
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::from(error).report(args.output),
    };
    let output = args.output;
    let result = runtime.block_on(run(args));
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(output),
    }
}

async fn run(args: Args) -> Result<(), Failure> {
    let Args { verb, output, wait, no_wait, yes, url, token } = args;
    let context = || -> Result<context::Context, Failure> {
        Ok(context::Context {
            client: connect::client(url.as_deref(), token.as_deref())?,
            output,
            wait: wait || !no_wait,
            yes,
        })
    };
    match verb {
        Verb::Serve(serve) => commands::serve::serve(serve).await,
        Verb::Watchdog => Ok(()),
        Verb::Vm(verb) => commands::vm::run(&context()?, verb).await,
        Verb::Disk(verb) => commands::disk::run(&context()?, verb).await,
        Verb::Snapshot(verb) => commands::snapshot::run(&context()?, verb).await,
        Verb::Operation(verb) => commands::operation::run(&context()?, verb).await,
        Verb::Host(verb) => commands::host::hosts(&context()?, verb).await,
        Verb::Pool(verb) => commands::host::pools(&context()?, verb).await,
        Verb::Completion { shell } => {
            commands::completion::print(shell);
            Ok(())
        }
    }
}
