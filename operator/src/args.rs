//! The command line. Every argument has a twin in the environment; secrets are in neither.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Runs Sluice's resources.
#[derive(Clone, Debug, Parser)]
#[command(name = "sluice-operator", version)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Log filter, e.g. `info` or `sluice_operator=debug,info`.
    #[arg(long, env = "SLUICE_LOG", default_value = "info", global = true)]
    pub log: String,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the operator.
    Run(RunArguments),
    /// Remove our finalizer from every resource, so that an uninstall without the operator leaves none hanging.
    /// Whatever a deletion would have removed outside of Kubernetes stays. An operator that runs meanwhile leaves it off;
    /// the next one that starts sets it again.
    ReleaseFinalizers(ReleaseArguments),
}

/// Whose finalizers to remove.
#[derive(Clone, Debug, Args)]
pub struct ReleaseArguments {
    /// Those of this namespace only. Absent: all of them.
    #[arg(long, env = "SLUICE_WATCH_NAMESPACE", value_name = "NAMESPACE")]
    pub watch_namespace: Option<String>,
}

/// How to run.
#[derive(Clone, Debug, Args)]
pub struct RunArguments {
    /// The settings file (YAML); read again when it changes.
    #[arg(long, env = "SLUICE_SETTINGS", value_name = "FILE")]
    pub settings: PathBuf,
    /// File with at least 32 random bytes that all generated passwords are derived from.
    #[arg(long, env = "SLUICE_INSTALL_KEY", value_name = "FILE")]
    pub install_key: PathBuf,
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    #[arg(long, env = "SLUICE_ADMIN_LISTEN", default_value = "0.0.0.0:8080")]
    pub admin_listen: SocketAddr,
    /// Name of this pod, for events.
    #[arg(long, env = "POD_NAME", default_value = "sluice-operator", value_name = "NAME")]
    pub pod: String,
    /// Watch this namespace only. Absent: all of them.
    #[arg(long, env = "SLUICE_WATCH_NAMESPACE", value_name = "NAMESPACE")]
    pub watch_namespace: Option<String>,
    /// Where `external.metrics.k8s.io` is served, over TLS. Absent: it is not served.
    #[arg(long, env = "SLUICE_EXTERNAL_METRICS_LISTEN", requires_all = ["external_metrics_name", "pod_namespace"])]
    pub external_metrics_listen: Option<SocketAddr>,
    /// Name of the Service that leads there, of the Secret for its certificates, and of the role that its
    /// registration goes with.
    #[arg(long, env = "SLUICE_EXTERNAL_METRICS_NAME", value_name = "NAME")]
    pub external_metrics_name: Option<String>,
    /// Namespace of this pod, of that Service and of that Secret.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pub pod_namespace: Option<String>,
    /// Resources worked on at the same time, of each kind.
    #[arg(long, env = "SLUICE_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,
    /// Between two looks at lag, reports of workers and servers that are away.
    #[arg(long, env = "SLUICE_SWEEP_SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=300))]
    pub sweep_seconds: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_needs_settings_and_key() {
        assert!(Arguments::try_parse_from(["o", "run", "--settings", "/s"]).is_err());
        let parsed = Arguments::try_parse_from(["o", "run", "--settings", "/s", "--install-key", "/k"]).unwrap();
        let Command::Run(run) = parsed.command else { panic!("should run") };
        assert_eq!((run.concurrency, run.admin_listen.port()), (16, 8080));
        assert!(Arguments::try_parse_from(["o"]).is_err());
        let serve =
            ["--external-metrics-listen", "0.0.0.0:8443", "--external-metrics-name", "m", "--pod-namespace", "n"];
        let with = |count: usize| {
            let all = ["o", "run", "--settings", "/s", "--install-key", "/k"].iter().chain(&serve[..count]);
            Arguments::try_parse_from(all)
        };
        assert!(with(6).is_ok() && with(2).is_err(), "served nowhere, it would say that it is served");
    }
}
