//! All runs: first the tuning of each scaler over all traces, then the table.

use crate::scalers::{HpaTuning, KedaTuning, Kind, OursTuning};
use crate::score::{Run, Score, run};
use crate::traces::{ALL, Trace};

/// Of the noise.
pub const SEED: u64 = 20_261_121;

/// One tuning over all traces.
pub struct Tuned {
    pub kind: Kind,
    pub runs: Vec<Run>,
}

impl Tuned {
    fn new(kind: Kind) -> Self {
        Self { kind, runs: ALL.iter().map(|trace| run(trace, kind, SEED)).collect() }
    }

    /// Summed over the traces that `filter` takes.
    pub fn sum(&self, filter: impl Fn(&Trace) -> bool) -> Score {
        let mut sum = Score::default();
        ALL.iter().zip(&self.runs).filter(|(trace, _)| filter(trace)).for_each(|(_, run)| sum += run.score);
        sum
    }

    /// Over the traces with load changes.
    pub fn changing(&self) -> Score {
        self.sum(|trace| trace.changes)
    }
}

/// A scaler with all tunings that were tried.
pub struct Contender {
    pub name: &'static str,
    pub tried: Vec<Tuned>,
    /// The one in the table.
    pub chosen: usize,
}

impl Contender {
    pub fn best(&self) -> &Tuned {
        &self.tried[self.chosen]
    }
}

/// Everything.
pub struct Study {
    pub ours: Contender,
    pub hpa: Contender,
    pub keda: Contender,
    /// The same with other costs: start of a worker and pause of a partition, in seconds, and the sums over the traces
    /// with load changes, in the order of [`Study::contenders`].
    pub other_costs: Vec<(f64, f64, [Score; 3])>,
}

impl Study {
    pub fn contenders(&self) -> [&Contender; 3] {
        [&self.ours, &self.hpa, &self.keda]
    }
}

/// What one replica does in 1, 2, 5, 10, 15 and 30 s: the records it may be behind by.
const THRESHOLDS: [u32; 6] = [1_000, 2_000, 5_000, 10_000, 15_000, 30_000];
const WINDOWS: [u32; 2] = [300, 120];

/// Runs everything.
pub fn run_all() -> Study {
    let mut hpa = Vec::new();
    let mut keda = Vec::new();
    for average_value in THRESHOLDS {
        for window in WINDOWS {
            let tuning = HpaTuning { average_value, window };
            hpa.push(Tuned::new(Kind::Hpa(tuning)));
            for even in [false, true] {
                keda.push(Tuned::new(Kind::Keda(KedaTuning { hpa: tuning, activation: 0, even })));
            }
        }
    }
    let ours = ours().into_iter().map(|tuning| Tuned::new(Kind::Ours(tuning))).collect();
    let mut study = Study {
        // Ours runs as it comes; the others as they do best.
        ours: Contender { name: "Sluice", tried: ours, chosen: 0 },
        hpa: contender("HPA on lag", hpa),
        keda: contender("KEDA", keda),
        other_costs: Vec::new(),
    };
    let kinds = study.contenders().map(|contender| contender.best().kind);
    study.other_costs =
        COSTS.map(|(start, pause)| (start, pause, kinds.map(|kind| with_costs(kind, start, pause)))).into();
    study
}

/// Starts and pauses that a real cluster may have instead.
const COSTS: [(f64, f64); 6] = [(3.0, 1.0), (6.0, 3.0), (12.0, 6.0), (25.0, 3.0), (25.0, 6.0), (45.0, 6.0)];

fn with_costs(kind: Kind, start_up: f64, rebalance: f64) -> Score {
    let mut sum = Score::default();
    for trace in ALL.iter().filter(|trace| trace.changes) {
        let trace = Trace { start_up, rebalance: trace.rebalance.max(rebalance), ..*trace };
        sum += run(&trace, kind, SEED).score;
    }
    sum
}

/// The defaults first, then each setting by itself.
fn ours() -> Vec<OursTuning> {
    let base = OursTuning::default();
    vec![
        base,
        OursTuning { utilization: 60, ..base },
        OursTuning { utilization: 80, ..base },
        OursTuning { window: 60, ..base },
        OursTuning { window: 300, ..base },
        OursTuning { catch_up: 30, ..base },
        OursTuning { catch_up: 120, ..base },
    ]
}

/// The tuning with the fewest violations over the traces with load changes; of those within 5 % of it the cheapest.
fn contender(name: &'static str, tried: Vec<Tuned>) -> Contender {
    let fewest = tried.iter().map(|tuned| tuned.changing().violations).min().unwrap_or(0);
    let good = |tuned: &Tuned| u64::from(tuned.changing().violations) * 100 <= u64::from(fewest) * 105;
    let chosen = (0..tried.len())
        .filter(|&index| good(&tried[index]))
        .min_by_key(|&index| tried[index].changing().replica_seconds)
        .unwrap_or(0);
    Contender { name, tried, chosen }
}
