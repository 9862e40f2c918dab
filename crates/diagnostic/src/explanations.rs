//! The texts behind `evenkeel explain`.

pub(crate) mod audit;
pub(crate) mod system_file;
