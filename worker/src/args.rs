//! The command line. Every argument has a twin in the environment; secrets are in neither.

use std::path::PathBuf;

use clap::Parser;

/// Runs the engines of one Sluice resource.
#[derive(Clone, Debug, Parser)]
#[command(name = "sluice-worker", version)]
pub struct Args {
    /// The worker configuration (JSON, as the operator writes it).
    #[arg(long, env = "SLUICE_CONFIG", value_name = "FILE")]
    pub config: PathBuf,
    /// Name of this pod: part of the transactional ids, so it must differ between running workers of one resource.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub pod: String,
    /// Seconds that SIGTERM leaves the engines to finish or abort; below the pod's termination grace period.
    #[arg(long, env = "SLUICE_GRACE_SECONDS", default_value_t = 25, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub grace_seconds: u64,
    /// Log filter, e.g. `info` or `sluice_worker=debug,info`.
    #[arg(long, env = "SLUICE_LOG", default_value = "info")]
    pub log: String,
}

impl Args {
    /// Parses the process's arguments; on a mistake prints usage and exits, as command lines do.
    pub fn from_command_line() -> Self {
        Self::parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_config_and_pod() {
        assert!(Args::try_parse_from(["sluice-worker", "--pod", "p-0"]).is_err());
        let args = Args::try_parse_from(["sluice-worker", "--config", "/c.json", "--pod", "p-0"]).expect("valid");
        assert_eq!((args.pod.as_str(), args.grace_seconds), ("p-0", 25));
    }
}
