//! ROUTE-REFRESH (RFC 2918) and the subtypes of RFC 7313, which are read so that a peer may send them.

use super::header::{Frame, Kind, message};
use super::notification::{Notification, error};
use crate::family::FamilyCode;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Refresh {
    pub family: FamilyCode,
    pub subtype: RefreshKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RefreshKind {
    Request,
    Begin,
    End,
    /// To be ignored (RFC 7313 §5).
    Unknown(u8),
}

impl Refresh {
    pub const fn request(family: FamilyCode) -> Self {
        Self { family, subtype: RefreshKind::Request }
    }

    pub fn decode(frame: &Frame<'_>) -> Result<Self, Notification> {
        let Some(([afi_high, afi_low, subtype, safi], rest)) = frame.body().split_first_chunk::<4>() else {
            return Err(Notification::new(error::REFRESH_LENGTH, frame.bytes));
        };
        let subtype = match subtype {
            0 => RefreshKind::Request,
            1 => RefreshKind::Begin,
            2 => RefreshKind::End,
            other => RefreshKind::Unknown(*other),
        };
        // Filters (RFC 5291) would follow a request, but we offer none.
        if !rest.is_empty() && !matches!(subtype, RefreshKind::Unknown(_)) {
            return Err(Notification::new(error::REFRESH_LENGTH, frame.bytes));
        }
        Ok(Self {
            family: FamilyCode { afi: u16::from_be_bytes([*afi_high, *afi_low]), safi: *safi },
            subtype,
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        let subtype = match self.subtype {
            RefreshKind::Request => 0,
            RefreshKind::Begin => 1,
            RefreshKind::End => 2,
            RefreshKind::Unknown(other) => other,
        };
        message(Kind::RouteRefresh, |out| {
            out.extend_from_slice(&self.family.afi.to_be_bytes());
            out.extend_from_slice(&[subtype, self.family.safi]);
        })
    }
}
