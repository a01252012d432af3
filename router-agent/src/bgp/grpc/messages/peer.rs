//! A peer. Clients follow every sub-message of it without a look whether it is there.

use prost::Message;

use super::{Empty, Family, Timestamp};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Peer {
    #[prost(message, optional, tag = "2")]
    pub(crate) conf: Option<PeerConf>,
    #[prost(message, optional, tag = "4")]
    pub(crate) route_reflector: Option<Empty>,
    #[prost(message, optional, tag = "5")]
    pub(crate) state: Option<PeerState>,
    #[prost(message, optional, tag = "6")]
    pub(crate) timers: Option<Timers>,
    #[prost(message, optional, tag = "7")]
    pub(crate) transport: Option<Transport>,
    #[prost(message, optional, tag = "8")]
    pub(crate) route_server: Option<Empty>,
    #[prost(message, optional, tag = "9")]
    pub(crate) graceful_restart: Option<GracefulRestart>,
    #[prost(message, repeated, tag = "10")]
    pub(crate) afi_safis: Vec<AfiSafi>,
}

/// `auth_password` (field 1) is absent: clients print it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PeerConf {
    #[prost(string, tag = "2")]
    pub(crate) description: String,
    #[prost(uint32, tag = "3")]
    pub(crate) local_asn: u32,
    #[prost(string, tag = "4")]
    pub(crate) neighbor_address: String,
    #[prost(uint32, tag = "5")]
    pub(crate) peer_asn: u32,
    #[prost(int32, tag = "7")]
    pub(crate) kind: i32,
    #[prost(bool, tag = "15")]
    pub(crate) admin_down: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PeerState {
    #[prost(string, tag = "2")]
    pub(crate) description: String,
    #[prost(uint32, tag = "3")]
    pub(crate) local_asn: u32,
    #[prost(message, optional, tag = "4")]
    pub(crate) messages: Option<Messages>,
    #[prost(string, tag = "5")]
    pub(crate) neighbor_address: String,
    #[prost(uint32, tag = "6")]
    pub(crate) peer_asn: u32,
    #[prost(int32, tag = "8")]
    pub(crate) kind: i32,
    #[prost(message, optional, tag = "9")]
    pub(crate) queues: Option<Queues>,
    #[prost(int32, tag = "13")]
    pub(crate) session_state: i32,
    #[prost(int32, tag = "15")]
    pub(crate) admin_state: i32,
    #[prost(uint32, tag = "16")]
    pub(crate) out_q: u32,
    #[prost(uint32, tag = "17")]
    pub(crate) flops: u32,
    #[prost(bytes = "vec", repeated, tag = "18")]
    pub(crate) remote_cap: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "19")]
    pub(crate) local_cap: Vec<Vec<u8>>,
    #[prost(string, tag = "20")]
    pub(crate) router_id: String,
    /// These two of v4 only.
    #[prost(int32, tag = "21")]
    pub(crate) disconnect_reason: i32,
    #[prost(string, tag = "22")]
    pub(crate) disconnect_message: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Messages {
    #[prost(message, optional, tag = "1")]
    pub(crate) received: Option<MessageCounts>,
    #[prost(message, optional, tag = "2")]
    pub(crate) sent: Option<MessageCounts>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MessageCounts {
    #[prost(uint64, tag = "1")]
    pub(crate) notification: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) update: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) open: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) keepalive: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) refresh: u64,
    #[prost(uint64, tag = "7")]
    pub(crate) total: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Queues {
    #[prost(uint32, tag = "2")]
    pub(crate) output: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Timers {
    #[prost(message, optional, tag = "1")]
    pub(crate) config: Option<TimersConfig>,
    #[prost(message, optional, tag = "2")]
    pub(crate) state: Option<TimersState>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TimersConfig {
    #[prost(uint64, tag = "1")]
    pub(crate) connect_retry: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) hold_time: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) keepalive_interval: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TimersState {
    #[prost(uint64, tag = "1")]
    pub(crate) connect_retry: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) hold_time: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) keepalive_interval: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) negotiated_hold_time: u64,
    #[prost(message, optional, tag = "6")]
    pub(crate) uptime: Option<Timestamp>,
    #[prost(message, optional, tag = "7")]
    pub(crate) downtime: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Transport {
    #[prost(string, tag = "1")]
    pub(crate) local_address: String,
    #[prost(uint32, tag = "2")]
    pub(crate) local_port: u32,
    #[prost(string, tag = "5")]
    pub(crate) remote_address: String,
    #[prost(uint32, tag = "6")]
    pub(crate) remote_port: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GracefulRestart {
    #[prost(bool, tag = "1")]
    pub(crate) enabled: bool,
    #[prost(uint32, tag = "2")]
    pub(crate) restart_time: u32,
    #[prost(uint32, tag = "4")]
    pub(crate) deferral_time: u32,
    #[prost(uint32, tag = "8")]
    pub(crate) peer_restart_time: u32,
    #[prost(bool, tag = "9")]
    pub(crate) peer_restarting: bool,
    #[prost(bool, tag = "10")]
    pub(crate) local_restarting: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AfiSafi {
    #[prost(message, optional, tag = "1")]
    pub(crate) mp_graceful_restart: Option<MpGracefulRestart>,
    #[prost(message, optional, tag = "2")]
    pub(crate) config: Option<AfiSafiConfig>,
    #[prost(message, optional, tag = "3")]
    pub(crate) state: Option<AfiSafiState>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MpGracefulRestart {
    #[prost(message, optional, tag = "1")]
    pub(crate) config: Option<MpGracefulRestartConfig>,
    #[prost(message, optional, tag = "2")]
    pub(crate) state: Option<MpGracefulRestartState>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MpGracefulRestartConfig {
    #[prost(bool, tag = "1")]
    pub(crate) enabled: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MpGracefulRestartState {
    #[prost(bool, tag = "1")]
    pub(crate) enabled: bool,
    #[prost(bool, tag = "4")]
    pub(crate) end_of_rib_received: bool,
    #[prost(bool, tag = "5")]
    pub(crate) end_of_rib_sent: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AfiSafiConfig {
    #[prost(message, optional, tag = "1")]
    pub(crate) family: Option<Family>,
    #[prost(bool, tag = "2")]
    pub(crate) enabled: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AfiSafiState {
    #[prost(message, optional, tag = "1")]
    pub(crate) family: Option<Family>,
    #[prost(bool, tag = "2")]
    pub(crate) enabled: bool,
    #[prost(uint64, tag = "3")]
    pub(crate) received: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) accepted: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) advertised: u64,
}
