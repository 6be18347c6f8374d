//! The texts of Redis's configuration files.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{Mode, RedisCluster, RedisOptions};
use crate::stack::files::hex;

/// `users.acl`: passwords as SHA-256, as Redis writes them itself.
pub(super) fn users(admin: &str, replica: &str) -> String {
    let hash = |password: &str| hex(&Sha256::digest(password.as_bytes()));
    format!(
        "user default off resetpass resetkeys resetchannels -@all\n\
         user admin on #{} ~* &* +@all\n\
         user replica on #{} +psync +replconf +ping\n",
        hash(admin),
        hash(replica)
    )
}

/// `redis.conf` of one node.
pub(super) fn server(address: SocketAddr, folder: &Path, node: &Path, options: &RedisOptions, replica: &str) -> String {
    let mut text = format!(
        "bind {host}\n\
         protected-mode no\n\
         daemonize no\n\
         dir {dir}\n\
         aclfile {dir}/users.acl\n\
         masteruser replica\n\
         masterauth {replica}\n\
         save \"\"\n\
         appendonly {append}\n\
         appendfsync everysec\n\
         repl-diskless-sync yes\n\
         repl-diskless-sync-delay 0\n",
        host = address.ip(),
        dir = node.display(),
        append = if options.persistent { "yes" } else { "no" },
    );
    if options.tls {
        let folder = folder.display();
        let _ = write!(
            text,
            "port 0\n\
             tls-port {port}\n\
             tls-cert-file {folder}/server.crt\n\
             tls-key-file {folder}/server.key\n\
             tls-ca-cert-file {folder}/ca.crt\n\
             tls-auth-clients no\n\
             tls-replication yes\n",
            port = address.port(),
        );
    } else {
        let _ = writeln!(text, "port {}", address.port());
    }
    if options.mode == Mode::Cluster {
        text.push_str("cluster-enabled yes\ncluster-config-file nodes.conf\ncluster-node-timeout 5000\n");
        if options.tls {
            text.push_str("tls-cluster yes\n");
        }
    }
    for line in &options.settings {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// `cli PORT ARGUMENTS…`: `redis-cli` as the admin user; the password travels in the environment, not in the arguments.
pub(super) fn cli_script(redis: &RedisCluster) -> String {
    let host = redis.nodes.first().map(SocketAddr::ip).map(|ip| ip.to_string()).unwrap_or_default();
    let tls = if redis.tls { format!(" --tls --cacert '{}'", redis.ca_file.display()) } else { String::new() };
    format!(
        "#!/bin/sh\n\
         port=$1; shift\n\
         REDISCLI_AUTH=$(cat '{password}') exec redis-cli -h {host} -p \"$port\"{tls} --user {user} --no-auth-warning \"$@\"\n",
        password = redis.password_file.display(),
        user = redis.username,
    )
}
