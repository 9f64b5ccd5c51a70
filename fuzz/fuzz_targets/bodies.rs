//! What is sent to the API as JSON, and what it sends: what is read is the same when it is written and read again.

#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|json: &[u8]| {
    check::<api::StartRequest>(json);
    check::<api::StopRequest>(json);
    check::<api::RestartRequest>(json);
    check::<api::LeaseRequest>(json);
    check::<api::ExecRequest>(json);
    check::<api::AttachRequest>(json);
    check::<api::SignIn>(json);
    check::<api::AgentDocument>(json);
    check::<api::AgentsDocument>(json);
    check::<api::LeasesDocument>(json);
    check::<api::PoolDocument>(json);
    check::<api::HistoryDocument>(json);
    check::<api::BrokerDocument>(json);
    check::<api::ReconciliationDocument>(json);
});

fn check<T: DeserializeOwned + Serialize + PartialEq + Debug>(json: &[u8]) {
    let Ok(body) = serde_json::from_slice::<T>(json) else { return };
    let written = serde_json::to_vec(&body).expect("what was read can be written");
    assert_eq!(serde_json::from_slice::<T>(&written).expect("what was written can be read"), body);
}
