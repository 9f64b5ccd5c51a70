use api::{Code, Reconciliation, ReconciliationDocument};

use crate::context::Context;
use crate::error::CliError;
use crate::table::Table;

/// Make ledger and runtimes agree, now
///
/// The broker does this by itself: at its start, every few seconds (`server.broker.reconcile_interval`) and when an agent ends. It
/// shows what was found; with --dry-run nothing is done about it. Of a runtime that does not answer nothing is changed.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  berthold reconcile --dry-run
  berthold reconcile --json | jq '.reconciliation.findings[].action'")]
pub(crate) struct Arguments {
    /// Only show what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<(), CliError> {
    let reconciliation = context.client().await?.reconcile(arguments.dry_run).await?;
    let output = &context.output;
    if output.is_json() {
        return output.document(&ReconciliationDocument { reconciliation });
    }
    for runtime in &reconciliation.unreachable {
        output.warn(&format!(
            "{} does not answer, so nothing of it is changed: {}",
            runtime.runtime, runtime.detail
        ));
    }
    if reconciliation.findings.is_empty() {
        let all = if reconciliation.unreachable.is_empty() { "the runtimes" } else { "the others" };
        output.say(&format!("the ledger and {all} agree"));
        return Ok(());
    }
    output.print(&table(&reconciliation).render(output.width()))?;
    match reconciliation.not_done.len() {
        0 => Ok(()),
        left => {
            let message = format!("{left} of {} could not be done", reconciliation.findings.len());
            Err(CliError::failed(Code::Failed, message)
                .with_hint("the broker's log says why: it is tried again"))
        }
    }
}

fn table(reconciliation: &Reconciliation) -> Table {
    let last = if reconciliation.dry_run { "WOULD DO" } else { "DONE" };
    let mut table = Table::new(&["AGENT", "RUNTIME", "ID", last]).expendable(&["ID", "RUNTIME"]);
    for finding in &reconciliation.findings {
        let detail = if reconciliation.not_done.contains(finding) {
            format!("not done: {}", finding.detail)
        } else {
            finding.detail.clone()
        };
        let id: String = finding.id.as_deref().unwrap_or_default().chars().take(12).collect();
        table.row([finding.agent.as_str().into(), finding.runtime.as_str().into(), id.into(), detail.into()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use api::{Finding, ReconcileAction};

    use super::*;

    #[test]
    fn a_table_of_findings() {
        let finding = |agent: &str, id: Option<&str>, action, detail: &str| Finding {
            agent: agent.to_owned(),
            runtime: "docker".to_owned(),
            id: id.map(str::to_owned),
            action,
            detail: detail.to_owned(),
        };
        let reconciliation = Reconciliation {
            dry_run: true,
            findings: vec![
                finding(
                    "default/dev",
                    Some("3f2a9c0d11e2aa"),
                    ReconcileAction::Adopt,
                    "it runs and has no lease",
                ),
                finding("shop/api", None, ReconcileAction::Wait, "nothing is there"),
            ],
            not_done: Vec::new(),
            unreachable: Vec::new(),
        };
        insta::assert_snapshot!(table(&reconciliation).render(None), @"
        AGENT        RUNTIME  ID            WOULD DO
        default/dev  docker   3f2a9c0d11e2  it runs and has no lease
        shop/api     docker   -             nothing is there
        ");
        let not_done = vec![reconciliation.findings[0].clone()];
        let reconciliation = Reconciliation { dry_run: false, not_done, ..reconciliation };
        insta::assert_snapshot!(table(&reconciliation).render(None), @"
        AGENT        RUNTIME  ID            DONE
        default/dev  docker   3f2a9c0d11e2  not done: it runs and has no lease
        shop/api     docker   -             nothing is there
        ");
    }
}
