pub(crate) use fairlead_contract::{chain, escaped};
