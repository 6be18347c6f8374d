//! The texts of the components' configuration files.

use super::{NODE_NAME, Paths};
use crate::stack::error::StackError;
use crate::stack::files;
use crate::stack::install::pause;
use crate::stack::netns;

/// containerd's socket, in the group's folder.
pub(super) const CONTAINERD_SOCKET: &str = "containerd.sock";
/// Name of the pod network; CNI keeps results under it.
pub(super) fn cni_network() -> String {
    format!("{}-stack", netns::name())
}

/// The cgroup under which all pods live, so that they can be found and ended when containerd was killed.
pub(super) fn cgroup() -> String {
    netns::name()
}

/// Writes them all.
pub(super) fn write(paths: &Paths) -> Result<(), StackError> {
    let texts = [
        ("containerd.toml", containerd(paths)),
        ("cni/10-sluice.conflist", cni(paths)),
        ("kubelet.yaml", kubelet(paths)),
        ("proxy.yaml", proxy(paths)),
        ("audit.yaml", AUDIT.to_owned()),
    ];
    texts.iter().try_for_each(|(name, text)| files::write(&paths.root.join(name), text))
}

/// `restrict_oom_score_adj`: without the right to lower it (`CAP_SYS_RESOURCE`) runc would fail to start anything.
fn containerd(paths: &Paths) -> String {
    format!(
        r#"version = 2
root = "{root}/containerd/root"
state = "{root}/containerd/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{root}/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{root}/cni"
"#,
        root = paths.root.display(),
        socket = paths.file(CONTAINERD_SOCKET),
        pause = pause::IMAGE,
    )
}

/// Pods hang on the node's own bridge; the first addresses are kept for the node.
fn cni(paths: &Paths) -> String {
    format!(
        r#"{{"cniVersion": "0.4.0", "name": "{name}", "plugins": [
  {{"type": "bridge", "bridge": "{bridge}", "isGateway": true, "hairpinMode": true, "ipam": {{
    "type": "host-local", "dataDir": "{data}", "routes": [{{"dst": "0.0.0.0/0"}}],
    "ranges": [[{{"subnet": "{network}", "rangeStart": "10.44.0.16", "gateway": "{node}"}}]]}}}},
  {{"type": "portmap", "capabilities": {{"portMappings": true}}}}
]}}
"#,
        name = cni_network(),
        bridge = netns::BRIDGE,
        data = paths.file("cni-addresses"),
        network = netns::POD_NETWORK,
        node = netns::NODE,
    )
}

fn kubelet(paths: &Paths) -> String {
    format!(
        "\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {node}
healthzBindAddress: 127.0.0.1
healthzPort: 10248
cgroupDriver: cgroupfs
cgroupRoot: /{cgroup}
failSwapOn: false
oomScoreAdj: 0
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: \"{ca}\"}}}}
authorization: {{mode: Webhook}}
tlsCertFile: \"{certificate}\"
tlsPrivateKeyFile: \"{key}\"
containerRuntimeEndpoint: \"unix://{socket}\"
resolvConf: /dev/null
imageGCHighThresholdPercent: 100
evictionHard: {{memory.available: 64Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%}}
volumePluginDir: \"{plugins}\"
podLogsDir: \"{logs}\"
maxPods: 200
serializeImagePulls: false
",
        cgroup = cgroup(),
        node = netns::NODE,
        ca = paths.pki("ca.crt"),
        certificate = paths.pki("kubelet-server.crt"),
        key = paths.pki("kubelet-server.key"),
        socket = paths.file(CONTAINERD_SOCKET),
        plugins = paths.file("volume-plugins"),
        logs = paths.file("pod-logs"),
    )
}

/// `masqueradeAll`: pods share one bridge, so the answer of a service's pod would go straight to the asking pod, which waits
/// for the service's address; through the node it comes back translated. `conntrack` zeros leave the machine's limits alone.
fn proxy(paths: &Paths) -> String {
    format!(
        "\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: {NODE_NAME}
clusterCIDR: {network}
clientConnection: {{kubeconfig: \"{kubeconfig}\"}}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
oomScoreAdj: 0
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
nftables: {{masqueradeAll: true}}
",
        network = netns::POD_NETWORK,
        kubeconfig = paths.file("proxy.kubeconfig"),
    )
}

/// Who did what to what, with the answer; no bodies.
const AUDIT: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
omitManagedFields: true
rules: [{level: Metadata}]
";
