//! The command lines of the components.

use std::net::{Ipv4Addr, SocketAddr};

use super::{NODE_NAME, Paths, config};
use crate::stack::error::StackError;
use crate::stack::install::Programs;
use crate::stack::netns;
use crate::stack::part::{PartSpec, argv};
use crate::stack::ready::Ready;

/// How many of [`all`] are started together: storage and containers, the API server, everything that needs it.
pub(super) const STAGES: [u8; 3] = [2, 1, 4];

/// All parts in the order of [`STAGES`].
pub(super) fn all(paths: &Paths, programs: &Programs) -> Result<Vec<PartSpec>, StackError> {
    Ok(vec![
        etcd(paths, programs)?,
        containerd(paths)?,
        component(
            "kube-apiserver",
            "kube-apiserver",
            api_server(paths),
            programs,
            https(paths, netns::NODE, 6443, "/readyz"),
        )?,
        component(
            "kube-controller-manager",
            "kube-controller-manager",
            controller_manager(paths),
            programs,
            https(paths, Ipv4Addr::LOCALHOST, 10257, "/healthz"),
        )?,
        component(
            "kube-scheduler",
            "kube-scheduler",
            scheduler(paths),
            programs,
            https(paths, Ipv4Addr::LOCALHOST, 10259, "/readyz"),
        )?,
        component("kube-kubelet", "kubelet", kubelet(paths), programs, http(10248, "/healthz"))?,
        component(
            "kube-proxy",
            "kube-proxy",
            vec![format!("--config={}", paths.file("proxy.yaml"))],
            programs,
            http(10256, "/livez"),
        )?,
    ])
}

fn component(
    name: &str,
    program: &str,
    arguments: Vec<String>,
    programs: &Programs,
    ready: Ready,
) -> Result<PartSpec, StackError> {
    spec(name, &programs.kube.join(program).display().to_string(), arguments, ready)
}

fn spec(name: &str, program: &str, arguments: Vec<String>, ready: Ready) -> Result<PartSpec, StackError> {
    let argv = argv(program, arguments)?;
    Ok(PartSpec { name: name.into(), argv, env: [].into(), ready, start_seconds: 240 })
}

fn http(port: u16, path: &str) -> Ready {
    Ready::Http { address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), path: path.into() }
}

fn https(paths: &Paths, address: Ipv4Addr, port: u16, path: &str) -> Ready {
    Ready::Https { address: (address, port).into(), path: path.into(), ca_file: paths.pki.join("ca.crt") }
}

/// `--unsafe-no-fsync`: what a crash of the machine would lose is thrown away anyway, and a killed etcd loses nothing by it.
fn etcd(paths: &Paths, programs: &Programs) -> Result<PartSpec, StackError> {
    let arguments = vec![
        format!("--data-dir={}", paths.file("etcd")),
        "--unsafe-no-fsync".into(),
        "--listen-client-urls=http://127.0.0.1:2379".into(),
        "--advertise-client-urls=http://127.0.0.1:2379".into(),
        "--listen-peer-urls=http://127.0.0.1:2380".into(),
        "--initial-advertise-peer-urls=http://127.0.0.1:2380".into(),
        "--initial-cluster=default=http://127.0.0.1:2380".into(),
    ];
    spec("kube-etcd", &programs.etcd.join("etcd").display().to_string(), arguments, http(2379, "/health"))
}

fn containerd(paths: &Paths) -> Result<PartSpec, StackError> {
    let arguments = vec!["--config".into(), paths.file("containerd.toml")];
    let ready = Ready::Unix(paths.root.join(config::CONTAINERD_SOCKET));
    spec("kube-containerd", "containerd", arguments, ready)
}

fn api_server(paths: &Paths) -> Vec<String> {
    let pki = |name: &str| paths.pki(name);
    vec![
        "--etcd-servers=http://127.0.0.1:2379".into(),
        "--secure-port=6443".into(),
        format!("--advertise-address={}", netns::NODE),
        format!("--service-cluster-ip-range={}", netns::SERVICE_NETWORK),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--client-ca-file={}", pki("ca.crt")),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-account-key-file={}", pki("service-account.pub")),
        format!("--service-account-signing-key-file={}", pki("service-account.key")),
        format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        format!("--kubelet-client-certificate={}", pki("apiserver-kubelet.crt")),
        format!("--kubelet-client-key={}", pki("apiserver-kubelet.key")),
        "--kubelet-preferred-address-types=InternalIP".into(),
        format!("--requestheader-client-ca-file={}", pki("front-proxy-ca.crt")),
        "--requestheader-allowed-names=front-proxy-client".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        format!("--proxy-client-cert-file={}", pki("front-proxy.crt")),
        format!("--proxy-client-key-file={}", pki("front-proxy.key")),
        "--enable-aggregator-routing=true".into(),
        format!("--audit-policy-file={}", paths.file("audit.yaml")),
        format!("--audit-log-path={}", paths.file("audit.log")),
        "--audit-log-maxsize=200".into(),
        "--audit-log-maxbackup=1".into(),
    ]
}

fn controller_manager(paths: &Paths) -> Vec<String> {
    let mut arguments = with_kubeconfig(&paths.file("controller-manager.kubeconfig"), paths);
    arguments.extend([
        format!("--root-ca-file={}", paths.pki("ca.crt")),
        format!("--service-account-private-key-file={}", paths.pki("service-account.key")),
        "--use-service-account-credentials=true".into(),
        format!("--cluster-signing-cert-file={}", paths.pki("ca.crt")),
        format!("--cluster-signing-key-file={}", paths.pki("ca.key")),
        "--horizontal-pod-autoscaler-sync-period=5s".into(),
    ]);
    arguments
}

fn scheduler(paths: &Paths) -> Vec<String> {
    with_kubeconfig(&paths.file("scheduler.kubeconfig"), paths)
}

/// What controller manager and scheduler have in common.
fn with_kubeconfig(kubeconfig: &str, paths: &Paths) -> Vec<String> {
    vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".into(),
        format!("--tls-cert-file={}", paths.pki("component.crt")),
        format!("--tls-private-key-file={}", paths.pki("component.key")),
        "--leader-elect=false".into(),
    ]
}

fn kubelet(paths: &Paths) -> Vec<String> {
    vec![
        format!("--config={}", paths.file("kubelet.yaml")),
        format!("--kubeconfig={}", paths.file("kubelet.kubeconfig")),
        format!("--root-dir={}", paths.file("kubelet")),
        format!("--hostname-override={NODE_NAME}"),
        format!("--node-ip={}", netns::NODE),
    ]
}
