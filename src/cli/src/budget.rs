use fairlead_contract::escaped;
use serde::Serialize;

use crate::machine::Machine;

/// How much of its orders-per-week is spent at one ACME server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Budget {
    directory: String,
    /// Orders within seven days; `null` if that is not known.
    spent: Option<u32>,
    orders_per_week: u32,
    /// Why it is not known.
    fault: Option<String>,
}

/// That of every server of the settings.
pub(crate) fn budgets(machine: &Machine) -> Vec<Budget> {
    let authorities = machine.configuration.config.authorities().into_iter();
    let budget = |directory: String, limit| Budget {
        spent: match &machine.orders {
            Ok(orders) => Some(orders.spent(&directory, machine.now)),
            Err(_) => None,
        },
        directory,
        orders_per_week: limit,
        fault: machine.orders.as_ref().err().cloned(),
    };
    authorities
        .map(|acme| budget(acme.directory, acme.orders_per_week.get()))
        .collect()
}

impl Budget {
    /// One sentence, without the full stop.
    pub(crate) fn describe(&self) -> String {
        let (directory, limit) = (escaped(&self.directory), self.orders_per_week);
        match (self.spent, &self.fault) {
            (Some(spent), _) => format!("orders: {spent} of {limit} in seven days at {directory}"),
            (None, fault) => format!(
                "orders: it is not known how many of {limit} in seven days were made at {directory}: {}",
                fault.as_deref().unwrap_or_default()
            ),
        }
    }
}
