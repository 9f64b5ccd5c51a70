//! Waits until something answers behind an agent's port.

use std::sync::Arc;
use std::time::Duration;

use pool::{AgentKey, Port};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::core::Core;
use crate::model::{AgentRecord, Stage};
use crate::reach::Reach;

/// How far apart the attempts are.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a connection must stay open to count as an answer. An engine's proxy accepts a connection even while nothing
/// listens inside, and closes it as soon as it finds that out.
const STAYS_OPEN: Duration = Duration::from_millis(50);
/// How long one attempt may take to connect.
const CONNECT: Duration = Duration::from_secs(1);

impl Core {
    /// Waits at most for `limit` until port A of the agent answers, and says so with a warning if it does not.
    pub(crate) async fn wait_for_answer(
        self: &Arc<Self>,
        mut record: AgentRecord,
        limit: Duration,
    ) -> AgentRecord {
        let Some(port) = record.ports().first().copied() else {
            record.warnings.push("there is nothing to wait for: it has no ports".to_owned());
            return record;
        };
        if record.published.is_none() {
            record.warnings.push("there is nothing to wait for: none of its ports is published".to_owned());
            return record;
        }
        if self.reach(&record, port).is_none() {
            let text = "its ports are on another host: whether anything answers there is not seen from here";
            record.warnings.push(text.to_owned());
            return record;
        }
        self.tell_progress(&record.key, &format!("waiting for something to answer on port {port}"));
        let deadline = Instant::now() + limit;
        loop {
            if timeout_at(deadline, self.answers(&record, port)).await.unwrap_or(false) {
                return record;
            }
            if let Some(ended) = self.ended_meanwhile(&record.key, &record) {
                return ended;
            }
            if Instant::now() + PAUSE >= deadline {
                record.warnings.push(silence(port, limit));
                return record;
            }
            tokio::select! {
                () = sleep(PAUSE) => {}
                () = self.shutdown.cancelled() => return record,
            }
        }
    }

    /// Where this host reaches that port of the agent, if it does.
    pub(crate) fn reach(&self, record: &AgentRecord, port: Port) -> Option<Reach> {
        Reach::of(record, port, self.runtimes.may_publish_here(&record.runtime))
    }

    /// Whether something of the agent answers on `port`.
    pub(crate) async fn answers(&self, record: &AgentRecord, port: Port) -> bool {
        let Some(reach) = self.reach(record, port) else { return false };
        if let (Ok(runtime), Some(id)) = (self.runtimes.get(&record.runtime), &record.container) {
            match runtime.accepts(id, port.get()).await {
                Ok(Some(accepts)) => return accepts,
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(agent = %record.key, %error, "whether it answers is not known");
                    return false;
                }
            }
        }
        answers(reach).await
    }

    fn ended_meanwhile(&self, key: &AgentKey, record: &AgentRecord) -> Option<AgentRecord> {
        let now = self.agent(key);
        if now.as_ref().is_some_and(|now| now.stage == Stage::Running && now.lease == record.lease) {
            return None;
        }
        let mut ended = now.unwrap_or_else(|| AgentRecord { stage: Stage::Exited, ..record.clone() });
        ended.warnings.push("it ended before anything answered".to_owned());
        Some(ended)
    }
}

fn silence(port: Port, limit: Duration) -> String {
    format!(
        "nothing answers on port {port} after {} s: is the server listening on 0.0.0.0 (not on 127.0.0.1) and on the port in \
         $AVAILABLE_LOCALHOST_PORT_A?",
        limit.as_secs()
    )
}

/// Whether something accepts a connection there and does not hang up at once.
async fn answers(reach: Reach) -> bool {
    let Ok(Ok(mut stream)) = timeout(CONNECT, reach.connect()).await else { return false };
    let mut first = [0; 1];
    match timeout(STAYS_OPEN, stream.read(&mut first)).await {
        // Silence: it waits for a request.
        Err(_) => true,
        Ok(Ok(read)) => read > 0,
        Ok(Err(_)) => false,
    }
}
