//! `tintype host check` and `tintype host adopt`

use super::escape;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{confirm, print, table};
use serde_json::json;
use tintype_wire::rest::{Adopted, Finding, Host, HostCheck, List, Repaired};

/// The address of a host, or of the only one there is.
async fn address(context: &Context, host: Option<String>) -> Result<String, Failure> {
    let host = match host {
        Some(host) => host,
        None => {
            let hosts: List<Host> = context.client.get("/v1/hosts").await?;
            let [only] = hosts.items.as_slice() else {
                return Err(Failure::plain("there are several hosts", "name one"));
            };
            only.name.clone()
        }
    };
    Ok(format!("/v1/hosts/{}", escape(&host)))
}

pub(crate) async fn check(context: &Context, host: Option<String>) -> Result<(), Failure> {
    let path = address(context, host).await? + "/check";
    let check: HostCheck = context.client.post(&path, &json!({})).await?;
    print(context, &check, show_check);
    Ok(())
}

fn show_check(check: &HostCheck) -> String {
    let mut text = String::new();
    for finding in &check.findings {
        text += &show_finding(finding);
        text += &format!("  repair: {}\n", finding.repair.as_deref().unwrap_or("for you"));
    }
    for stranger in &check.strangers {
        let name = stranger.name.as_deref().unwrap_or("unknown");
        let what = match &stranger.problem {
            None => "tintype host adopt takes it up".to_owned(),
            Some(problem) => format!("cannot be taken up: {problem}"),
        };
        text += &format!("{} ({name}) is not in the database; {what}\n", stranger.vm);
    }
    for busy in &check.busy {
        text += &format!("{busy} was not looked at: something is done to it\n");
    }
    if text.is_empty() {
        text += "everything is as it was recorded\n";
    }
    text
}

fn show_finding(finding: &Finding) -> String {
    let mut affects = Vec::new();
    if finding.affects_now {
        affects.push("NOW".to_owned());
    }
    affects.extend(finding.affects.iter().map(ToString::to_string));
    let affects = if affects.is_empty() { "nothing".to_owned() } else { affects.join(", ") };
    format!("{}: {}\n  affects: {affects}\n", finding.vm_name, finding.detail)
}

pub(crate) async fn repair(
    context: &Context,
    host: Option<String>,
    dry_run: bool,
) -> Result<(), Failure> {
    let path = address(context, host).await? + "/repair";
    let dry = format!("{path}?dry_run=true");
    let mut repaired: List<Repaired> = context.client.post(&dry, &json!({})).await?;
    if !dry_run && !repaired.items.is_empty() {
        confirm(context, &show_repaired(&repaired))?;
        repaired = context.client.post(&path, &json!({})).await?;
    }
    print(context, &repaired, show_repaired);
    Ok(())
}

fn show_repaired(repaired: &List<Repaired>) -> String {
    let mut text = String::new();
    for Repaired { finding, result, problem } in &repaired.items {
        text += &show_finding(finding);
        let repair = finding.repair.as_deref().unwrap_or("nothing that can be done from here");
        text += &match (result, problem) {
            (Some(result), _) => format!("  done: {result}\n"),
            (None, Some(problem)) => format!("  failed: {}: {}\n", problem.title, problem.detail),
            (None, None) => format!("  repair: {repair}\n"),
        };
    }
    if text.is_empty() {
        text += "everything is as it was recorded\n";
    }
    text
}

pub(crate) async fn adopt(
    context: &Context,
    host: Option<String>,
    dry_run: bool,
) -> Result<(), Failure> {
    let path = format!("{}/adopt?dry_run={dry_run}", address(context, host).await?);
    let adopted: List<Adopted> = context.client.post(&path, &json!({})).await?;
    print(context, &adopted, |adopted| {
        let row = |vm: &Adopted| {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let what = match (&vm.problem, vm.known) {
                (Some(problem), _) => problem.clone(),
                (None, true) => "known as it was before".to_owned(),
                (None, false) => String::new(),
            };
            let (name, account) = (text(&vm.name), text(&vm.account));
            vec![name, account, vm.snapshots.to_string(), vm.vm.to_string(), what]
        };
        let rows: Vec<Vec<String>> = adopted.items.iter().map(row).collect();
        table(&["NAME", "ACCOUNT", "SNAPSHOTS", "ID", "NOTE"], &rows)
    });
    Ok(())
}
