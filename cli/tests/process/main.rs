//! `cuddy` as a process: what it says, how it ends, and what it leaves behind.

mod bad_input;
mod command;
mod guest;
mod image;
mod machine;
mod pages;
mod pseudo_terminal;
mod terminal;
