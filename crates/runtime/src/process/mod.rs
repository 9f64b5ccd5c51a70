//! Agents that are plain processes of the host.
//!
//! A process has no engine that would remember it, so this module keeps what an engine keeps: a directory with one
//! folder for each agent, and for each running agent a *shim*, a small process that outlives the broker (as
//! `containerd-shim` and `conmon` do), starts the command, waits for it and writes down how it ended.
//!
//! # Layout
//!
//! ```text
//! DIRECTORY/            0700
//!   NAME/               0700; exists whole or not at all
//!     spec.json         the agent: id, labels, command, variables (maybe secret: every file is 0600)
//!     lock              held with flock, see below
//!     log               what the command wrote, both streams in order; not bounded
//!     shim.json         which process the shim is
//!     started.json      which process the command is, and since when
//!     exited.json       how it ended, and what of it is left since
//!     shim.log          what a shim complained of, normally empty
//!   .new-*, .gone-*     folders in the making and in removal; swept once they are a minute old
//! ```
//!
//! A folder is made under another name and renamed, so two creations of one name cannot both succeed, and no listing
//! sees half of one. The id is the name, a dot and a random part: another creation of the same name is another agent.
//!
//! # What happens after a crash
//!
//! No command runs that a later broker would not know, wherever broker and shim are killed (`kill -9`):
//!
//! 1. The broker writes the agent's id to the shim's standard input. Killed before that, the shim reads an
//!    end of file and starts nothing.
//! 2. The shim takes the `lock` and only then looks whether the folder is still there and was never started. Who removes
//!    a folder takes the same lock, so a late shim starts nothing that has been removed.
//! 3. The shim starts itself once more. That process inherits the lock as its standard input, becomes the leader of its
//!    own session, writes `started.json` with its own pid and start time to disk, and becomes the command by `exec`,
//!    which closes its hold on the lock. So while the lock is held, a shim lives or a command is about to start; once it is
//!    free, either `started.json` is there or nothing runs and nothing will.
//! 4. The shim adopts whatever the command daemonises (it is a child subreaper), waits until nothing of it is left, and
//!    lets go of the lock only by ending. A broker that finds the lock held knows that the agent runs.
//! 5. If the shim was killed, the lock is free though `started.json` is there and no `exited.json` says that nothing is left. Then the
//!    host's process table is read (module `table`): what belongs to the agent is told by the leader's identity, its
//!    session, descent, and the variable `BERTHOLD_PROCESS`, which holds the agent's id and is inherited by all of them.
//!    The exit code is lost.
//!
//! A process is only ever signalled through [`Identity`]: pid, start time and boot. A pid that was reused is left alone.
//!
//! # Limits
//!
//! - Once the shim *and* the leader are dead, a process that has also emptied its environment is not recognised.
//! - A service manager that ends the broker's whole control group ends the agents with it (systemd: `KillMode=process`).
//! - Descriptors that the broker itself inherited without close-on-exec reach the agents.
//! - Other than on Linux there is no subreaper, no session and no environment to look at: what the command daemonises out
//!   of its process group is not found, commands beside an agent do not end with it, and between checking a pid and
//!   signalling it lies a moment.
//!
//! Rejected: control groups, which would be exact, but which a normal user may not create on every host; a pid file
//! alone, which says nothing about what a pid means today; being the parent of the agents, who then die unseen with
//! the broker.

mod becoming;
mod beside;
mod ending;
mod environment;
mod folder;
pub mod identity;
mod log;
mod processes;
mod record;
mod shim;
mod table;
mod terminal;

pub use ending::end_of;
pub use identity::Identity;
pub use processes::{Processes, ShimCommand};
pub use shim::run_shim;
pub use table::belonging;
