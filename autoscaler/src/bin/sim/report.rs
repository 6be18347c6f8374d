//! The text of `docs/autoscaling.md`.

use std::fmt::Write;
use std::path::PathBuf;

use crate::costs;
use crate::plot;
use crate::score::Score;
use crate::study::{Contender, Study, Tuned};
use crate::traces::{ALL, PARTITIONS, SLO_SECONDS};

/// The table alone, for the terminal.
pub fn headline(study: &Study) -> String {
    format!("{}\n{}", table(study), aims(study))
}

/// Every file below `docs`.
pub fn files(study: &Study) -> Vec<(PathBuf, String)> {
    let mut files = vec![(PathBuf::from("autoscaling.md"), text(study))];
    for (index, trace) in ALL.iter().enumerate() {
        files.push((PathBuf::from(picture(trace.name)), plot::trace(study, index)));
    }
    files.push((PathBuf::from(picture("tunings")), plot::tunings(study)));
    files
}

fn picture(name: &str) -> String {
    format!("autoscaling/{}.svg", name.replace(' ', "-"))
}

fn text(study: &Study) -> String {
    let mut text = String::from(
        "<!-- Written by `make sim`. Do not edit: CI compares it. -->\n\
         # Autoscaling, simulated\n\n\
         How the autoscaler of Sluice does against the two usual ways to scale Kafka consumers, on the same model of a \
         consumer group, under the same load. It is a simulation: the algorithms are real (ours is the crate `autoscaler/` \
         itself; the others follow the published algorithms step by step), the workers are not.\n\n",
    );
    text.push_str("## Result\n\n");
    text.push_str(&table(study));
    text.push('\n');
    text.push_str(&aims(study));
    text.push_str(&lost(study));
    text.push_str(
        "\n*Violation s*: seconds in which some record waited longer than the target. *Replica s*: pods times seconds, \
         starting ones too. *Flaps*: changes that undid another of the ten minutes before. In `poison`, the partition \
         that stands still is not counted: nobody's scaling helps it.\n\n",
    );
    text.push_str(&setup(study));
    text.push_str(&tunings(study));
    text.push_str(&other_costs(study));
    text.push_str("## The traces\n\n");
    for trace in &ALL {
        let _ = write!(text, "**{}**: {}.\n\n![{}]({})\n\n", trace.name, trace.about, trace.name, picture(trace.name));
    }
    while text.ends_with("\n\n") {
        text.pop();
    }
    text
}

fn table(study: &Study) -> String {
    let mut text = String::from("| trace |");
    for contender in study.contenders() {
        let _ = write!(text, " {0}: violation s | replica s | rebalances | flaps |", contender.name);
    }
    text.push_str("\n|---|");
    text.push_str(&"---:|".repeat(12));
    text.push('\n');
    for (index, trace) in ALL.iter().enumerate() {
        let _ = write!(text, "| {}{} |", trace.name, if trace.changes { " ↕" } else { "" });
        for contender in study.contenders() {
            text.push_str(&cells(contender.best().runs[index].score));
        }
        text.push('\n');
    }
    for (name, changing) in [("**sum of ↕** (load changes)", true), ("**sum of all**", false)] {
        let _ = write!(text, "| {name} |");
        for contender in study.contenders() {
            text.push_str(&cells(contender.best().sum(|trace| trace.changes || !changing)));
        }
        text.push('\n');
    }
    text
}

fn cells(score: Score) -> String {
    let Score { violations, replica_seconds, rebalances, flaps } = score;
    format!(" {violations} | {replica_seconds} | {rebalances} | {flaps} |")
}

/// One sweep: a difference that depends on when a scaler happened to look.
const SAME_SECONDS: u32 = costs::SWEEP_SECONDS;

/// The traces on which ours violates more, or costs more at the same violations, than the better of the others.
fn worse(study: &Study) -> Vec<(&'static str, Score, &'static str, Score)> {
    let mut worse = Vec::new();
    for (index, trace) in ALL.iter().enumerate() {
        let ours = study.ours.best().runs[index].score;
        let score = |contender: &Contender| (contender.best().runs[index].score, contender.name);
        let (other, name) = [score(&study.hpa), score(&study.keda)]
            .into_iter()
            .min_by_key(|(score, _)| (score.violations, score.replica_seconds))
            .unwrap_or_default();
        let later = ours.violations > other.violations + SAME_SECONDS;
        let dearer = ours.violations + SAME_SECONDS >= other.violations && ours.replica_seconds > other.replica_seconds;
        if later || dearer {
            worse.push((trace.name, ours, name, other));
        }
    }
    worse
}

fn aims(study: &Study) -> String {
    let ours = study.ours.best().changing();
    let fewest = |f: fn(Score) -> u32| f(study.hpa.best().changing()).min(f(study.keda.best().changing()));
    let violations = fewest(|score| score.violations);
    let replicas = fewest(|score| score.replica_seconds);
    let constant = study.ours.best().runs[0].score.flaps;
    let more_violations =
        worse(study).iter().filter(|(_, ours, _, other)| ours.violations > other.violations + SAME_SECONDS).count();
    let cheap = cheap(study, ours);
    let verdict = |met: bool| if met { "met" } else { "**not met**" };
    format!(
        "- More violations than the better of the two on no trace (up to one sweep of {SAME_SECONDS} s is equal): {} ({more_violations} traces).\n\
         - At most half the violations of the better one, over ↕: {} ({} against {violations}).\n\
         - At no more replica seconds than the cheaper one, over ↕: {} ({} against {replicas}).\n\
         - No flap under constant load: {} ({constant}).\n\
         - For comparison: {cheap}.\n",
        verdict(more_violations == 0),
        verdict(ours.violations * 2 <= violations),
        ours.violations,
        verdict(ours.replica_seconds <= replicas),
        ours.replica_seconds,
        verdict(constant == 0),
    )
}

/// The others are in the table as they violate least; this is what they do for our money.
fn cheap(study: &Study, ours: Score) -> String {
    let all = study.hpa.tried.iter().chain(&study.keda.tried).map(Tuned::changing);
    let affordable = all.filter(|score| score.replica_seconds <= ours.replica_seconds);
    affordable.map(|score| score.violations).min().map_or_else(
        || "none of their tunings costs as few replica seconds".to_owned(),
        |fewest| {
            format!(
                "of all their tunings that cost no more replica seconds than ours, the best violates for {fewest} s"
            )
        },
    )
}

fn lost(study: &Study) -> String {
    let mut text = String::new();
    for (trace, ours, name, other) in worse(study) {
        let _ = if ours.violations > other.violations + SAME_SECONDS {
            writeln!(
                text,
                "- Lost: on `{trace}` {} violation s against {} of {name}.",
                ours.violations, other.violations
            )
        } else {
            writeln!(
                text,
                "- Dearer: on `{trace}` {} replica s against {} of {name}, at the same violations.",
                ours.replica_seconds, other.replica_seconds
            )
        };
    }
    text
}

fn setup(study: &Study) -> String {
    let mut text = format!(
        "## What is modelled\n\n\
         A topic of {PARTITIONS} partitions, a target of {SLO_SECONDS} s, 1 to {PARTITIONS} replicas (0 in `sleep` for \
         those that can), noise in the arrivals with a fixed seed. Workers share their capacity among their \
         partitions, a partition uses at most one of {} threads. The group rebalances cooperatively: what moves stands \
         still, the rest goes on. Transactions leave one commit marker behind the last record of each partition; a \
         tool that subtracts offsets sees it as a lag of 1 that never goes away.\n\n\
         | cost | value | where it comes from |\n|---|---:|---|\n",
        costs::LANES
    );
    for cost in costs::ALL {
        let source = cost.measured.unwrap_or("**not yet measured on the real stack**");
        let _ = writeln!(text, "| {} | {} {} | {source} |", cost.name, cost.value, cost.unit);
    }
    let _ = write!(
        text,
        "| pause in `rebalance cost` | {} s | a choice |\n\
         | spread of starts | +{:.0} % | a choice: a jump is several rebalances |\n\n\
         Our sweep: every {} s. HPA: a sync every {} s on a lag that is scraped every {} s, tolerance 0.1, the default \
         behaviour upwards. KEDA: its HPA asks Kafka at each sync; {} s `pollingInterval` and {} s `cooldownPeriod` \
         between 0 and 1. A lag that cannot be read freezes both, as it does in life.\n\n",
        costs::SLOW_REBALANCE_SECONDS,
        costs::START_UP_SPREAD * 100.0,
        costs::SWEEP_SECONDS,
        costs::HPA_SYNC_SECONDS,
        costs::SCRAPE_SECONDS,
        costs::KEDA_POLL_SECONDS,
        costs::KEDA_COOLDOWN_SECONDS,
    );
    text.push_str("In the table run:\n\n");
    for contender in study.contenders() {
        let _ = writeln!(text, "- {}: {}", contender.name, contender.best().kind.describe());
    }
    text.push('\n');
    text
}

fn other_costs(study: &Study) -> String {
    let mut text = String::from(
        "## With other costs\n\nThe tunings of the first table, sums over ↕, if workers start and partitions move faster or \
         slower (`rebalance cost` keeps its pause).\n\n| start of a worker | pause |",
    );
    for contender in study.contenders() {
        let _ = write!(text, " {0}: violation s | replica s | rebalances | flaps |", contender.name);
    }
    text.push_str("\n|---:|---:|");
    text.push_str(&"---:|".repeat(12));
    text.push('\n');
    for (start, pause, scores) in &study.other_costs {
        let _ = write!(text, "| {start} s | {pause} s |");
        for score in scores {
            text.push_str(&cells(*score));
        }
        text.push('\n');
    }
    text.push('\n');
    text
}

fn tunings(study: &Study) -> String {
    let mut text = String::from(
        "## Tunings\n\n\
         A lag threshold has to be found by trying: too low buys replicas, too high is late. Each of the others was \
         run with every value below; the table has the one with the fewest violations over ↕ (of those within 5 % \
         of it the cheapest). Ours has its defaults, the rest is there to see what the settings do. Sums over ↕.\n\n\
         ![violations and replica seconds of all tunings](autoscaling/tunings.svg)\n\n\
         | scaler | tuning | violation s | replica s | rebalances | flaps |\n|---|---|---:|---:|---:|---:|\n",
    );
    for contender in study.contenders() {
        for (index, tuned) in contender.tried.iter().enumerate() {
            let mark = if index == contender.chosen { "**" } else { "" };
            let Tuned { kind, .. } = tuned;
            let _ =
                writeln!(text, "| {mark}{}{mark} | {} |{}", contender.name, kind.describe(), cells(tuned.changing()));
        }
    }
    text.push('\n');
    text
}
