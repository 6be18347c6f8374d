//! Many pipelines of one namespace: made, looked at and deleted by a client of the API server that is not the operator.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, DynamicObject};
use kube::{Client, Config, Resource};
use serde_json::{Value, json};
use sluice_crds::v1alpha1::EventPipeline;
use sluice_e2e::stack::Kube;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// What may go wrong; the text says it all.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Version of each object, by kind and name.
pub type Versions = BTreeMap<(&'static str, String), String>;

/// Requests at the same time.
const AT_ONCE: usize = 16;
/// Objects of one answer.
const PAGE: u32 = 250;
/// Who writes status in the operator's place: what it writes later replaces it.
const STATUS_MANAGER: &str = "sluice-operator-status";

/// Pipelines `p0`, `p1` … of a namespace.
pub struct Fleet {
    pub runtime: Runtime,
    pub count: usize,
    pipelines: Api<DynamicObject>,
    deployments: Api<DynamicObject>,
    pods: Api<DynamicObject>,
}

impl Fleet {
    /// A client of the administrator.
    pub fn new(kube: &Kube, namespace: &str, count: usize) -> Outcome<Self> {
        // Several crates bring one: the process says which.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let file = Kubeconfig::read_from(kube.kubeconfig())?;
        let client = runtime.block_on(async {
            let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
            Outcome::Ok(Client::try_from(config)?)
        })?;
        let (pipelines, deployments, pods) = (
            objects::<EventPipeline>(&client, namespace),
            objects::<Deployment>(&client, namespace),
            objects::<Pod>(&client, namespace),
        );
        Ok(Self { runtime, count, pipelines, deployments, pods })
    }

    /// Names of all.
    pub fn names(&self) -> impl Iterator<Item = String> + use<> {
        (0..self.count).map(|number| format!("p{number}"))
    }

    /// Makes all of them, asleep since now. Who has no workers and nobody knows since when is woken up to keep its offsets:
    /// one that never had any says so only by its status.
    pub fn create(&self, inputs: &[String], output: &str) -> Outcome<()> {
        let asleep = json!({
            "apiVersion": "sluice.dev/v1alpha1",
            "kind": "EventPipeline",
            "status": {"conditions": [], "autoscaling": {
                "mode": "Operator",
                "desiredReplicas": 0,
                "lastScaleTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            }},
        });
        let specs: BTreeMap<String, Value> =
            self.names().zip(inputs.iter().cycle()).map(|(name, input)| (name, spec(input, output))).collect();
        self.each(|name| {
            let (api, mut asleep) = (self.pipelines.clone(), asleep.clone());
            let object = json!({
                "apiVersion": "sluice.dev/v1alpha1", "kind": "EventPipeline", "metadata": {"name": name}, "spec": specs[&name],
            });
            async move {
                let object: DynamicObject = serde_json::from_value(object)?;
                api.create(&PostParams::default(), &object).await?;
                asleep["metadata"] = json!({"name": name});
                let params = PatchParams::apply(STATUS_MANAGER).force();
                api.patch_status(&name, &params, &Patch::Apply(&asleep)).await?;
                Ok(())
            }
        })
    }

    /// Deletes all of them; one that is not there is no error.
    pub fn delete(&self) -> Outcome<()> {
        self.each(|name| {
            let api = self.pipelines.clone();
            async move {
                match api.delete(&name, &DeleteParams::background()).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                    done => {
                        done?;
                        Ok(())
                    }
                }
            }
        })
    }

    /// Does something with each pipeline, some at the same time; ends at the first that fails.
    fn each<F>(&self, work: impl Fn(String) -> F) -> Outcome<()>
    where
        F: Future<Output = Outcome<()>> + Send + 'static,
    {
        self.runtime.block_on(async {
            let (mut names, mut running) = (self.names(), JoinSet::new());
            loop {
                while running.len() < AT_ONCE
                    && let Some(name) = names.next()
                {
                    running.spawn(work(name));
                }
                match running.join_next().await {
                    None => return Ok(()),
                    Some(done) => done??,
                }
            }
        })
    }

    /// How many are ready for which reason, and how many are not, for which.
    pub fn reasons(&self) -> Outcome<BTreeMap<String, usize>> {
        let mut reasons = BTreeMap::new();
        self.look(&self.pipelines, |object| {
            let generation = object.metadata.generation;
            let status = &object.data["status"];
            let seen = status["observedGeneration"].as_i64() >= generation;
            let ready = status["conditions"].as_array().into_iter().flatten().find(|found| found["type"] == "Ready");
            let said = match ready {
                Some(ready) if seen && ready["status"] == "True" => text(&ready["reason"]).to_owned(),
                Some(ready) => format!("not ready: {}", text(&ready["reason"])),
                None => "not looked at".to_owned(),
            };
            *reasons.entry(said).or_default() += 1;
        })?;
        Ok(reasons)
    }

    /// Versions of all pipelines and Deployments.
    pub fn versions(&self) -> Outcome<Versions> {
        let mut versions = Versions::new();
        for (kind, api) in [("pipeline", &self.pipelines), ("deployment", &self.deployments)] {
            self.look(api, |object| {
                let meta = object.metadata;
                versions.insert((kind, meta.name.unwrap_or_default()), meta.resource_version.unwrap_or_default());
            })?;
        }
        Ok(versions)
    }

    /// How many pipelines, Deployments and pods there are.
    pub fn counts(&self) -> Outcome<[usize; 3]> {
        let mut counts = [0; 3];
        for (count, api) in counts.iter_mut().zip([&self.pipelines, &self.deployments, &self.pods]) {
            self.look(api, |_| *count += 1)?;
        }
        Ok(counts)
    }

    /// Shows every object of a kind, read a page at a time.
    fn look(&self, api: &Api<DynamicObject>, mut see: impl FnMut(DynamicObject)) -> Outcome<()> {
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = self.runtime.block_on(api.list(&params))?;
            let next = page.metadata.continue_.filter(|token| !token.is_empty());
            page.items.into_iter().for_each(&mut see);
            let Some(token) = next else { return Ok(()) };
            params = params.continue_token(&token);
        }
    }
}

fn objects<K: Resource<DynamicType = ()>>(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<K>(&()))
}

fn spec(input: &str, output: &str) -> Value {
    json!({
        "source": {"topics": [{"name": input}], "format": "Raw"},
        "routing": {"routes": [{"name": "all", "topic": output}]},
        "worker": {"replicas": 0},
        "autoscaling": {"minReplicas": 0, "maxReplicas": 4},
    })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What is not the same any more: written, made or gone.
pub fn changed(before: &Versions, after: &Versions) -> Vec<String> {
    let mut changed: Vec<_> = after.iter().filter(|(object, version)| before.get(object) != Some(*version)).collect();
    changed.extend(before.iter().filter(|(object, _)| !after.contains_key(object)));
    changed.into_iter().map(|((kind, name), _)| format!("{kind} {name}")).collect()
}

/// Asks `every` so often until the answer is true; false when the time is over.
pub fn poll(limit: Duration, every: Duration, mut ask: impl FnMut() -> Outcome<bool>) -> Outcome<bool> {
    let began = Instant::now();
    loop {
        if ask()? {
            return Ok(true);
        }
        if began.elapsed() >= limit {
            return Ok(false);
        }
        // The pace of asking, not a time in which something must have happened: listing thousands is a load of its own.
        std::thread::sleep(every);
    }
}
