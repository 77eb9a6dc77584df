use bytes::BytesMut;

use super::super::frame::{
    ACK, DATA, END_STREAM, FrameHead, GOAWAY, PRIORITY, RST_STREAM, SETTINGS, Violation, WINDOW_UPDATE,
};
use super::super::head::Fields;
use super::super::hpack::{Field, Pseudo};
use super::sending::MAX_DATA;
use super::*;

const ROOM: u32 = 100_000;
const SERVER: OwnSettings = OwnSettings {
    max_streams: Some(2),
    initial_window: ROOM,
    max_header_bytes: 1000,
};
const CLIENT: OwnSettings = OwnSettings {
    max_streams: None,
    ..SERVER
};

/// Kind, flags, stream, and length of the payload or the number in it.
type Seen = (u8, u8, u32, u32);

/// A connection that has said what it begins with.
fn state(settings: OwnSettings) -> State {
    let mut state = State::new(settings, ROOM);
    state.take_out(&mut Output::new(0));
    state
}

fn written(state: &mut State) -> Vec<Seen> {
    let (mut out, mut bytes) = (Output::new(0), BytesMut::new());
    loop {
        state.take_out(&mut out);
        if out.is_empty() {
            break;
        }
        bytes.extend_from_slice(&out.copy_to_bytes(out.remaining()));
    }
    let mut seen = Vec::new();
    while let Some(head) = FrameHead::read(&bytes) {
        bytes.advance(frame::HEAD);
        let payload = bytes.split_to(head.length);
        let number = match head.kind {
            RST_STREAM | WINDOW_UPDATE | GOAWAY => frame::read_number(&payload[payload.len() - 4..]),
            _ => head.length as u32,
        };
        seen.push((head.kind, head.flags, head.stream, number));
    }
    seen
}

fn receive(state: &mut State, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<(), Violation> {
    let head = FrameHead {
        length: payload.len(),
        kind,
        flags,
        stream,
    };
    state.receive(head, payload.into())
}

fn fields(list: &[(Pseudo, &'static str)]) -> Fields {
    let mut fields = Fields::new(SERVER.max_header_bytes);
    for (name, value) in list {
        fields.add(Field::Pseudo(*name, Bytes::from_static(value.as_bytes())), 1);
    }
    fields
}

fn ask(state: &mut State, id: u32, is_last: bool) -> Result<Option<Request<()>>, Violation> {
    let request = [
        (Pseudo::Method, "POST"),
        (Pseudo::Scheme, "https"),
        (Pseudo::Authority, "a.test"),
        (Pseudo::Path, "/"),
    ];
    state.receive_block(id, is_last, fields(&request))
}

/// A client's first request, which has come and is being answered.
fn asked(id: u32) -> State {
    let mut state = state(SERVER);
    ask(&mut state, id, true).unwrap().unwrap();
    state
}

fn give(state: &mut State, id: u32, bytes: usize) {
    state.give(id, Bytes::from(vec![0; bytes])).unwrap();
}

fn widen(state: &mut State, id: u32, by: u32) {
    receive(state, WINDOW_UPDATE, 0, id, &by.to_be_bytes()).unwrap();
}

fn is_broken(state: &mut State, id: u32) -> bool {
    state.stream(id).is_none_or(|stream| stream.broken.is_some())
}

#[test]
fn a_wrong_priority_of_a_stream_that_is_over_harms_no_other() {
    let mut state = asked(1);
    state.reset(1, Reason::CANCEL);
    state.let_go(1);
    state.let_go(1);
    receive(&mut state, PRIORITY, 0, 1, &[]).unwrap();
    receive(&mut state, PRIORITY, 0, 3, &[]).unwrap_err();
}

#[test]
fn streams_with_much_to_send_take_turns() {
    let mut state = asked(1);
    ask(&mut state, 3, true).unwrap().unwrap();
    give(&mut state, 1, 2 * MAX_DATA);
    give(&mut state, 3, MAX_DATA + 1);
    state.finish(3, Ending::End).unwrap();
    let turns: Vec<_> = written(&mut state)
        .iter()
        .map(|frame| (frame.1, frame.2))
        .collect();
    assert_eq!(turns, [(0, 1), (0, 3), (0, 1), (END_STREAM, 3)]);
}

#[test]
fn content_waits_for_both_windows() {
    let mut state = asked(1);
    give(&mut state, 1, 70_000);
    state.finish(1, Ending::End).unwrap();
    let sent: u32 = written(&mut state).iter().map(|frame| frame.3).sum();
    assert_eq!(sent, 65_535);
    widen(&mut state, 1, 10_000);
    assert_eq!(written(&mut state), []);
    widen(&mut state, 0, 4_000);
    assert_eq!(written(&mut state), [(DATA, 0, 1, 4_000)]);
    widen(&mut state, 0, 4_000);
    assert_eq!(written(&mut state), [(DATA, END_STREAM, 1, 465)]);
}

#[test]
fn a_window_that_is_made_smaller_counts_for_streams_that_are_there() {
    let mut state = asked(1);
    give(&mut state, 1, 10);
    written(&mut state);
    let window = |size: u32| [&[0, 4][..], &size.to_be_bytes()].concat();
    receive(&mut state, SETTINGS, 0, 0, &window(5)).unwrap();
    give(&mut state, 1, 3);
    assert_eq!(written(&mut state), [(SETTINGS, ACK, 0, 0)]);
    receive(&mut state, SETTINGS, 0, 0, &window(12)).unwrap();
    assert_eq!(written(&mut state), [(SETTINGS, ACK, 0, 0), (DATA, 0, 1, 2)]);
    widen(&mut state, 1, 100);
    let most = window((1 << 31) - 1);
    let violation = receive(&mut state, SETTINGS, 0, 0, &most).unwrap_err();
    assert_eq!(violation.reason, Reason::FLOW_CONTROL_ERROR);
}

#[test]
fn what_breaks_off_is_reset_behind_what_can_leave_and_at_once_if_nothing_can() {
    let mut state = asked(1);
    give(&mut state, 1, 10);
    state.break_behind(1, Reason::INTERNAL_ERROR);
    let reset = (RST_STREAM, 0, 1, Reason::INTERNAL_ERROR.0);
    assert_eq!(written(&mut state), [(DATA, 0, 1, 10), reset]);

    let mut state = asked(1);
    give(&mut state, 1, 65_535);
    written(&mut state);
    give(&mut state, 1, 10);
    state.break_behind(1, Reason::INTERNAL_ERROR);
    assert_eq!(written(&mut state), [reset]);
}

#[test]
fn every_byte_that_comes_makes_room_again_whether_it_is_taken_or_not() {
    type Way = fn(&mut State);
    let half = vec![0; ROOM as usize / 2];
    let ways: [(&str, Way); 4] = [
        ("taken", |state| {
            let context = &mut Context::from_waker(Waker::noop());
            assert!(state.stream(1).unwrap().poll_frame(context).is_ready());
            state.give_back(1, ROOM as usize / 2);
        }),
        ("passed over before it came", |state| state.pass_over(1)),
        ("passed over", |state| state.pass_over(1)),
        ("reset before it came", |state| state.reset(1, Reason::CANCEL)),
    ];
    for (way, take) in ways {
        let mut state = state(SERVER);
        ask(&mut state, 1, false).unwrap().unwrap();
        if way.ends_with("before it came") {
            take(&mut state);
        }
        receive(&mut state, DATA, 0, 1, &half).unwrap();
        if !way.ends_with("before it came") {
            take(&mut state);
        }
        let updates = written(&mut state);
        assert!(
            updates.contains(&(WINDOW_UPDATE, 0, 0, ROOM / 2)),
            "{way}: {updates:?}"
        );
    }
}

#[test]
fn more_than_a_window_is_refused() {
    let mut state = state(OwnSettings {
        initial_window: 10,
        ..SERVER
    });
    ask(&mut state, 1, false).unwrap().unwrap();
    receive(&mut state, DATA, 0, 1, &[0; 11]).unwrap();
    assert_eq!(
        written(&mut state),
        [(RST_STREAM, 0, 1, Reason::FLOW_CONTROL_ERROR.0)]
    );
    let violation = receive(&mut state, DATA, 0, 1, &[0; ROOM as usize]).unwrap_err();
    assert_eq!(violation.reason, Reason::FLOW_CONTROL_ERROR);
}

#[test]
fn a_stream_that_is_over_is_passed_over_reset_or_an_error_by_how_it_ended() {
    // By us.
    let mut state = state(SERVER);
    ask(&mut state, 1, false).unwrap().unwrap();
    state.reset(1, Reason::CANCEL);
    state.let_go(1);
    state.let_go(1);
    assert!(state.stream(1).is_none());
    written(&mut state);
    receive(&mut state, DATA, 0, 1, b"late").unwrap();
    assert_eq!(
        ask(&mut state, 1, true).map(|request| request.is_some()),
        Ok(false)
    );
    assert_eq!(written(&mut state), []);
    // By the other side.
    ask(&mut state, 3, false).unwrap().unwrap();
    receive(&mut state, RST_STREAM, 0, 3, &[0; 4]).unwrap();
    receive(&mut state, DATA, 0, 3, b"late").unwrap();
    let reset = [(RST_STREAM, 0, 3, Reason::STREAM_CLOSED.0)];
    assert_eq!(written(&mut state), reset);
    state.let_go(3);
    state.let_go(3);
    receive(&mut state, DATA, 0, 3, b"late").unwrap();
    assert_eq!(written(&mut state), reset);
    // Regularly.
    ask(&mut state, 5, true).unwrap().unwrap();
    state.finish(5, Ending::End).unwrap();
    written(&mut state);
    state.let_go(5);
    state.let_go(5);
    let violation = receive(&mut state, DATA, 0, 5, b"late").unwrap_err();
    assert_eq!(violation.reason, Reason::STREAM_CLOSED);
    // Never begun.
    let violation = receive(&mut state, DATA, 0, 7, b"early").unwrap_err();
    assert_eq!(violation.reason, Reason::PROTOCOL_ERROR);
}

#[test]
fn streams_count_until_both_sides_are_over() {
    let mut state = asked(1);
    ask(&mut state, 3, true).unwrap().unwrap();
    assert!(ask(&mut state, 5, true).unwrap().is_none());
    assert_eq!(
        written(&mut state),
        [(RST_STREAM, 0, 5, Reason::REFUSED_STREAM.0)]
    );
    state.finish(1, Ending::End).unwrap();
    written(&mut state);
    // Though the handles are there still.
    assert!(ask(&mut state, 7, true).unwrap().is_some());
}

#[test]
fn an_answer_that_is_over_before_its_request_asks_for_no_more_of_it() {
    let mut state = state(SERVER);
    ask(&mut state, 1, false).unwrap().unwrap();
    state.finish(1, Ending::End).unwrap();
    state.let_go(1);
    state.let_go(1);
    let end = [(DATA, END_STREAM, 1, 0), (RST_STREAM, 0, 1, Reason::NO_ERROR.0)];
    assert_eq!(written(&mut state), end);
}

#[test]
fn the_last_stream_is_named_when_all_has_come_that_was_sent_before_the_farewell() {
    let mut state = asked(1);
    state.leave();
    let ping = (PING, 0, 0, 8);
    assert_eq!(written(&mut state), [(GOAWAY, 0, 0, 0), ping]);
    assert!(ask(&mut state, 3, true).unwrap().is_some());
    receive(&mut state, PING, ACK, 0, &1_u64.to_be_bytes()).unwrap();
    assert_eq!(written(&mut state), [(GOAWAY, 0, 0, 0)]);
    assert!(ask(&mut state, 5, false).unwrap().is_none());
    receive(&mut state, DATA, 0, 5, b"passed over").unwrap();
    assert!(!state.is_over());
    for id in [1, 3] {
        state.finish(id, Ending::End).unwrap();
    }
    written(&mut state);
    assert!(state.is_over());
}

#[test]
fn what_a_server_has_not_looked_at_may_go_to_another_one() {
    let mut state = state(CLIENT);
    state.count_opener();
    let head = Request::get("https://a.test/").body(()).unwrap();
    let first = state.open(&head, true).unwrap();
    let second = state.open(&head, true).unwrap();
    receive(&mut state, GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]).unwrap();
    assert!(!is_broken(&mut state, first));
    let broken = state.stream(second).unwrap().broken.as_ref().unwrap();
    assert!(broken.error.is_unprocessed());
    assert!(matches!(state.open(&head, true), Err(Http2Error::Unprocessed(_))));
    assert!(!state.is_over());
    state
        .receive_block(first, true, fields(&[(Pseudo::Status, "200")]))
        .unwrap();
    assert!(state.is_over());
}

#[test]
fn an_answer_comes_in_its_order_and_has_the_length_it_declares() {
    let mut state = state(CLIENT);
    let head = Request::get("https://a.test/").body(()).unwrap();
    for (blocks, is_answer) in [
        (&[("103", false), ("200", false)][..], true),
        (&[("103", true)], false),
        (&[("101", false)], false),
        (&[("200", false), ("200", false)], false),
        (&[("200", true)], true),
    ] {
        let id = state.open(&head, true).unwrap();
        for (status, is_last) in blocks {
            state
                .receive_block(id, *is_last, fields(&[(Pseudo::Status, *status)]))
                .unwrap();
        }
        assert_ne!(is_broken(&mut state, id), is_answer, "{blocks:?}");
    }
    let id = state.open(&head, true).unwrap();
    receive(&mut state, DATA, 0, id, b"before its head").unwrap();
    assert!(is_broken(&mut state, id));
}

#[test]
fn a_head_that_is_too_large_is_answered_and_the_next_request_is_served() {
    let mut state = state(SERVER);
    let mut large = fields(&[]);
    large.add(Field::Malformed, 2000);
    assert!(state.receive_block(1, false, large).unwrap().is_none());
    let answer = written(&mut state);
    assert_eq!(
        (answer[0].0, answer[0].1 & END_STREAM),
        (frame::HEADERS, END_STREAM)
    );
    assert_eq!(answer[1], (RST_STREAM, 0, 1, Reason::NO_ERROR.0));
    receive(&mut state, DATA, 0, 1, b"on its way").unwrap();
    assert!(ask(&mut state, 3, true).unwrap().is_some());
}

#[test]
fn a_busy_client_may_give_up_a_part_of_what_it_asks() {
    let is_too_much = |begun, given_up| Tally { begun, given_up }.is_too_much();
    assert!(!is_too_much(MOST_GIVEN_UP, MOST_GIVEN_UP));
    assert!(is_too_much(MOST_GIVEN_UP + 1, MOST_GIVEN_UP + 1));
    assert!(!is_too_much(10 * MOST_GIVEN_UP, 2 * MOST_GIVEN_UP));
    assert!(is_too_much(10 * MOST_GIVEN_UP, 6 * MOST_GIVEN_UP));
}

#[test]
fn streams_that_a_client_resets_and_that_are_malformed_count_as_given_up() {
    let mut state = asked(1);
    receive(&mut state, RST_STREAM, 0, 1, &[0; 4]).unwrap();
    state.receive_block(3, true, fields(&[])).unwrap();
    ask(&mut state, 5, true).unwrap();
    receive(&mut state, WINDOW_UPDATE, 0, 5, &[0; 4]).unwrap();
    assert_eq!((state.tally.begun, state.tally.given_up), (3, 3));
}
