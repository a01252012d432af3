//! Two connections to one peer (RFC 4271 §6.8, RFC 6286 §2.3): both sides must keep the same one.

use std::net::Ipv4Addr;

use crate::asn::Asn;

/// Whether the connection that we opened survives: the one that the higher router id opened does, and between equal
/// ids the higher AS decides.
pub fn keeps_outgoing(local: (Ipv4Addr, Asn), remote: (Ipv4Addr, Asn)) -> bool {
    local > remote
}
