//! Speaks to a broker.
/// Speaks to a broker.
pub struct Client;
/// x
pub struct ClientError;
/// x
pub struct Endpoint;
/// x
pub struct EndpointError;
