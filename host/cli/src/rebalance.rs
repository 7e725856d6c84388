//! `rebalance`: show which moves would make the nodes more even, make them, and hold moves up.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use maitred_client::Client;
use maitred_protocol::limits::{MOVES_MAX, MOVES_PER_SECOND_MAX};
use maitred_protocol::{Move, RebalanceAsk, RebalancePlan, Spread, Switch, TypeName};
use serde_json::json;

use crate::connect::Shell;
use crate::failure::Failure;
use crate::json as shape;
use crate::out::table;
use crate::progress::Progress;

/// How often it is looked how many moves are left.
const LOOK: Duration = Duration::from_millis(200);
/// How long nobody may be able to say anything before the following ends.
const SILENCE: Duration = Duration::from_secs(30);

/// Make the nodes more even, by moving processes from fuller ones to emptier ones
///
/// Shows the moves that would be made, with what each gains, and changes nothing: that takes
/// --apply. What counts is used units by capacity, over the nodes that may be given processes; a
/// gain is by how much their standard deviation shrinks. A move stops a process and creates it
/// elsewhere; one that is void by its turn is left out.
///
/// Example: maitred rebalance
///
/// Example: maitred rebalance --type room --max 100 --apply --rate 20
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Rebalance {
    #[command(subcommand)]
    switch: Option<Moves>,
    /// Only processes of this type
    #[arg(long = "type", value_name = "TYPE")]
    type_name: Option<TypeName>,
    /// Moves at most, 1 to 2000
    #[arg(long, value_name = "N", default_value_t = MOVES_MAX as u32,
          value_parser = clap::value_parser!(u32).range(1..=MOVES_MAX as i64))]
    max: u32,
    /// Only show the moves; that is also what happens without --apply
    #[arg(long, conflicts_with = "apply")]
    plan: bool,
    /// Make the moves
    #[arg(long)]
    apply: bool,
    /// Moves in a second, 1 to 10000
    #[arg(long, value_name = "N", default_value_t = 50, requires = "apply",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MOVES_PER_SECOND_MAX)))]
    rate: u32,
    /// End when the moves are taken up; they go on by themselves
    #[arg(long, requires = "apply")]
    no_wait: bool,
}

/// Hold up moves, or let them go on.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum Moves {
    /// Hold up all moves, those of drains as well; what is under way is ended
    ///
    /// Example: maitred rebalance suspend
    Suspend,
    /// Let moves go on
    ///
    /// Example: maitred rebalance resume
    Resume,
}

impl Rebalance {
    pub(crate) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let client = shell.client().await?;
        if let Some(switch) = self.switch {
            return switch.run(shell, &client).await;
        }
        let ask = RebalanceAsk {
            type_name: self.type_name.clone(),
            moves_max: self.max,
        };
        let plan = client.plan_rebalance(ask.clone()).await?;
        if !self.apply || plan.moves.is_empty() {
            let mut body = shape::rebalance(&plan);
            body["applied"] = json!(0);
            return shell.out.show("Rebalance", body, || text(&plan));
        }
        let moves = plan.moves.len();
        client.rebalance(plan.moves.clone(), self.rate).await?;
        let mut body = shape::rebalance(&plan);
        body["applied"] = json!(moves);
        if self.no_wait {
            return shell.out.show("Rebalance", body, || {
                format!("{moves} moves are taken up; `maitred status` shows how many are left")
            });
        }
        follow(shell, &client, moves as u64).await?;
        let now = client.plan_rebalance(ask).await?;
        body["now"] = shape::rebalance(&now);
        shell.out.show("Rebalance", body, || {
            let (before, after) = (spread(plan.before), spread(now.before));
            format!("{moves} moves made or void\nbefore  {before}\nnow     {after}")
        })
    }
}

/// Looks on until no move is left.
async fn follow(shell: &Shell, client: &Client, moves: u64) -> Result<(), Failure> {
    let mut progress = Progress::new(shell, moves);
    let mut heard = Instant::now();
    loop {
        match client.status().await {
            Ok(status) => {
                heard = Instant::now();
                let left = u64::from(status.moves_left);
                if left == 0 {
                    return Ok(());
                }
                let mut text = format!("{left} left; Ctrl-C ends only the looking on");
                if status.moves_suspended {
                    text = format!("{left} left, suspended: maitred rebalance resume");
                }
                progress.show(moves.saturating_sub(left), text);
            }
            // A leader may have been lost.
            Err(error) if heard.elapsed() > SILENCE => return Err(error.into()),
            Err(_) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl Moves {
    async fn run(self, shell: &Shell, client: &Client) -> Result<(), Failure> {
        let suspended = matches!(self, Self::Suspend);
        let revision = client.suspend(Switch::Moves, suspended).await?;
        let body = json!({ "revision": revision.to_string(), "moves_suspended": suspended });
        shell.out.show("Done", body, || match self {
            Self::Suspend => "moves are suspended, until `maitred rebalance resume`".to_owned(),
            Self::Resume => "moves go on".to_owned(),
        })
    }
}

fn percent(share: f32) -> String {
    format!("{:.1}%", share * 100.0)
}

fn spread(spread: Spread) -> String {
    format!(
        "{} to {} used, mean {}, deviation {:.4}",
        percent(spread.least),
        percent(spread.most),
        percent(spread.mean),
        spread.deviation
    )
}

fn text(plan: &RebalancePlan) -> String {
    let before = spread(plan.before);
    if plan.moves.is_empty() {
        return format!("balanced: no move would make the nodes more even\n{before}");
    }
    let row = |one: &Move| {
        vec![
            one.key.to_string(),
            one.from.to_string(),
            one.to.to_string(),
            format!("{:.5}", one.gain),
        ]
    };
    format!(
        "{}\n\n{} moves\nbefore  {before}\nafter   {}\nnothing was changed; --apply makes them",
        table(
            &["PROCESS", "FROM", "TO", "GAIN"],
            plan.moves.iter().map(row)
        ),
        plan.moves.len(),
        spread(plan.after),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use maitred_protocol::{Incarnation, NodeName, ProcessKey, Revision};

    #[test]
    fn a_plan_shows_its_moves_and_none_is_balanced() {
        let mut plan = RebalancePlan {
            moves: vec![Move {
                key: ProcessKey::new("room", "7").unwrap(),
                incarnation: Incarnation(9),
                from: NodeName::new("eu-1").unwrap(),
                to: NodeName::new("eu-2").unwrap(),
                gain: 0.012_5,
            }],
            before: Spread {
                least: 0.1,
                mean: 0.3,
                most: 0.5,
                deviation: 0.2,
            },
            after: Spread::default(),
            revision: Revision(3),
        };
        let shown = text(&plan);
        assert!(shown.contains("room/7   eu-1  eu-2  0.01250"), "{shown}");
        assert!(shown.contains("10.0% to 50.0% used"), "{shown}");
        assert!(shown.contains("--apply"), "{shown}");
        assert_eq!(shape::rebalance(&plan)["moves"][0]["incarnation"], "9");
        plan.moves.clear();
        assert!(text(&plan).starts_with("balanced"));
    }
}
