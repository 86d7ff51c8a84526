//! `tintype`: every virtual machine has a timeline.

mod args;
mod commands;
mod connect;
mod context;
mod failure;
mod limit;
mod output;
mod secret;
mod size;

use args::{Args, Verb};
use clap::Parser;
use commands::database::DatabaseVerb;
use failure::Failure;
use std::process::ExitCode;

/// A timeline is many small values, read and let go of for each request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    if let Verb::Watchdog = args.verb {
        commands::serve::watchdog();
        return ExitCode::SUCCESS;
    }
    if let Verb::PageServer { job } = &args.verb {
        let served = commands::serve::page_server(job);
        return served.map_or_else(|failure| failure.report(args.output), |()| ExitCode::SUCCESS);
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
    let Args { verb, output, wait, no_wait, yes, queue, force, url, token, ca } = args;
    let server = connect::Server { url, token, ca };
    let context = || -> Result<context::Context, Failure> {
        let wait = wait || !no_wait;
        Ok(context::Context { client: server.client()?, output, wait, yes, queue, force })
    };
    match verb {
        Verb::Serve(serve) => commands::serve::serve(serve).await,
        Verb::Watchdog | Verb::PageServer { .. } => Ok(()),
        Verb::Vm(verb) => commands::vm::run(&context()?, verb).await,
        Verb::Disk(verb) => commands::disk::run(&context()?, verb).await,
        Verb::Snapshot(verb) => commands::snapshot::run(&context()?, verb).await,
        Verb::Operation(verb) => commands::operation::run(&context()?, verb).await,
        Verb::Host(verb) => commands::host::hosts(&context()?, verb).await,
        Verb::Hypervisor(verb) => commands::host::hypervisors(&context()?, verb).await,
        Verb::Pool(verb) => commands::host::pools(&context()?, verb).await,
        Verb::Profile(verb) => commands::profile::run(&context()?, verb).await,
        Verb::Domain(verb) => commands::people::domains(&context()?, verb).await,
        Verb::Account(verb) => commands::people::accounts(&context()?, verb).await,
        Verb::User(verb) => commands::people::users(&context()?, verb).await,
        Verb::Token(verb) => commands::token::run(&context()?, verb).await,
        Verb::Login { user } => commands::token::login(&server, user).await,
        Verb::Database(DatabaseVerb::Save { file }) => {
            commands::database::save(&context()?, &file).await
        }
        Verb::Database(DatabaseVerb::Restore { file, data }) => {
            commands::database::restore(&file, data)
        }
        Verb::Event(verb) => commands::event::run(&context()?, verb).await,
        Verb::Completion { shell } => {
            commands::completion::print(shell);
            Ok(())
        }
    }
}
