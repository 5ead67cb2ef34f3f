//! boot

pub mod acpi;
