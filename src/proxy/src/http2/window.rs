//! Flow control (RFC 9113 5.2 and 6.9).

/// No window is larger.
const MOST: i64 = (1 << 31) - 1;

/// What may still be sent. Below zero after the other side has reduced what it takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct SendWindow(i64);

impl SendWindow {
    pub(super) fn new(size: u32) -> Self {
        Self(size.into())
    }

    pub(super) fn available(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    pub(super) fn take(&mut self, bytes: usize) {
        self.0 -= bytes as i64;
    }

    /// `None`: it would be larger than a window may be.
    pub(super) fn change(&mut self, by: i64) -> Option<()> {
        self.0 += by;
        (self.0 <= MOST).then_some(())
    }
}

/// What the other side may still send.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceiveWindow {
    size: u32,
    left: u32,
    /// Taken, and not announced again.
    owed: u32,
}

impl ReceiveWindow {
    pub(super) fn new(size: u32) -> Self {
        Self {
            size,
            left: size,
            owed: 0,
        }
    }

    /// `None`: more has come than may.
    pub(super) fn receive(&mut self, bytes: usize) -> Option<()> {
        let bytes = u32::try_from(bytes).ok()?;
        self.left = self.left.checked_sub(bytes)?;
        Some(())
    }

    /// Makes room again for what was taken: what to announce, when it is worth a frame. That is the case earlier if little
    /// is left: what stays untaken of one stream must not keep the room of the others.
    pub(super) fn give_back(&mut self, bytes: usize) -> Option<u32> {
        self.owed += u32::try_from(bytes).unwrap_or(0);
        if self.owed < self.left.clamp(self.size / 8, self.size / 2) {
            return None;
        }
        self.left += self.owed;
        Some(std::mem::take(&mut self.owed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_to_send_may_fall_below_zero_and_not_rise_above_what_fits() {
        let mut window = SendWindow::new(10);
        window.take(8);
        window.change(-10).unwrap();
        assert_eq!(window.available(), 0);
        window.change(9).unwrap();
        assert_eq!(window.available(), 1);
        window.change(MOST - 1).unwrap();
        assert_eq!(window.change(1), None);
    }

    #[test]
    fn what_was_taken_is_announced_by_halves_and_may_come_again() {
        let mut window = ReceiveWindow::new(16);
        window.receive(8).unwrap();
        assert_eq!(window.give_back(7), None);
        window.receive(1).unwrap();
        assert_eq!(window.give_back(1), Some(8));
        window.receive(15).unwrap();
        assert_eq!(window.receive(1), None);
    }

    #[test]
    fn what_is_not_taken_does_not_keep_the_rest_from_being_announced() {
        let mut window = ReceiveWindow::new(16);
        let untaken = 9;
        window.receive(untaken).unwrap();
        window.receive(7).unwrap();
        assert_eq!(window.give_back(1), None);
        assert_eq!(window.give_back(6), Some(7));
    }
}
