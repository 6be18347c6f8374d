//! Certificates and kubeconfigs of every component.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use super::{NODE_NAME, Paths};
use crate::stack::error::StackError;
use crate::stack::files;
use crate::stack::netns;
use crate::stack::pki::{self, Authority, Identity, Subject};

/// Everybody who speaks to the API server by kubeconfig: file, user name, group.
const CLIENTS: [(&str, &str, Option<&str>); 5] = [
    ("admin", "admin", Some("system:masters")),
    ("controller-manager", "system:kube-controller-manager", None),
    ("scheduler", "system:kube-scheduler", None),
    ("proxy", "system:kube-proxy", None),
    // `system:node:` and NODE_NAME: what the Node authorizer goes by.
    ("kubelet", "system:node:node1", Some("system:nodes")),
];

pub(super) fn create(paths: &Paths) -> Result<(), StackError> {
    let cluster = Authority::create(&paths.pki, "ca")?;
    // A CA of its own: whoever it signs may speak for any user.
    let front_proxy = Authority::create(&paths.pki, "front-proxy-ca")?;
    let local = [IpAddr::V4(netns::NODE), IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(netns::API_SERVICE)];
    let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    let api = Subject { common_name: "kube-apiserver", organization: None, names: &names, addresses: &local };
    cluster.issue("apiserver", &api)?;
    let kubelet =
        Subject { common_name: NODE_NAME, organization: None, names: &["localhost", NODE_NAME], addresses: &local };
    cluster.issue("kubelet-server", &kubelet)?;
    cluster.issue("component", &Subject::server("component", &local))?;
    cluster.issue("apiserver-kubelet", &Subject::client("kube-apiserver-kubelet-client", Some("system:masters")))?;
    front_proxy.issue("front-proxy", &Subject::client("front-proxy-client", None))?;
    pki::signing_key(&paths.pki, "service-account")?;
    for (file, user, group) in CLIENTS {
        let identity = cluster.issue(file, &Subject::client(user, group))?;
        let text = kubeconfig(user, &identity, cluster.certificate());
        files::write_private(&paths.root.join(format!("{file}.kubeconfig")), &text)?;
    }
    Ok(())
}

fn kubeconfig(user: &str, identity: &Identity, authority: &Path) -> String {
    format!(
        "\
apiVersion: v1
kind: Config
clusters: [{{name: sluice, cluster: {{server: \"https://{node}:6443\", certificate-authority: \"{authority}\"}}}}]
users: [{{name: \"{user}\", user: {{client-certificate: \"{certificate}\", client-key: \"{key}\"}}}}]
contexts: [{{name: sluice, context: {{cluster: sluice, user: \"{user}\"}}}}]
current-context: sluice
",
        node = netns::NODE,
        authority = authority.display(),
        certificate = identity.certificate.display(),
        key = identity.key.display(),
    )
}
