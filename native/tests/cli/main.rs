//! The program from outside: exit codes, what goes to stdout and what to stderr, pipes, Ctrl-C, and every command.
#![allow(clippy::unwrap_used)] // helpers of tests

mod batch;
mod batch_output;
mod bench;
#[cfg(target_os = "linux")]
mod budgets;
#[cfg(unix)]
mod cases;
mod chat;
mod doctor;
mod embed;
#[cfg(target_os = "linux")]
mod faults;
mod first_run;
mod habits;
mod hostile;
mod loading;
mod models;
#[cfg(unix)]
mod outputs;
mod split_models;
mod support;
mod templates;
#[cfg(target_os = "linux")]
mod terminal;
mod text;
mod thinking;
mod usage;
mod verify;
