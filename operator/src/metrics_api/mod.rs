//! `external.metrics.k8s.io/v1beta1`: the lag of consumer groups for `HorizontalPodAutoscalers`. Off by default.
//!
//! ```text
//! route.rs  selector.rs   PURE: what is asked for            documents.rs  PURE: what is answered
//! identity.rs             PURE: whom the API server speaks for, and whether it is the API server
//! registration.rs         PURE: what to do about the APIService that is there: never over somebody else's
//! certificates.rs         our authority and serving certificate, and when the next ones take over
//! access.rs               IO: who may read, asked of the API server and remembered for a moment
//! keeper.rs               IO: whom to believe, certificates and registration, looked at all the time
//! tls.rs  server.rs       IO: connections and requests
//! ```
//! A request is answered when it comes over TLS with the front proxy's client certificate, the user it speaks for may list the
//! metric in the namespace, and only with groups that the namespace was granted: those of its own resources, and those of the
//! monitors that list it. What is not known is refused, not answered with less.

mod access;
mod certificates;
mod documents;
mod identity;
mod keeper;
mod registration;
mod route;
mod selector;
mod server;
mod tls;

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::controller::context::Context;
use keeper::KeeperError;

/// Where and as whom it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Name of our Service, of the Secret with our certificates, and of the `ClusterRole` that our `APIService` goes with.
    pub name: String,
    /// Namespace of Service and Secret.
    pub namespace: String,
}

/// Serves for ever; what is wrong is in the log, in `/readyz` and in the metrics.
pub async fn run(listener: TcpListener, options: Options, ctx: Arc<Context>) {
    let (keep, serving) = watch::channel(None);
    tokio::join!(
        keeper::run(ctx.client.clone(), options, keep, &ctx.external_metrics),
        server::serve(listener, Arc::clone(&ctx), serving),
    );
}

/// How it stands with the API, for those who look at the operator.
#[derive(Debug, Default)]
pub struct Standing {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
enum State {
    /// Not served.
    #[default]
    Off,
    /// Not looked at yet.
    Unknown,
    Well,
    Problem(String),
}

impl Standing {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What is wrong.
    pub fn note(&self) -> Option<String> {
        match &*self.lock() {
            State::Problem(problem) => Some(problem.clone()),
            State::Off | State::Unknown | State::Well => None,
        }
    }

    /// It will be served, and is looked at soon.
    pub fn expected() -> Self {
        Self { state: Mutex::new(State::Unknown) }
    }

    /// Why nobody can scale by it, if that is so.
    pub fn trouble(&self) -> Option<String> {
        match &*self.lock() {
            State::Off => Some("it is off (externalMetrics.enabled of the chart)".to_owned()),
            State::Problem(problem) => Some(problem.clone()),
            State::Unknown | State::Well => None,
        }
    }

    /// True when the API server asks us; none: it is not served, or not looked at yet.
    pub fn is_registered(&self) -> Option<bool> {
        match *self.lock() {
            State::Off | State::Unknown => None,
            State::Well => Some(true),
            State::Problem(_) => Some(false),
        }
    }

    fn well(&self) {
        if matches!(std::mem::replace(&mut *self.lock(), State::Well), State::Problem(_)) {
            tracing::info!("the external metrics API is well again");
        }
    }

    /// Said when it changes.
    fn problem(&self, error: &KeeperError) {
        let text = error.to_string();
        let mut state = self.lock();
        if !matches!(&*state, State::Problem(said) if *said == text) {
            tracing::error!(%error, "the external metrics API cannot do its work");
            *state = State::Problem(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standing_is_unknown_until_it_was_looked_at() {
        let standing = Standing::default();
        assert_eq!((standing.note(), standing.is_registered()), (None, None));
        standing.problem(&KeeperError::Taken("service keda-metrics in namespace keda".to_owned()));
        assert!(standing.note().unwrap().contains("keda-metrics"));
        assert_eq!(standing.is_registered(), Some(false));
        standing.well();
        assert_eq!((standing.note(), standing.is_registered()), (None, Some(true)));
    }
}
