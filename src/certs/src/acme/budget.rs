use std::num::NonZeroU32;
use std::path::PathBuf;

use fairlead_contract::{Acme, Orders, Paths, read_file, write_atomically};
use jiff::Timestamp;

use crate::acme::AcmeError;

/// The share of the orders that is for renewals alone: what serves must not end because of new names.
const KEPT_FOR_RENEWALS: u32 = 10;

/// How many orders may still be made at one directory.
///
/// Only for a pass that runs alone, and never kept over an `await`: the file is the one count.
pub(crate) struct Budget<'a> {
    file: PathBuf,
    directory: &'a str,
    limit: u32,
}

impl<'a> Budget<'a> {
    pub(crate) fn new(paths: &Paths, acme: &'a Acme, is_renewal: bool) -> Self {
        Self {
            file: paths.orders_file(),
            directory: &acme.directory,
            limit: find_limit(acme.orders_per_week, is_renewal),
        }
    }

    /// Fails if nothing is left.
    pub(crate) fn check(&self) -> Result<(), AcmeError> {
        self.look(&self.read()?, Timestamp::now())
    }

    /// Counts an order that is about to be made. One too many is counted if it is not made after all.
    pub(crate) fn spend(&self) -> Result<(), AcmeError> {
        let now = Timestamp::now();
        let mut orders = self.read()?;
        self.look(&orders, now)?;
        orders.add(self.directory, now);
        write_atomically(&self.file, orders.render()?.as_bytes(), 0o644)?;
        Ok(())
    }

    fn look(&self, orders: &Orders, now: Timestamp) -> Result<(), AcmeError> {
        match orders.spent(self.directory, now) < self.limit {
            true => Ok(()),
            false => Err(AcmeError::NoBudget {
                directory: self.directory.to_owned(),
                limit: self.limit,
                until: orders.room_from(self.directory, self.limit, now),
            }),
        }
    }

    /// What cannot be read is not the same as nothing spent.
    fn read(&self) -> Result<Orders, AcmeError> {
        match read_file(&self.file) {
            Ok(bytes) => Orders::parse(&self.file, &bytes).map_err(AcmeError::Orders),
            Err(error) if error.is_not_found() => Ok(Orders::default()),
            Err(error) => Err(error.into()),
        }
    }
}

fn find_limit(orders_per_week: NonZeroU32, is_renewal: bool) -> u32 {
    let all = orders_per_week.get();
    match is_renewal {
        true => all,
        false => all - all / KEPT_FOR_RENEWALS,
    }
}
