use bytes::BytesMut;

use super::frame::{self, ACK, SETTINGS, Violation};
use super::state::Role;

const HEADER_TABLE_SIZE: u16 = 0x1;
const ENABLE_PUSH: u16 = 0x2;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
const INITIAL_WINDOW_SIZE: u16 = 0x4;
const MAX_FRAME_SIZE: u16 = 0x5;
const MAX_HEADER_LIST_SIZE: u16 = 0x6;
/// RFC 8441 3.
const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;

/// Before the other side has said how many streams it takes; the RFC lets it take any number.
const USUAL_STREAMS: u32 = 100;

/// What the other side has asked for (RFC 9113 6.5.2), as far as it matters to us. Longer frames than the shortest that may be
/// allowed are never sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerSettings {
    pub(super) header_table_size: u32,
    pub(super) max_streams: u32,
    pub(super) initial_window: u32,
    pub(super) takes_connect: bool,
}

impl Default for PeerSettings {
    fn default() -> Self {
        Self {
            header_table_size: 4096,
            max_streams: USUAL_STREAMS,
            initial_window: 65_535,
            takes_connect: false,
        }
    }
}

impl PeerSettings {
    /// `from` is the role of who has sent them.
    pub(super) fn read(&mut self, from: Role, payload: &[u8]) -> Result<(), Violation> {
        let (settings, []) = payload.as_chunks::<6>() else {
            return Err(Violation::frame_size("settings that are cut"));
        };
        for [a, b, value @ ..] in settings {
            self.set(from, u16::from_be_bytes([*a, *b]), u32::from_be_bytes(*value))?;
        }
        Ok(())
    }

    fn set(&mut self, from: Role, setting: u16, value: u32) -> Result<(), Violation> {
        match (setting, value) {
            (HEADER_TABLE_SIZE, size) => self.header_table_size = size,
            (ENABLE_PUSH, 0) => {}
            // A server has nobody to allow it to (RFC 9113 6.5.2).
            (ENABLE_PUSH, 1) if from == Role::Client => {}
            (MAX_CONCURRENT_STREAMS, count) => self.max_streams = count,
            (INITIAL_WINDOW_SIZE, 0..=0x7fff_ffff) => self.initial_window = value,
            (INITIAL_WINDOW_SIZE, _) => {
                return Err(Violation::flow_control(
                    "a first window of more than 2^31-1 bytes",
                ));
            }
            (MAX_FRAME_SIZE, 0x4000..=0x00ff_ffff) => {}
            (ENABLE_CONNECT_PROTOCOL, 0) if self.takes_connect => {
                return Err(Violation::protocol("extended CONNECT taken back"));
            }
            (ENABLE_CONNECT_PROTOCOL, 0 | 1) => self.takes_connect = value == 1,
            (ENABLE_PUSH | MAX_FRAME_SIZE | ENABLE_CONNECT_PROTOCOL, _) => {
                return Err(Violation::protocol("a setting with a value that it cannot have"));
            }
            _ => {}
        }
        Ok(())
    }
}

/// What we ask for.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnSettings {
    /// `None` towards a server, which is to begin none.
    pub(super) max_streams: Option<u32>,
    pub(super) initial_window: u32,
    pub(super) max_header_bytes: u32,
}

impl OwnSettings {
    pub(super) fn role(self) -> Role {
        match self.max_streams {
            Some(_) => Role::Server,
            None => Role::Client,
        }
    }

    pub(super) fn write(self, bytes: &mut BytesMut) {
        let mut settings = vec![
            (INITIAL_WINDOW_SIZE, self.initial_window),
            (MAX_HEADER_LIST_SIZE, self.max_header_bytes),
        ];
        match self.max_streams {
            Some(count) => settings.extend([(MAX_CONCURRENT_STREAMS, count), (ENABLE_CONNECT_PROTOCOL, 1)]),
            None => settings.push((ENABLE_PUSH, 0)),
        }
        let mut payload = Vec::new();
        for (setting, value) in settings {
            payload.extend(setting.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        frame::write(bytes, SETTINGS, 0, 0, &payload);
    }
}

pub(super) fn acknowledge(bytes: &mut BytesMut) {
    frame::write(bytes, SETTINGS, ACK, 0, &[]);
}

#[cfg(test)]
mod tests {
    use super::super::frame::Reason;
    use super::*;

    fn read(settings: &[(u16, u32)]) -> Result<PeerSettings, Reason> {
        read_from(Role::Client, settings)
    }

    fn read_from(role: Role, settings: &[(u16, u32)]) -> Result<PeerSettings, Reason> {
        let mut payload = Vec::new();
        for (setting, value) in settings {
            payload.extend(setting.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        let mut read = PeerSettings::default();
        read.read(role, &payload)
            .map(|()| read)
            .map_err(|violation| violation.reason)
    }

    #[test]
    fn the_last_value_counts_and_unknown_settings_are_passed_over() {
        let settings = read(&[(4, 1), (0x99, 7), (4, 2), (3, 5), (8, 1)]).unwrap();
        assert_eq!(
            (
                settings.initial_window,
                settings.max_streams,
                settings.takes_connect
            ),
            (2, 5, true)
        );
    }

    #[test]
    fn a_value_that_a_setting_cannot_have_is_refused_for_the_right_reason() {
        for (settings, reason) in [
            (&[(2, 2)][..], Reason::PROTOCOL_ERROR),
            (&[(4, 1 << 31)], Reason::FLOW_CONTROL_ERROR),
            (&[(5, 16_383)], Reason::PROTOCOL_ERROR),
            (&[(5, 1 << 24)], Reason::PROTOCOL_ERROR),
            (&[(8, 2)], Reason::PROTOCOL_ERROR),
            (&[(8, 1), (8, 0)], Reason::PROTOCOL_ERROR),
        ] {
            assert_eq!(read(settings).unwrap_err(), reason, "{settings:?}");
        }
        assert!(read(&[(2, 1)]).is_ok());
        let allowed = read_from(Role::Server, &[(2, 1)]);
        assert_eq!(allowed.unwrap_err(), Reason::PROTOCOL_ERROR);
        let cut = PeerSettings::default().read(Role::Client, &[0; 5]);
        assert_eq!(cut.unwrap_err().reason, Reason::FRAME_SIZE_ERROR);
    }
}
