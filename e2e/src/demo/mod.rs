//! `make demo`: the whole product once, on the real thing, and the proof that nothing was lost, doubled or stale.
//!
//! ```text
//! cluster.rs  kubectl and helm: credentials, chart, namespace, the example as it is in examples/orders
//! guard.rs    on an existing cluster: what is not the demo's own is left alone
//! workers.rs  worker pods and their processes: kill -9, restarts, memory
//! traffic.rs  reference data, orders at a pace, the topic that somebody else writes
//! verdict.rs  what Kafka's own console consumer and a Redis reader see, before the judge (crate::checker)
//! made.rs     topics, users and rights as the servers tell them      stages.rs  where the time goes
//! first.rs    the README's first pipeline, followed as it is printed
//! ```
//!
//! [`run`] goes through them in this order; its exit says whether everything held.

mod cluster;
mod first;
mod guard;
mod made;
mod stages;
mod traffic;
mod verdict;
mod workers;

use std::time::Duration;

use crate::datapath::HarnessError;
use crate::generator::Random;
use crate::stack::{Progress, Stack};
use cluster::Cluster;
use stages::Stages;
use traffic::Traffic;
use verdict::Verdict;
use workers::Victim;

/// Namespace of the example.
pub(crate) const NAMESPACE: &str = "shop";
/// Installation id of the demo.
pub(crate) const INSTANCE: &str = "demo";

/// What to show.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Orders to produce.
    pub orders: u64,
    /// Orders a second.
    pub per_second: u32,
    /// Seed of the orders, of the worker that is killed and of the moment.
    pub seed: u64,
    /// On an existing cluster: take over topics and keys of the example's names that are there.
    pub overwrite: bool,
}

/// Runs the demo on the stack; true if everything held.
pub fn run(options: &Options) -> Result<bool, HarnessError> {
    let progress = Progress::start();
    let stack = Stack::attach()?;
    let cluster = Cluster::new(&stack)?;
    if !stack.is_local() && !options.overwrite {
        guard::nothing_of_others(&stack, &cluster)?;
    }
    let shown = show(options, &progress, &stack, &cluster);
    if !matches!(shown, Ok(true)) {
        cluster.print_trouble();
    }
    shown
}

fn show(options: &Options, progress: &Progress, stack: &Stack, cluster: &Cluster<'_>) -> Result<bool, HarnessError> {
    let mut stages = Stages::start();
    let traffic = set_up(options, progress, stack, cluster, &mut stages)?;
    let (verdict, pace, killed) = drive(options, progress, stack, cluster, &traffic, &mut stages)?;
    cluster.wait_ready(Duration::from_secs(120))?;
    println!("\n{}", cluster.resources()?);
    println!("{verdict}");
    println!("{}", made::made(stack)?);
    println!("rate      {pace}");
    let memory_holds = workers::print_memory(stack, cluster)?;
    let restarts_hold = workers::print_restarts(cluster, &killed)?;
    stages.end("report");
    if stack.is_local() {
        progress.line("demo", "the README's first pipeline: kubectl apply, kafka-console-producer, GET");
        first::follow(stack, cluster)?;
        stages.end("first pipeline");
    }
    println!("time      {stages}");
    let good = verdict.holds() && memory_holds && restarts_hold;
    println!("\n{}", if good { "Everything held." } else { "SOMETHING DID NOT HOLD: see above." });
    if good {
        println!("{}", next(stack));
    }
    Ok(good)
}

/// Everything before the first order: nothing of an earlier run is left, the example is ready.
fn set_up(
    options: &Options,
    progress: &Progress,
    stack: &Stack,
    cluster: &Cluster<'_>,
    stages: &mut Stages,
) -> Result<Traffic, HarnessError> {
    cluster.forget_earlier(progress)?;
    progress.line("demo", "credentials and namespaces, then helm install --wait");
    cluster.install()?;
    stages.end("install");
    let traffic = Traffic::prepare(stack, options)?;
    progress.line("demo", format!("reference data: {} products", traffic.products()));
    stages.end("reference data");
    progress.line("demo", "kubectl apply -k examples/orders, kubectl wait --for=condition=Ready");
    cluster.apply_example()?;
    cluster.wait_ready(Duration::from_secs(180))?;
    let ready = stages.end("until ready");
    progress.line("demo", format!("ready after {:.1} s", ready.as_secs_f64()));
    println!("\n{}", cluster.resources()?);
    Ok(traffic)
}

/// Orders, a death in the middle, and what became of it all. Hands back how fast it was and the pod whose worker was killed.
fn drive(
    options: &Options,
    progress: &Progress,
    stack: &Stack,
    cluster: &Cluster<'_>,
    traffic: &Traffic,
    stages: &mut Stages,
) -> Result<(Verdict, String, String), HarnessError> {
    let mut random = Random::new(options.seed);
    let victim = Victim::choose(stack, cluster, &mut random)?;
    // Not in the first or last twentieth: there is a transaction to die in.
    let victim_at = options.orders * u64::from(50 + random.below(900)) / 1_000;
    progress.line("demo", format!("{} orders at {} a second", options.orders, options.per_second));
    stages.end("choosing a victim");
    let loading = traffic.start(stack)?;
    loading.wait_for(victim_at)?;
    victim.kill(cluster)?;
    progress.line("demo", format!("kill -9 of {victim} after {victim_at} orders"));
    let loaded = loading.finish()?;
    let producing = stages.end("producing");
    progress.line("demo", "all orders produced; waiting until every group has read everything");
    verdict::wait_done(stack, Duration::from_secs(180))?;
    let catching_up = stages.end("catching up");
    let pace = format!(
        "{:.0} orders/s offered; the last of four groups at its end {:.1} s after the last order (the partitions of the \
         killed worker wait until its session ends, up to 12 s after its death)",
        options.orders as f64 / producing.as_secs_f64(),
        catching_up.as_secs_f64(),
    );
    progress.line("demo", format!("reading everything back with {}", verdict::witness(stack)?));
    let verdict = verdict::judge(stack, &loaded)?;
    stages.end("reading back");
    Ok((verdict, pace, victim.pod().to_owned()))
}

fn next(stack: &Stack) -> String {
    let (shell, end) = if stack.is_local() {
        (" (`make shell` opens a shell in its network)", "`make demo-down` ends it.")
    } else {
        ("", "`helm -n sluice-system uninstall sluice` and `kubectl delete namespace shop` end it.")
    };
    format!(
        "
Everything stays up. Three things to try{shell}:
  kubectl -n shop scale evp enrich-orders --replicas=3 && kubectl -n shop get evp,csync -w
  kubectl -n shop explain evp.spec.steps && kubectl -n shop describe evp project-orders
  kubectl delete -k examples/orders            # topics and Redis keys stay; users and ACLs go
{end}"
    )
}
