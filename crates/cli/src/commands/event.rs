//! `tintype event`

use super::escape;
use super::list::all;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{print, table};
use clap::Subcommand;
use tintype_wire::rest::{Event, List};

#[derive(Debug, Subcommand)]
pub(crate) enum EventVerb {
    /// List what happened, and who did it
    #[command(visible_alias = "ls")]
    List {
        /// Only of this virtual machine
        #[arg(long)]
        vm: Option<String>,
    },
}

pub(crate) async fn run(context: &Context, verb: EventVerb) -> Result<(), Failure> {
    let EventVerb::List { vm } = verb;
    let of = vm.map(|vm| format!("&vm={}", escape(&vm))).unwrap_or_default();
    let events: List<Event> = all(context, &format!("/v1/events?limit=1000{of}")).await?;
    print(context, &events, |events| {
        let row = |event: &Event| {
            let (user, kind) = (event.user.clone(), event.kind.clone());
            vec![event.at.clone(), user, kind, event.detail.clone()]
        };
        let rows: Vec<Vec<String>> = events.items.iter().map(row).collect();
        table(&["WHEN", "WHO", "WHAT", "DETAIL"], &rows)
    });
    Ok(())
}
