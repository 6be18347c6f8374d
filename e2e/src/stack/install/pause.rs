//! The image of the container that holds a pod's network: a static program that sleeps, built here because no registry is
//! asked for anything.

use super::Recipe;
use crate::stack::command::{bounded, run};
use crate::stack::image;

/// Name of the image in containerd.
pub(crate) const IMAGE: &str = "localhost/sluice-pause:1";

const SOURCE: &str = "\
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int signal) { (void)signal; _exit(0); }
static void reap(int signal) { (void)signal; while (waitpid(-1, 0, WNOHANG) > 0) {} }
int main(void) {
  struct sigaction on_end = {.sa_handler = end}, on_child = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP};
  sigaction(SIGINT, &on_end, 0); sigaction(SIGTERM, &on_end, 0); sigaction(SIGCHLD, &on_child, 0);
  for (;;) pause();
}
";

const DOCKERFILE: &str = "FROM scratch\nCOPY pause /pause\nUSER 65535:65535\nENTRYPOINT [\"/pause\"]\n";

/// The image as an archive.
pub(super) fn recipe() -> Recipe {
    Recipe {
        name: "pause",
        version: "1".into(),
        sources: vec![("pause.c", SOURCE), ("Dockerfile", DOCKERFILE)],
        flags: vec![IMAGE.into()],
        expect: "building the pause image",
        build: |sources, result, _| {
            run(bounded(60, "gcc").args(["-static", "-Os", "-s", "-o", "pause", "pause.c"]).current_dir(sources))?;
            let build = image::Build {
                context: sources,
                file: &sources.join("Dockerfile"),
                target: None,
                arguments: &[],
                tag: IMAGE,
                storage: &sources.join("storage"),
            };
            image::build(&build, &result.join("pause.tar"))
        },
    }
}
