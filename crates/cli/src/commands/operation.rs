//! `tintype operation`

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{card, follow, print, table};
use clap::Subcommand;
use tintype_wire::rest::{List, Operation};

#[derive(Debug, Subcommand)]
pub(crate) enum OperationVerb {
    /// List operations
    #[command(visible_alias = "ls")]
    List {
        /// Only of this virtual machine
        #[arg(long)]
        vm: Option<String>,
        /// Only in this state
        #[arg(long)]
        state: Option<String>,
    },
    /// Show an operation
    Show {
        /// Its id
        id: uuid::Uuid,
    },
    /// Wait until an operation has ended
    Wait {
        /// Its id
        id: uuid::Uuid,
    },
    /// Take an operation back: one in line leaves it, a create that runs is undone
    Cancel {
        /// Its id
        id: uuid::Uuid,
    },
}

pub(crate) async fn run(context: &Context, verb: OperationVerb) -> Result<(), Failure> {
    let client = &context.client;
    match verb {
        OperationVerb::List { vm, state } => {
            let mut path = "/v1/operations?limit=1000".to_owned();
            for (name, value) in [("vm", vm), ("state", state)] {
                if let Some(value) = value {
                    path.push_str(&format!("&{name}={}", super::escape(&value)));
                }
            }
            let operations: List<Operation> = client.get(&path).await?;
            print(context, &operations, |operations| {
                let rows: Vec<Vec<String>> = operations.items.iter().map(row).collect();
                table(&["ID", "KIND", "STATE", "PROGRESS", "CREATED"], &rows)
            });
        }
        OperationVerb::Show { id } => {
            let operation: Operation = client.get(&format!("/v1/operations/{id}")).await?;
            print(context, &operation, show);
        }
        OperationVerb::Wait { id } => {
            let operation: Operation = client.get(&format!("/v1/operations/{id}")).await?;
            follow(context, operation, show).await?;
        }
        OperationVerb::Cancel { id } => {
            let path = format!("/v1/operations/{id}/cancel?wait=60s");
            let operation: Operation = client.post(&path, &serde_json::json!({})).await?;
            print(context, &operation, show);
        }
    }
    Ok(())
}

fn row(operation: &Operation) -> Vec<String> {
    vec![
        operation.id.to_string(),
        operation.kind.clone(),
        operation.state.clone(),
        format!("{:.0} %", operation.progress * 100.0),
        operation.created_at.clone(),
    ]
}

fn show(operation: &Operation) -> String {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    card(&[
        ("id", operation.id.to_string()),
        ("kind", operation.kind.clone()),
        ("state", operation.state.clone()),
        ("virtual machine", operation.vm.to_string()),
        ("snapshot", or_dash(operation.snapshot.map(|id| id.to_string()))),
        ("progress", format!("{:.0} %, {}", operation.progress * 100.0, operation.step)),
        ("error", or_dash(operation.error.as_ref().map(ToString::to_string))),
        ("created", operation.created_at.clone()),
        ("ended", or_dash(operation.ended_at.clone())),
    ])
}
